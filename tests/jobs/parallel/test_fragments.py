"""Whole weights and gradients from each rank's part of them, at every ZeRO stage."""

import pytest
import torch

from jobs.experiment.specs import RecipeSpec
from jobs.parallel.engine import Engine, Ranks, rendezvous
from jobs.parallel.fragments import Fragments
from tests.support.networks import NO_DECAY, global_batch, toy_net
from tests.support.processes import run_ranks


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_the_parts_of_one_rank_are_the_whole_weights(zero_stage: int) -> None:
    model = toy_net()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    engine = Engine(model, RecipeSpec(batch_size=4, zero_stage=zero_stage), no_decay=NO_DECAY, ranks=rendezvous(threads=1))
    fragments = Fragments(engine)
    assert list(fragments.by_name) == list(before)
    for name, fragment in fragments.by_name.items():
        assert (fragment.start, fragment.length, fragment.shape) == (0, before[name].numel(), before[name].shape)
        assert torch.equal(fragment.master().view(fragment.shape), before[name])
        assert torch.equal(fragment.cut(before[name]), before[name].view(-1))
    assert len(fragments.owners()) == len({id(owner) for owner in fragments.owners()})
    engine.close()


def gather_strange_values(ranks: Ranks) -> None:
    """-0.0 and NaN come back with their bits, from shares that do not come out even."""
    for stage in (1, 3):
        engine = Engine(toy_net(), RecipeSpec(batch_size=2 * ranks.world, zero_stage=stage), no_decay=NO_DECAY, ranks=ranks)
        fragments = Fragments(engine)
        strange = {name: torch.full(fragment.shape, -0.0) for name, fragment in fragments.by_name.items()}
        strange["head.bias"][3] = float("nan")
        fragments.write(strange)
        for name, weight in fragments.weights().items():
            assert torch.equal(weight.view(torch.int32), strange[name].view(torch.int32)), (stage, name)
        engine.close()


def test_one_rank_gathers_bit_for_bit() -> None:
    gather_strange_values(rendezvous(threads=1))


def gather_on_two(folder):
    gather_strange_values(rendezvous(threads=1))


@pytest.mark.slow
def test_two_ranks_gather_bit_for_bit(tmp_path):
    run_ranks("tests.jobs.parallel.test_fragments:gather_on_two", 2, tmp_path)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_values_are_clipped_as_torch_clips_them(zero_stage, dtype):
    recipe = RecipeSpec(batch_size=16, zero_stage=zero_stage, dtype=dtype, clip_grad=None)
    engine = Engine(toy_net(), recipe, no_decay=NO_DECAY, ranks=rendezvous(threads=1))
    fragments = Fragments(engine)
    engine.forward_backward(*global_batch(0, 16), last=True)
    leaves = {name: torch.nn.Parameter(torch.zeros(fragment.shape)) for name, fragment in fragments.by_name.items()}
    for name, leaf in leaves.items():
        leaf.grad = fragments.gradient(name)
    torch.nn.utils.clip_grad_value_(leaves.values(), 0.015625)
    fragments.clip_values(0.015625)
    for name, leaf in leaves.items():
        assert torch.equal(fragments.gradient(name), leaf.grad)
    assert float(fragments.gradient("fc.weight").abs().max()) == 0.015625
    engine.close()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_an_l1_penalty_adds_the_sign_of_each_weight_to_the_gradient(zero_stage, dtype):
    ranks = rendezvous(threads=1)
    recipe = RecipeSpec(batch_size=16, micro_batch_size=8, zero_stage=zero_stage, dtype=dtype)
    engine = Engine(toy_net(), recipe, no_decay=NO_DECAY, ranks=ranks)
    fragments = Fragments(engine)
    images, labels = global_batch(0, 16)
    for first in (0, 8):
        engine.forward_backward(images[first : first + 8], labels[first : first + 8], last=first == 8)
    before, weight = fragments.gradient("fc.weight"), fragments.weights("fc.weight")["fc.weight"]
    fragments.add_l1("fc.weight", 0.5)
    assert torch.allclose(fragments.gradient("fc.weight"), before + 0.5 * weight.sign(), atol=4e-3 if dtype == "bf16" else 1e-6)
    engine.close()
