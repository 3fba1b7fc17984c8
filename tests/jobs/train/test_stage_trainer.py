"""The training of a stage: its start, its steps and reports, rewinding, divergence, kills, ranks."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import jobs.train.stage_trainer
from jobs.experiment.specs import Distillation
from jobs.parallel.engine import Ranks, rendezvous
from jobs.train.evaluation import load_masks
from jobs.train.exports import exported, read_result
from jobs.train.late_loss import Diverged
from jobs.train.lr_schedule import schedule
from jobs.train.training_state import derived_seed
from models.pruning.base import Stage
from models.pruning.gradient import Gradient
from models.pruning.magnitude import Magnitude
from models.pruning.sparsegpt import SparseGPT
from tests.support.networks import Halve, ToyBatches, global_batch, toy_net, toy_spec
from tests.support.processes import finish_ranks, run_ranks, start_ranks
from tests.support.stages import REGROWN, assert_same, dense, lines, stage_run, train, weights


class Cut(Exception):
    """Stands for a kill in all cases but the last, so that one process can leave many stages half-way."""


class CutShort(ToyBatches):
    """Batches that stop the training when optimizer step 8 (of 12) asks for its images, a step after a checkpoint in mid-epoch."""

    def epoch(self, epoch, first_step=0):
        for index, batch in enumerate(super().epoch(epoch, first_step)):
            if epoch * self.steps_per_epoch + first_step + index * self.micro * self.ranks.world // self.batch == 7:
                raise Cut
            yield batch


class Killed(CutShort):
    """The same by SIGKILL."""

    def epoch(self, epoch, first_step=0):
        try:
            yield from super().epoch(epoch, first_step)
        except Cut:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_stage_learns_and_leaves_its_export_and_nothing_else(tmp_path):
    result = train(tmp_path, dense(epochs=15))
    assert result.val_top1 > 50  # a guess would be right once in seven
    assert (result.steps, result.epochs, result.sparsity) == (60, 15, 0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "metrics.jsonl", "progress.json"]
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["model.safetensors", "result.json"]
    assert read_result(tmp_path) == result


def test_the_metrics_say_each_epoch_once_with_its_rate_and_loss(tmp_path):
    train(tmp_path, dense(epochs=6))
    epochs = lines(tmp_path, "epoch")
    assert [(line["epoch"], line["step"]) for line in epochs] == [(n, 4 * n) for n in range(1, 7)]
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    (step,) = lines(tmp_path, "step")
    assert step["step"] == 20
    assert step["lr"] == schedule(toy_spec(dense()).recipe, "train", steps=24, steps_per_epoch=4).lr(19)
    assert step["loss"] == pytest.approx(sum(line["loss"] for line in epochs[:5]) / 5)


def test_progress_tells_where_the_stage_stands(tmp_path):
    train(tmp_path, dense())
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert (progress["epoch"], progress["epochs"], progress["step"], progress["steps"]) == (3, 3, 12, 12)
    assert progress["eta_s"] == 0
    assert progress["loss"] > 0 and progress["img_per_s"] > 0


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_a_method_prunes_at_the_start_and_moves_its_mask(tmp_path, zero_stage):
    result = train(tmp_path, dense(method=Halve(move=5)), zero_stage=zero_stage)
    masks, final = load_masks(tmp_path / "export"), weights(tmp_path)
    assert result.sparsity == pytest.approx(0.5, abs=0.01)
    assert set(masks) == {"conv.weight", "fc.weight", "head.weight"}
    for name, mask in masks.items():
        assert torch.equal(mask.flatten(), torch.arange(mask.numel()) % 2 == 1), "the mask after the move"
        assert not final[name][~mask].any()
        assert final[name][mask].any()
    assert lines(tmp_path, "epoch")[-1]["sparsity"] == result.sparsity


def test_a_stage_without_epochs_only_prunes(tmp_path):
    before = train(tmp_path / "dense", dense())
    stage = Stage(name="finetune", epochs=0, schedule="finetune", start="parent", method=Halve())
    result = train(tmp_path / "pruned", stage, parent=tmp_path / "dense")
    masks = load_masks(tmp_path / "pruned" / "export")
    assert result.epochs == result.steps == 0
    assert result.train_loss == before.train_loss
    for name, weight in weights(tmp_path / "dense").items():
        assert torch.equal(weights(tmp_path / "pruned")[name], weight * masks.get(name, torch.ones(1)))


def top1_of(network: torch.nn.Module) -> float:
    """Validation accuracy in percent, by hand."""
    images, labels = global_batch(999_999, 30)
    with torch.no_grad():
        return 100 * float((network.eval()(images).argmax(1) == labels).double().mean())


@pytest.mark.parametrize(("zero_stage", "ema"), [(0, None), (2, 0.9)])
def test_the_accuracy_of_pruning_alone_is_that_of_the_pruned_weights_before_the_first_step(tmp_path, zero_stage, ema):
    trained = train(tmp_path / "dense", dense(epochs=8))
    assert trained.val_top1_pruned is None
    method = Magnitude(sparsity=0.8, groups=("other", "conv", "head", "mlp"))
    stage = Stage(name="finetune", epochs=3, schedule="finetune", start="parent", method=method)
    result = train(tmp_path / "pruned", stage, parent=tmp_path / "dense", zero_stage=zero_stage, ema=ema)
    network = toy_net()
    network.load_state_dict(weights(tmp_path / "dense"))
    for name, mask in load_masks(tmp_path / "pruned" / "export").items():
        network.get_parameter(name).data.mul_(mask)
    assert result.val_top1_pruned == pytest.approx(top1_of(network), abs=1e-9)
    assert result.val_top1_pruned != trained.val_top1
    plain = train(tmp_path / "more", Stage(name="finetune", epochs=3, schedule="finetune", start="parent"), parent=tmp_path / "dense")
    assert plain.val_top1_pruned is None
    assert train(tmp_path / "scratch", dense(method=Halve())).val_top1_pruned is None
    assert read_result(tmp_path / "pruned") == result


@pytest.mark.parametrize(("batches", "known"), [(1, True), (2, False)])
def test_a_score_of_one_batch_prunes_before_the_first_step_and_a_score_of_two_does_not(tmp_path, batches, known):
    train(tmp_path / "dense", dense(epochs=8))
    method = Gradient(sparsity=0.8, batches=batches, groups=("other", "conv", "head", "mlp"))
    stage = Stage(name="finetune", epochs=1, schedule="finetune", start="parent", method=method)
    result = train(tmp_path / "pruned", stage, parent=tmp_path / "dense")
    assert (result.val_top1_pruned is not None) is known
    if known:
        network = toy_net()
        network.load_state_dict(weights(tmp_path / "dense"))
        for name, mask in load_masks(tmp_path / "pruned" / "export").items():
            network.get_parameter(name).data.mul_(mask)
        assert result.val_top1_pruned == pytest.approx(top1_of(network), abs=1e-9)


def test_a_pruned_stage_that_is_killed_keeps_the_accuracy_of_pruning_alone(tmp_path):
    train(tmp_path / "dense", dense(epochs=8))
    stage = Stage(name="finetune", epochs=3, schedule="finetune", start="parent", method=Halve())
    whole = train(tmp_path / "whole", stage, parent=tmp_path / "dense")
    with pytest.raises(Cut):
        train(tmp_path / "cut", stage, parent=tmp_path / "dense", batches=CutShort, checkpoint_steps=3)
    resumed = train(tmp_path / "cut", stage, parent=tmp_path / "dense", checkpoint_steps=3)
    assert resumed.val_top1_pruned == whole.val_top1_pruned is not None
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_rewinding_takes_early_weights_under_late_masks_and_the_rates_from_there(tmp_path):
    train(tmp_path / "first", dense(keep_steps=(2, 5)))
    train(tmp_path / "pruned", Stage(name="prune", epochs=0, start="parent", method=Halve()), parent=tmp_path / "first")
    stage = dense(start="rewind", rewind_step=5, keep_steps=(5,))
    result = train(tmp_path / "second", stage, parent=tmp_path / "pruned", rewind=tmp_path / "first")
    masks = load_masks(tmp_path / "pruned" / "export")
    early, again = (load_file(exported(tmp_path / name).rewinds[5]) for name in ("first", "second"))
    for name, weight in early.items():
        assert torch.equal(again[name], weight * masks.get(name, torch.ones(1))), name
    assert result.steps == 12 - 5
    assert [line["step"] for line in lines(tmp_path / "second", "epoch")] == [8, 12]


def test_a_loss_that_is_not_finite_stops_the_stage_and_says_where(tmp_path):
    class Poisoned(ToyBatches):
        def epoch(self, epoch, first_step=0):
            self.poison = (2, 0)
            return super().epoch(epoch, first_step)

    with pytest.raises(Diverged, match=r"the loss is nan at epoch 1 of 3, step 3 of 12, learning rate .*; the last finite one was \d"):
        train(tmp_path, dense(), batches=Poisoned)
    assert not (tmp_path / "export").exists()


class PoisonedOnRank1(ToyBatches):
    def epoch(self, epoch, first_step=0):
        self.poison = (2, 1)
        return super().epoch(epoch, first_step)


def diverge(folder, ranks):
    """Ends well if every rank raises the error, at the same step."""
    with pytest.raises(Diverged, match="step 3 of 12"):
        train(folder / "stage", dense(), ranks, batches=PoisonedOnRank1)


UPDATED = SparseGPT(sparsity=0.5, batches=2, block=16, groups=Halve(move=7).groups)
CASES = {
    "dense": {},
    "pruned": {"stage": {"method": Halve(move=7)}, "zero_stage": 2, "ema": 0.9, "micro_batch_size": 4},
    "regrown": {"stage": {"method": REGROWN}, "zero_stage": 1, "ema": 0.9, "dtype": "bf16", "optimizer": "sgd"},
    "bf16": {"stage": {"method": Halve(move=7)}, "zero_stage": 3, "dtype": "bf16", "ema": 0.9, "mesa": 0.2, "mesa_start": 0.0},
    "taught": {"stage": {"method": Halve(move=7)}, "zero_stage": 1, "distill": Distillation(teacher="dense", temperature=2.0)},
    "updated": {"stage": {"method": UPDATED}, "zero_stage": 2, "dtype": "bf16", "ema": 0.9, "micro_batch_size": 4},
    "sgd": {"zero_stage": 1, "optimizer": "sgd", "net": {"norm": True, "dropout": 0.3}},
    "timm": {
        "ema": 0.9,
        "ema_warmup": "timm",
        "ema_buffers": True,
        "mesa": 0.2,
        "mesa_start": 0.0,
        "clip_mode": "value",
        "clip_grad": 0.01,
        "loss": "bce",
        "lr_every": "epoch",
        "warmup_lr": 1e-4,
        "warmup_prefix": False,
        "cooldown_epochs": 1,
        "net": {"norm": True},
        "zero_stage": 2,
    },
    "lamb": {"stage": {"method": Halve(move=7)}, "optimizer": "lamb", "net": {"norm": True, "dropout": 0.3}, "dtype": "bf16"},
}


def train_case(folder: Path, case: str, ranks: Ranks, **options: Any):
    fields = dict(CASES[case])
    if "distill" in fields:
        fields["teacher"] = toy_net(seed=7)
    stage = dense(keep_steps=(0, 6), **fields.pop("stage", {}))
    return train(folder, stage, ranks, checkpoint_steps=3, **fields, **options)


def train_and_die(folder):
    """Trains every case undisturbed, then again up to the cut; the last one takes the process along."""
    jobs.train.stage_trainer.LOG_STEPS = 5
    ranks = rendezvous(threads=1)
    train_without_norm(folder, ranks)
    for case in CASES:
        train_case(folder / case / "undisturbed", case, ranks)
    for case in list(CASES)[:-1]:
        with pytest.raises(Cut):
            train_case(folder / case / "cut", case, ranks, batches=CutShort)
    train_case(folder / list(CASES)[-1] / "cut", list(CASES)[-1], ranks, batches=Killed)


def train_on(folder):
    """Goes on where `train_and_die` left."""
    jobs.train.stage_trainer.LOG_STEPS = 5
    ranks = rendezvous(threads=1)
    for case in CASES:
        train_case(folder / case / "cut", case, ranks)
    if ranks.world > 1:
        diverge(folder, ranks)


TAUGHT = {
    "ema": 0.9,
    "ema_warmup": "none",
    "mesa": 0.2,
    "mesa_start": 0.0,
    "loss": "bce",
    "clip_mode": "value",
    "clip_grad": 0.01,
    "distill": Distillation(teacher="dense", temperature=2.0),
    "lr_every": "epoch",
}


def train_without_norm(folder, ranks):
    for name, micro in {"whole": None, "accumulated": 2}.items():
        train(folder / f"{name}-{ranks.world}", dense(), ranks, micro_batch_size=micro)
        train(folder / f"taught-{name}-{ranks.world}", dense(), ranks, micro_batch_size=micro, teacher=toy_net(seed=7), **TAUGHT)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folder and state of stages that were trained by 1 and by 2 ranks, undisturbed and killed; one start of processes serves several tests."""
    folders = {world: tmp_path_factory.mktemp(f"ranks{world}") for world in (1, 2)}
    for world, folder in folders.items():
        ends = finish_ranks(start_ranks("tests.jobs.train.test_stage_trainer:train_and_die", world, folder), folder)
        assert [status for status, _ in ends] == [-signal.SIGKILL] * world, "\n".join(output for _, output in ends)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_a_killed_stage_goes_on_to_the_same_bits_and_a_loss_that_diverges_on_one_rank_stops_all(killed, world):
    folder = killed[world]
    for case in CASES:
        assert sorted(path.name for path in (folder / case / "cut" / "checkpoints").iterdir()) == ["step-000000004", "step-000000006"], case
    run_ranks("tests.jobs.train.test_stage_trainer:train_on", world, folder)
    for case in CASES:
        undisturbed, resumed = folder / case / "undisturbed", folder / case / "cut"
        assert_same(weights(resumed), weights(undisturbed))
        masks = load_masks(resumed / "export")
        assert_same(masks, load_masks(undisturbed / "export"))
        assert bool(masks) == ("stage" in CASES[case])
        assert not any(weights(resumed)[name][~mask].any() for name, mask in masks.items()), f"{case}: averaged or last weights are not zero"
        kept, expected = exported(resumed).rewinds, exported(undisturbed).rewinds
        assert list(kept) == list(expected) == [0, 6]
        for step, path in expected.items():
            assert_same(load_file(kept[step]), load_file(path))
        assert lines(resumed) == lines(undisturbed), case
        assert read_result(resumed).val_top1 == read_result(undisturbed).val_top1
        assert not (resumed / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "taught-"])
def test_one_rank_or_two_or_smaller_micro_batches_make_the_same_curve(killed, kind):
    folders = {f"{name}-{world}": killed[world] / f"{kind}{name}-{world}" for name in ("whole", "accumulated") for world in (1, 2)}
    expected, final = [line["loss"] for line in lines(folders["whole-1"], "epoch")], weights(folders["whole-1"])
    assert all(math.isfinite(loss) for loss in expected)
    for folder in folders.values():
        assert [line["loss"] for line in lines(folder, "epoch")] == pytest.approx(expected, rel=1e-5)
        for name, weight in final.items():
            torch.testing.assert_close(weights(folder)[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 3])
def test_dropout_is_drawn_from_the_cells_seed_the_stage_and_the_rank(tmp_path, seed):
    stage_run(tmp_path, dense(), rendezvous(threads=1), seed=seed).advance(None, None, 0)
    assert torch.initial_seed() == derived_seed(seed, "dropout", "train", 0)


def dropout_of_a_rank(folder):
    """Leaves the dropout mask that this rank draws first."""
    ranks = rendezvous(threads=1)
    trainer = stage_run(folder / "stage", dense(), ranks, net={"dropout": 0.5})
    trainer.advance(None, None, 0)
    torch.save(torch.dropout(torch.ones(1000), 0.5, train=True), folder / f"dropped-{ranks.rank}")
    trainer.network.engine.close()


@pytest.mark.slow
def test_two_ranks_drop_different_units(tmp_path):
    run_ranks("tests.jobs.train.test_stage_trainer:dropout_of_a_rank", 2, tmp_path)
    first, second = (torch.load(tmp_path / f"dropped-{rank}") for rank in (0, 1))
    assert 300 < int((first != second).sum()) < 700


def test_a_stage_that_goes_on_reports_the_largest_peak_of_memory_of_all_its_attempts(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.train.stage_trainer, "peak_bytes", lambda device: 1 << 50)
    with pytest.raises(Cut):
        train(tmp_path / "first", dense(), batches=CutShort)
    monkeypatch.setattr(jobs.train.stage_trainer, "peak_bytes", lambda device: 1 << 40)
    assert train(tmp_path / "first", dense()).peak_memory_bytes == 1 << 50
    assert train(tmp_path / "second", dense()).peak_memory_bytes == 1 << 40


def test_a_stage_that_goes_on_counts_the_time_of_all_its_attempts_up_to_their_checkpoints(tmp_path, monkeypatch):
    clock = {"now": 0.0}

    class Slow(CutShort):
        """Every batch takes 100 s."""

        def epoch(self, epoch, first_step=0):
            for batch in (super() if clock["cut"] else super(CutShort, self)).epoch(epoch, first_step):
                clock["now"] += 100.0
                yield batch

    monkeypatch.setattr(jobs.train.stage_trainer.time, "monotonic", lambda: clock["now"])
    clock["cut"] = True
    with pytest.raises(Cut):
        train(tmp_path, dense(), batches=Slow)
    clock |= {"now": 0.0, "cut": False}
    result = train(tmp_path, dense(), batches=Slow)
    assert (result.steps, result.train_s) == (12, 1200.0), "4 steps up to the checkpoint, then 8"
