"""Exports: the weights that were validated, the weights to rewind to, and errors that name what is missing."""

import pytest
import torch
from safetensors.torch import load_file

from jobs.parallel.engine import rendezvous
from jobs.train.exports import ExportError, exported
from jobs.train.stage_trainer import StageTrainer
from models.pruning.base import Stage
from tests.support.networks import ToySamples, toy_net
from tests.support.stages import assert_same, dense, train, weights


def test_what_is_exported_is_what_was_validated(tmp_path):
    result = train(tmp_path, dense())
    model = toy_net(5)
    model.load_state_dict(weights(tmp_path))
    hits = [model(images).argmax(1) == labels for images, labels in ToySamples(rendezvous(1)).batches()]
    assert result.val_top1 == pytest.approx(100 * torch.cat(hits).float().mean().item())


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_what_is_kept_for_rewinding_are_the_weights_after_that_step_to_the_bit(tmp_path, monkeypatch, zero_stage):
    history, train_step = {0: toy_net(0).state_dict()}, StageTrainer.train_step

    def spy(run, batches):
        train_step(run, batches)
        history[run.state.step] = run.network.fragments.weights()

    monkeypatch.setattr(StageTrainer, "train_step", spy)
    train(tmp_path, dense(keep_steps=(0, 3, 4, 12)), zero_stage=zero_stage, ema=0.9)
    kept = exported(tmp_path).rewinds
    assert list(kept) == [0, 3, 4, 12]
    for step, path in kept.items():
        assert_same(load_file(path), {name: history[step][name] for name in load_file(path)})


def test_rewinding_without_kept_weights_is_an_error_that_names_the_stage(tmp_path):
    train(tmp_path / "first", dense(epochs=1))
    with pytest.raises(ExportError, match="first has no weights of step 3 to rewind to: it kept none"):
        train(tmp_path / "second", dense(start="rewind", rewind_step=3), parent=tmp_path / "first", rewind=tmp_path / "first")


def test_a_parent_that_is_not_finished_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ExportError, match="nowhere has no export"):
        train(tmp_path, Stage(name="finetune", epochs=1, start="parent"), parent=tmp_path / "nowhere")


def test_a_step_that_the_stage_never_makes_stops_those_alone_that_rewind_to_it(tmp_path):
    train(tmp_path / "first", dense(epochs=1, keep_steps=(2, 13)))
    assert list(exported(tmp_path / "first").rewinds) == [2]
    with pytest.raises(ExportError, match="no weights of step 13 to rewind to: it made 4 steps; choose a rewind_step up to that"):
        train(tmp_path / "second", dense(start="rewind", rewind_step=13), parent=tmp_path / "first", rewind=tmp_path / "first")
