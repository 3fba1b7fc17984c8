"""Averaged weights against their formula. tests/jobs/train/test_network.py has them in training."""

import pytest
import torch

from jobs.experiment.specs import RecipeSpec
from jobs.parallel.averaging import Average
from jobs.parallel.engine import Engine, rendezvous
from jobs.parallel.fragments import Fragments
from jobs.parallel.masking import Masking
from tests.support.networks import NO_DECAY, toy_net


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_the_average_moves_by_a_decay_that_grows_to_the_one_asked_for_and_stays_masked(zero_stage: int) -> None:
    engine = Engine(toy_net(), RecipeSpec(batch_size=4, zero_stage=zero_stage), no_decay=NO_DECAY, ranks=rendezvous(threads=1))
    fragments = Fragments(engine)
    masking = Masking(engine, fragments)
    average = Average(0.5, fragments, masking)
    expected = fragments.weights("fc.weight")["fc.weight"]
    assert torch.equal(average.weights()["fc.weight"], expected)
    mask = torch.arange(expected.numel()).view(expected.shape) % 2 == 0
    masking.apply({"fc.weight": mask})
    for step, decay in ((1, 2 / 11), (2, 3 / 12), (100, 0.5)):
        weight = torch.full_like(expected, float(step))
        fragments.write({"fc.weight": weight})
        average.update(step)
        expected = (decay * expected + (1 - decay) * weight) * mask
        torch.testing.assert_close(average.weights()["fc.weight"], expected)
    engine.close()
