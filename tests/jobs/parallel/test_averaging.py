"""Averaged weights against their formula. tests/jobs/train/test_network.py has them in training."""

import pytest
import torch

from jobs.experiment.specs import RecipeSpec
from jobs.parallel.averaging import Average, decay_at
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


def timms(kind: str, model: torch.nn.Module, **options: object) -> torch.nn.Module:
    """timm's own average of a model."""
    from models.torchvision_shim import load_timm

    load_timm()
    from timm.utils import model_ema

    return getattr(model_ema, kind)(model, **options)


@pytest.mark.parametrize(("warmup", "kind", "options"), [("timm", "ModelEmaV3", {"use_warmup": True, "foreach": False}), ("none", "ModelEmaV2", {})])
@pytest.mark.parametrize("zero_stage", [0, 2])
def test_weights_and_statistics_are_timms_average(warmup: str, kind: str, options: dict[str, object], zero_stage: int) -> None:
    reference = toy_net(norm=True)
    expected = timms(kind, reference, decay=0.8, **options)
    recipe = RecipeSpec(batch_size=4, zero_stage=zero_stage)
    engine = Engine(toy_net(norm=True), recipe, no_decay=NO_DECAY, ranks=rendezvous(threads=1))
    fragments = Fragments(engine)
    average = Average(0.8, fragments, Masking(engine, fragments), warmup=warmup, buffers=True)
    for step in range(1, 40):
        drawn = torch.Generator().manual_seed(step)
        values = {name: torch.randn(value.shape, generator=drawn) for name, value in reference.state_dict().items() if value.is_floating_point()}
        reference.load_state_dict(values, strict=False)
        fragments.write(dict(reference.named_parameters()))
        for name, buffer in reference.named_buffers():
            engine.module.get_buffer(name).copy_(buffer)
        average.update(step)
        expected.update(reference, **({"step": step} if kind == "ModelEmaV3" else {}))
    result = toy_net(seed=1, norm=True)
    average.copy_buffers_to(result)
    result.load_state_dict(average.weights(), strict=False)
    for name, value in expected.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(result.state_dict()[name], value, rtol=1e-6, atol=1e-7)
    engine.close()


def test_the_decay_of_a_long_training_is_timms() -> None:
    rule = timms("ModelEmaV3", torch.nn.Linear(1, 1), decay=0.99, use_warmup=True)
    assert [decay_at(step, 0.99, "timm") for step in range(1, 3000)] == pytest.approx([rule.get_decay(step) for step in range(1, 3000)], abs=1e-15)
