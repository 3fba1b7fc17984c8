"""A stage is trained once, from weights that its seed decides."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.data.prepare import Dataset
from jobs.experiment.pretrained import PretrainedError, pretrained_sha256
from jobs.experiment.specs import ClusterSpec, Distillation, ModelSpec
from jobs.parallel.engine import rendezvous
from jobs.train.exports import ExportError, exported
from jobs.train.stage import prepared_run, teacher_network
from jobs.train.stage_trainer import StageTrainer
from models.registry import create_model
from tests.support.networks import toy_spec
from tests.support.stages import assert_same, dense, train


def test_a_stage_that_is_exported_is_not_run_again(tmp_path, monkeypatch):
    from jobs.train.stage import train_stage

    result = train(tmp_path, dense())
    monkeypatch.setattr(StageTrainer, "run", lambda *_: pytest.fail("ran again"))
    spec = toy_spec(dense())
    assert train_stage(spec, None, tmp_path, parent=None, rewind=None, ranks=rendezvous(1), cluster=ClusterSpec()) == result


def test_initial_weights_depend_on_the_seed_alone(tmp_path):
    for folder, options in {"a": {}, "b": {"batch_size": 8}, "c": {"dtype": "bf16"}, "d": {"zero_stage": 2}, "e": {"seed": 1}}.items():
        train(tmp_path / folder, dense(epochs=1, keep_steps=(0,)), **options)
    starts = {folder: load_file(exported(tmp_path / folder).rewinds[0]) for folder in "abcde"}
    for folder in "bcd":
        assert_same(starts["a"], starts[folder])
    assert not torch.equal(starts["a"]["fc.weight"], starts["e"]["fc.weight"])


Start = Literal["scratch", "parent", "rewind"]


class Built(Exception):
    """A network was asked for, with these options."""


def options_built(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    model: ModelSpec,
    start: Literal["scratch", "parent", "rewind"],
    through: bool = False,
    **recipe: object,
) -> object:
    """The options of the network that a stage with this start asks for. `through`: building goes on after the network."""

    def build(*_: object, **options: object) -> None:
        if through:
            return
        raise Built({name: value for name, value in options.items() if name != "scan_backend"})

    monkeypatch.setattr("models.registry.create_model", build)
    spec = replace(toy_spec(dense(start=start), **recipe), model=model)
    data, ranks = SimpleNamespace(classes=2, img_size=32), rendezvous(1)
    with (
        pytest.raises(Built) as caught,
        prepared_run(spec, cast(Dataset, data), folder, (), ranks=ranks, cluster=ClusterSpec(), report=lambda progress: None),
    ):
        pass
    return caught.value.args[0]


def test_a_first_stage_alone_reads_the_pretrained_file_and_refuses_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"weights")
    options = {"depth": 2, "pretrained": str(path), "pretrained_key": "model_ema"}
    model = ModelSpec(name="vim_micro", label="x", options=options, pretrained_sha256=pretrained_sha256(path))
    read = []

    def load(network: object, path: Path, key: str) -> tuple[str, ...]:
        read.append((path, key))
        raise Built(read)

    monkeypatch.setattr("models.pretrained.load_pretrained", load)
    assert options_built(monkeypatch, tmp_path, model, "scratch", through=True) == [(path, "model_ema")]
    path.write_bytes(b"others")
    with pytest.raises(PretrainedError, match="has changed since the launch"):
        options_built(monkeypatch, tmp_path, model, "scratch", through=True)
    path.unlink()
    assert options_built(monkeypatch, tmp_path, model, "parent") == options_built(monkeypatch, tmp_path, model, "rewind") == {"depth": 2}


def test_kernels_are_checked_before_anything_is_trained_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_kernels(network: object, device_type: str) -> None:
        raise Built(device_type)

    monkeypatch.setattr("models.ssm.check.check_kernels", check_kernels)
    assert options_built(monkeypatch, tmp_path, ModelSpec(name="vim_micro", label="x"), "scratch", through=True) == "cpu"


def test_a_recipes_stochastic_depth_takes_the_place_of_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelSpec(name="vim_micro", label="x", options={"depth": 2})
    assert options_built(monkeypatch, tmp_path, model, "parent", drop_path=0.4) == {"depth": 2, "drop_path": 0.4}
    assert options_built(monkeypatch, tmp_path, model, "scratch", drop_path=0.0) == {"depth": 2, "drop_path": 0.0}
    assert options_built(monkeypatch, tmp_path, model, "scratch") == {"depth": 2}


def test_a_teacher_is_the_dense_stages_network_or_the_recipes_file(tmp_path: Path) -> None:
    model = ModelSpec(name="vim_micro", label="x", options={"depth": 1, "dim": 16})
    network = create_model("vim_micro", 3, 32, **model.options)
    (tmp_path / "dense" / "export").mkdir(parents=True)
    save_file(network.state_dict(), tmp_path / "dense" / "export" / "model.safetensors")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    data = cast(Dataset, SimpleNamespace(classes=3, img_size=32))

    def teacher(distill: Distillation | None, folder: Path | None = None, of: Dataset = data) -> torch.nn.Module | None:
        return teacher_network(replace(toy_spec(dense(), distill=distill), model=model), of, folder)

    assert teacher(None) is None
    file = Distillation(teacher=str(tmp_path / "w.pth"), teacher_sha256=pretrained_sha256(tmp_path / "w.pth"))
    for taught in (teacher(Distillation(teacher="dense"), tmp_path / "dense"), teacher(file)):
        assert taught is not None
        assert_same(dict(taught.state_dict()), dict(network.state_dict()))
    with pytest.raises(ExportError, match="no such stage was given"):
        teacher(Distillation(teacher="dense"))
    with pytest.raises(PretrainedError, match="cannot teach: the head is fresh, because the file's has 3 classes and the data 4"):
        teacher(file, of=cast(Dataset, SimpleNamespace(classes=4, img_size=32)))
    (tmp_path / "w.pth").write_bytes(b"others")
    with pytest.raises(PretrainedError, match="is not the file that the launch read"):
        teacher(file)
