"""Steps that are asked of a stage after it has ended, or after it has passed them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jobs.data.prepare import Dataset, prepare
from jobs.experiment.rewinds import ask_for_replay, missing_steps
from jobs.experiment.run_folder import REPLAY_TODO
from jobs.experiment.specs import ClusterSpec, DataSpec, ModelSpec, RecipeSpec, StageSpec
from jobs.parallel.engine import rendezvous
from jobs.train.exports import ExportError, exported, rewind_file
from jobs.train.stage import train_stage
from jobs.train.stage_trainer import StageTrainer
from models.pruning.base import Stage

DATA = DataSpec(source="synthetic", samples=80, img_size=16, loader="torch", augment="shift")  # 72 images to train: 4 steps an epoch
SPEC = StageSpec(
    id="0",
    model=ModelSpec(name="vim_micro", options={"depth": 1, "dim": 16}, label="small"),
    data=DATA,
    recipe=RecipeSpec(epochs=3, batch_size=16, lr=1e-2, warmup_epochs=0.0),
    seed=0,
    stage=Stage(name="train", epochs=3),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(DATA, tmp_path_factory.mktemp("cache"))


def train(data: Dataset, folder: Path, *steps: int) -> Path:
    spec = replace(SPEC, stage=replace(SPEC.stage, keep_steps=steps))
    train_stage(spec, data, folder, parent=None, rewind=None, ranks=rendezvous(threads=1), cluster=ClusterSpec())
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "progress.json"}


@pytest.mark.slow
def test_a_finished_stage_is_trained_again_as_far_as_the_step_and_loses_nothing(tmp_path, data):
    asked_before, asked_after = train(data, tmp_path / "before", 0, 5), train(data, tmp_path / "after")
    old = files(asked_after)
    ask_for_replay(asked_after)
    train(data, asked_after, 0, 5)
    new = files(asked_after)
    assert {name: new[name] for name in old} == old
    assert sorted(new.keys() - old.keys()) == ["export/rewind-000000000.safetensors", "export/rewind-000000005.safetensors"]
    for step, path in exported(asked_before).rewinds.items():
        expected, found = load_file(path), load_file(exported(asked_after).rewinds[step])
        assert all(torch.equal(found[name], weight) for name, weight in expected.items()), f"step {step} is not the same to the bit"


@pytest.mark.slow
def test_a_stage_that_was_killed_beyond_the_step_keeps_it_all_the_same(tmp_path, data, monkeypatch):
    train_epoch = StageTrainer.train_epoch

    def killed(run: StageTrainer) -> None:
        if run.state.step >= 8:
            raise KeyboardInterrupt
        train_epoch(run)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StageTrainer, "train_epoch", killed)
        train(data, tmp_path)
    train(data, tmp_path, 5)
    assert list(exported(tmp_path).rewinds) == [5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "metrics.jsonl", "progress.json"]


@pytest.mark.slow
def test_where_the_training_is_not_what_it_was_only_rewinding_is_refused(tmp_path, data):
    train(data, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["loss"] += 1e-7 * (line["event"] == "epoch" and line["epoch"] == 2)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    old = files(tmp_path)
    ask_for_replay(tmp_path)
    train(data, tmp_path, 5)
    assert {name: data for name, data in files(tmp_path).items() if name in old} == old
    assert not (tmp_path / REPLAY_TODO).exists() and not missing_steps(tmp_path, (5,))
    with pytest.raises(ExportError, match=r"step 5 to rewind to: .*refused says: .*not what it was.*val_top1 of epoch 2 were .*delete this file"):
        rewind_file(tmp_path, 5)


def test_steps_that_were_never_made_are_not_missing(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "result.json").write_text('{"steps": 12}')
    (tmp_path / "export" / "rewind-000000003.safetensors").touch()
    assert missing_steps(tmp_path, (0, 3, 12, 13)) == (0, 12)
