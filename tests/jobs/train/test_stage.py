"""A stage is trained once, from weights that its seed decides."""

import pytest
import torch
from safetensors.torch import load_file

from jobs.parallel.engine import rendezvous
from jobs.train.exports import exported
from jobs.train.stage_trainer import StageTrainer
from tests.support.networks import toy_spec
from tests.support.stages import assert_same, dense, train


def test_a_stage_that_is_exported_is_not_run_again(tmp_path, monkeypatch):
    from jobs.experiment.specs import ClusterSpec
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
