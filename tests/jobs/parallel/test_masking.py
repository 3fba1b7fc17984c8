"""Masks at every ZeRO stage and dtype, against a plain torch loop that knows nothing of DeepSpeed."""

import copy
import itertools

import pytest
import torch
from torch.nn import functional

from jobs.experiment.specs import RecipeSpec
from jobs.parallel.engine import Engine, Ranks, make_optimizer, rendezvous
from jobs.parallel.fragments import Fragments
from jobs.parallel.masking import Masking
from tests.support.networks import NO_DECAY, ToyBatches, ToyNet, global_batch, toy_net
from tests.support.processes import run_ranks

STEPS, MOVE, BATCH, LR = 5, 3, 16, 2e-2
MASKED = ("conv.weight", "fc.weight", "head.weight")
COMBINATIONS = [
    (optimizer, stage, dtype)
    for optimizer, stage, dtype in itertools.product(("adamw", "sgd", "lamb"), (0, 1, 2, 3), ("fp32", "bf16"))
    if optimizer != "lamb" or stage == 0
]


def masks_of(model: ToyNet, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    return {name: torch.rand(shapes[name], generator=generator) < 0.5 for name in MASKED}


def recipe_of(optimizer: str, stage: int, dtype: str, world: int) -> RecipeSpec:
    micro = BATCH // world // 2  # accumulation of 2
    return RecipeSpec(batch_size=BATCH, micro_batch_size=micro, optimizer=optimizer, zero_stage=stage, dtype=dtype, clip_grad=0.5, weight_decay=0.2)


def reference(recipe: RecipeSpec, keeps_dense: bool) -> tuple[ToyNet, list[float], list[dict[str, torch.Tensor]]]:
    """Weights, losses and dense gradients of the same training by torch alone, in fp32, on the whole batch.

    keeps_dense: algorithm 1 of arXiv 2006.07253, the gradient at the masked weights updating the dense ones.
    """
    model = toy_net()
    optimizer = make_optimizer(model, recipe, frozenset(NO_DECAY))
    masks, losses, gradients = masks_of(model, 1), [], []
    dense = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    parameters = dict(model.named_parameters())
    for step in range(STEPS):
        if step in (0, MOVE):
            masks = masks_of(model, 1 + step)
            for name, mask in masks.items():
                parameters[name].data.copy_((dense if keeps_dense else parameters)[name].data * mask)
                if keeps_dense:
                    continue
                for value in optimizer.state.get(parameters[name], {}).values():
                    if torch.is_tensor(value) and value.shape == mask.shape:
                        value *= mask
        for group in optimizer.param_groups:
            group["lr"] = LR
        images, labels = global_batch(step, BATCH)
        loss = functional.cross_entropy(model(images), labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in parameters.items()})
        for name, mask in masks.items():
            if keeps_dense:
                parameters[name].data.copy_(dense[name])
            else:
                parameters[name].grad *= mask
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
        optimizer.step()
        dense = {name: weight.detach().clone() for name, weight in parameters.items()}
        for name, mask in masks.items():
            parameters[name].data *= mask
        losses.append(loss.item())
    return model, losses, gradients


def check_zeros(masking: Masking) -> None:
    """Exact zeros in the gathered master, in the rank's own part of it and in that of the moments."""
    fragments = masking.fragments
    whole = fragments.weights()
    for name, mask in masking.masks.items():
        assert not whole[name][~mask].any(), name
        assert not fragments.by_name[name].master()[masking.dropped[name]].any(), name
        moments = fragments.by_name[name].states(fragments.engine.optimizer).values()
        if masking.keeps_dense:
            hidden = masking.weight(name)
            assert torch.equal(hidden * mask, whole[name]) and hidden[~mask].any(), name
        assert all(masking.keeps_dense or not moment[masking.dropped[name]].any() for moment in moments), name


def train_masked(recipe: RecipeSpec, ranks: Ranks, keeps_dense: bool) -> None:
    """Trains under a mask that moves, checks zeros after every step, and losses, gradients and final weights against the reference."""
    model, expected = toy_net(), reference(recipe, keeps_dense)
    start = copy.deepcopy(model)
    engine = Engine(model, recipe, no_decay=NO_DECAY, ranks=ranks)
    fragments = Fragments(engine)
    masking = Masking(engine, fragments, keeps_dense=keeps_dense)
    fragments.write(dict(start.named_parameters()))
    for name, weight in start.named_parameters():
        assert torch.equal(fragments.weights(name)[name], weight), f"{name} is not gathered bit for bit"
    seen: dict[str, torch.Tensor] = {}
    for name, layer in {"conv.weight": engine.module.conv, "fc.weight": engine.module.fc, "head.weight": engine.module.head}.items():
        layer.register_forward_pre_hook(lambda layer, _, name=name: seen.__setitem__(name, layer.weight.detach().clone()))
    loader = ToyBatches(BATCH, engine.batching.micro, ranks, steps_per_epoch=STEPS)
    batches = loader.epoch(0)
    for step in range(STEPS):
        if step in (0, MOVE):
            masking.apply(masks_of(start, 1 + step))
            check_zeros(masking)
        before = fragments.weights(*MASKED)
        loss = torch.stack([engine.forward_backward(*next(batches), last=last) for last in (False, True)]).mean()
        for name in MASKED:
            assert torch.equal(seen[name].float(), before[name].to(seen[name].dtype).float()), f"the forward pass did not read the master of {name}"
        for name, gradient in expected[2][step].items():
            distance = (fragments.gradient(name) - gradient).norm() / gradient.norm()
            assert distance < (1e-4 if recipe.dtype == "fp32" else 0.5), (name, step, distance)
        masking.zero_gradients()
        for name, mask in masking.masks.items():
            assert bool(fragments.gradient(name)[~mask].any()) == keeps_dense
        assert engine.step(LR)
        check_zeros(masking)
        mean = float(ranks.sum(loss.clone())) / ranks.world
        assert abs(mean - expected[1][step]) < (1e-4 if recipe.dtype == "fp32" else 3e-2), (step, mean, expected[1][step])
    for name, weight in expected[0].named_parameters():
        distance = (fragments.weights(name)[name] - weight.detach()).norm() / weight.detach().norm()
        assert distance < (1e-4 if recipe.dtype == "fp32" else 5e-2), (name, distance)
    engine.close()


@pytest.mark.parametrize("keeps_dense", [False, True], ids=["dropped", "kept"])
@pytest.mark.parametrize(("optimizer", "stage", "dtype"), COMBINATIONS)
def test_one_rank_trains_under_masks_as_plain_torch_does(optimizer, stage, dtype, keeps_dense):
    train_masked(recipe_of(optimizer, stage, dtype, 1), rendezvous(threads=1), keeps_dense)


def train_all(folder):
    ranks = rendezvous(threads=1)
    for (optimizer, stage, dtype), keeps_dense in itertools.product(COMBINATIONS, (False, True)):
        try:
            train_masked(recipe_of(optimizer, stage, dtype, ranks.world), ranks, keeps_dense)
        except Exception as error:
            error.add_note(f"{optimizer}, ZeRO stage {stage}, {dtype}, rank {ranks.rank}, keeps_dense {keeps_dense}")
            raise


@pytest.mark.slow
def test_two_ranks_train_under_masks_as_plain_torch_does(tmp_path):
    run_ranks("tests.jobs.parallel.test_masking:train_all", 2, tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "message"), [("fc.wieght", (9, 80), "no such parameter"), ("fc.weight", (80, 9), r"the parameter has \(9, 80\)")]
)
def test_a_mask_that_does_not_fit_is_refused(name, shape, message):
    engine = Engine(toy_net(), RecipeSpec(batch_size=4), no_decay=NO_DECAY, ranks=rendezvous(threads=1))
    with pytest.raises(ValueError, match=message):
        Masking(engine, Fragments(engine)).apply({name: torch.ones(shape, dtype=torch.bool)})
    engine.close()
