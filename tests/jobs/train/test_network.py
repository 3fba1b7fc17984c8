"""The network in training: inherited masks, averaged weights, weights that come back, each against plain torch."""

from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch.nn import functional

from harness.grid.read import read_grid
from harness.plan.stages import make_graph
from jobs.experiment.ids import StageId
from jobs.parallel.averaging import Average
from jobs.parallel.engine import make_optimizer, rendezvous
from jobs.train.evaluation import load_masks
from jobs.train.lr_schedule import schedule
from jobs.train.network import TrainedNetwork
from jobs.train.training_state import TrainingState
from models.layers import weight_decay_groups
from models.pruning.base import Progress, Stage
from models.pruning.gradient import Gradient
from models.pruning.masks import choose
from models.registry import create_model
from tests.support.networks import NO_DECAY, Halve, ToyBatches, global_batch, toy_net, toy_spec
from tests.support.processes import run_ranks
from tests.support.stages import REGROWN, assert_same, dense, train, weights

GROUPS = Halve(move=1).groups


def test_a_parents_masks_go_on_without_a_method(tmp_path):
    train(tmp_path / "pruned", dense(method=Halve()))
    train(tmp_path / "longer", Stage(name="more", epochs=2, schedule="finetune", start="parent"), parent=tmp_path / "pruned")
    masks = load_masks(tmp_path / "longer" / "export")
    assert_same(masks, load_masks(tmp_path / "pruned" / "export"))
    for name, mask in masks.items():
        assert not weights(tmp_path / "longer")[name][~mask].any()
        assert not torch.equal(weights(tmp_path / "longer")[name], weights(tmp_path / "pruned")[name])


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_averaged_weights_follow_the_formula_and_stay_masked(tmp_path, zero_stage, monkeypatch):
    history = []
    update = Average.update

    def spy(self, step):
        update(self, step)
        history.append(self.fragments.weights("fc.weight")["fc.weight"])

    monkeypatch.setattr(Average, "update", spy)
    train(tmp_path, dense(method=Halve(move=5)), ema=0.6, zero_stage=zero_stage)
    mask = load_masks(tmp_path / "export")["fc.weight"]
    start = toy_net(0).fc.weight.detach()
    first = (torch.arange(mask.numel()) % 2 == 0).view(mask.shape)
    average = start * first
    for step, weight in enumerate(history, 1):
        average = torch.lerp(average, weight, 1 - min(0.6, (1 + step) / (10 + step)))
        if step == 5:
            average = average * mask
    torch.testing.assert_close(weights(tmp_path)["fc.weight"], average)
    assert not weights(tmp_path)["fc.weight"][~mask].any()
    assert not torch.equal(weights(tmp_path)["fc.weight"], history[-1])


def feedback(steps: int, ema: float) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Dynamic pruning with feedback by plain torch: the averaged weights, the last masks, and all masks. SGD with momentum, clipped."""
    spec = toy_spec(dense(), optimizer="sgd", lr=0.05, ema=ema)
    model, rates = toy_net(0), schedule(spec.recipe, "train", steps=steps, steps_per_epoch=4)
    optimizer = make_optimizer(model, spec.recipe, frozenset(NO_DECAY))
    parameters = dict(model.named_parameters())
    whole, masks, history = {name: weight.detach().clone() for name, weight in parameters.items()}, {}, []
    average = {name: weight.clone() for name, weight in whole.items()}
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = rates.lr(step - 1)
        images, labels = global_batch(1000 * ((step - 1) // 4) + (step - 1) % 4, 16)
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels, label_smoothing=spec.recipe.label_smoothing).backward()
        for name, weight in parameters.items():
            weight.data.copy_(whole[name])
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.recipe.clip_grad)
        optimizer.step()
        whole = {name: weight.detach().clone() for name, weight in parameters.items()}
        for name in whole:
            average[name] = torch.lerp(average[name], whole[name] * masks.get(name, 1.0), 1 - min(ema, (1 + step) / (10 + step)))
        target = REGROWN.due(Progress(step=step, steps=steps, steps_per_epoch=4))
        if target is not None:
            masks = choose({name: whole[name].abs() for name in ("conv.weight", "fc.weight", "head.weight")}, target, "global")
        for name, mask in masks.items():
            parameters[name].data.mul_(mask)
            average[name] = average[name] * mask
        history.append(masks)
    return average, masks, history


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_regrowing_trains_the_dense_weights_by_the_gradient_at_the_masked_ones(tmp_path, zero_stage):
    expected, masks, history = feedback(12, ema=0.9)
    train(tmp_path, dense(method=REGROWN), ema=0.9, optimizer="sgd", lr=0.05, zero_stage=zero_stage)
    assert_same(load_masks(tmp_path / "export"), masks)
    for name, weight in weights(tmp_path).items():
        torch.testing.assert_close(weight, expected[name])
        assert name not in masks or not weight[~masks[name]].any()
    pairs = [(earlier[name], later[name]) for earlier, later in zip(history, history[1:], strict=False) for name in earlier]
    assert any((later & ~earlier).any() for earlier, later in pairs), "no weight came back: the test shows nothing"


RUN_OF_0_1 = Path(__file__).parents[2] / "fixtures" / "run_of_0_1" / "small"
KILLED = StageId("ee516d283a22")  # within its second epoch


def test_a_checkpoint_of_version_0_1_is_restored_bit_for_bit():
    saved = torch.load(RUN_OF_0_1 / "stages" / KILLED / "checkpoints" / "step-000000025" / "rank-0.pt", weights_only=True)
    spec, ranks = make_graph(read_grid(RUN_OF_0_1 / "grid.yaml").cells).stages[KILLED], rendezvous(threads=1)
    model = create_model(spec.model.name, 10, 32, **spec.model.options)
    no_decay = weight_decay_groups(model, spec.recipe.decay_ssm)[1]
    network = TrainedNetwork(spec, model, ToyBatches(64, 64, ranks), no_decay=no_decay, ranks=ranks)
    network.restore(saved)
    tally = {name: value for name, value in asdict(TrainingState(**saved["tally"])).items() if name in saved["tally"] or value is not None}
    restored = {"tally": tally, **network.state()}
    network.engine.close()
    assert saved["masks"] and saved["training"]["masters"] and saved["training"]["moments"]
    assert differences(restored, saved) == []


def differences(first: object, second: object, path: str = "") -> list[str]:
    """The paths at which two nested values differ; tensors must be equal in every bit."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if first.dtype == second.dtype and torch.equal(first, second) else [path]
    if isinstance(first, list) and isinstance(second, list):
        first, second = dict(enumerate(first)), dict(enumerate(second))
    if isinstance(first, dict) and isinstance(second, dict):
        lacking = [f"{path}/{key}" for key in first.keys() ^ second.keys()]
        return lacking + [deeper for key in first.keys() & second.keys() for deeper in differences(first[key], second[key], f"{path}/{key}")]
    return [] if first == second else [path]


class Seen(Gradient):
    """Gradient pruning that keeps the gradients that it was shown."""

    shown: ClassVar[list[dict[str, torch.Tensor]]] = []

    def after_backward(self, network, progress):
        self.shown.append({name: network.read_gradient(name).clone() for name in network.names})
        super().after_backward(network, progress)


def one_shot(folder, epochs=0, *, ranks=None, batches=2, kind=Gradient, **options):
    """Gradient pruning of the weights that `folder` holds, in a stage of so many epochs; the masks and weights."""
    stage = Stage(name="finetune", epochs=epochs, schedule="finetune", method=kind(sparsity=0.5, batches=batches, groups=GROUPS), start="parent")
    out = folder / f"pruned-{epochs}-{batches}-{len(list(folder.iterdir()))}"
    train(out, stage, ranks, parent=folder / "parent", **options)
    return load_masks(out / "export"), weights(out)


def test_without_a_step_a_gradient_is_that_of_the_weights_in_evaluation_mode(tmp_path):
    options = {"net": {"norm": True, "dropout": 0.4}, "label_smoothing": 0.2}
    train(tmp_path / "parent", dense(1), **options)
    Seen.shown.clear()
    masks, pruned = one_shot(tmp_path, kind=Seen, micro_batch_size=4, **options)
    net, before = toy_net(0, norm=True, dropout=0.4), weights(tmp_path / "parent")
    net.load_state_dict(before)
    net.eval().double()
    sums = {name: torch.zeros_like(weight) for name, weight in before.items()}
    for number, shown in enumerate(Seen.shown):
        images, labels = global_batch(number, 16)
        net.zero_grad()
        functional.cross_entropy(net(images.double()), labels, label_smoothing=0.2).backward()
        for name, parameter in net.named_parameters():
            if name in masks:
                torch.testing.assert_close(shown[name].double(), parameter.grad, rtol=1e-4, atol=1e-7)
                sums[name] += (parameter.grad * parameter).square().detach()
    assert len(Seen.shown) == 2
    scores = torch.cat([sums[name].flatten() for name in masks])
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    assert scores[kept].min() >= scores[~kept].max() * (1 - 1e-4) and kept.sum() == len(kept) - round(0.5 * len(kept))
    for name, weight in before.items():  # running statistics included
        torch.testing.assert_close(pruned[name], weight * masks[name] if name in masks else weight, rtol=0, atol=0)


def test_a_mask_of_one_batch_is_the_same_without_a_step_and_before_the_first_one(tmp_path):
    train(tmp_path / "parent", dense(1))
    assert_same(one_shot(tmp_path, 0, batches=1)[0], one_shot(tmp_path, 1, batches=1)[0])


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_shards_show_the_same_gradients_without_a_step(tmp_path, zero_stage):
    train(tmp_path / "parent", dense(1))
    assert_same(one_shot(tmp_path)[0], one_shot(tmp_path, zero_stage=zero_stage, dtype="bf16")[0])


@pytest.mark.parametrize("recipe", [{"dtype": "bf16"}, {"dtype": "bf16", "zero_stage": 3, "ema": 0.9, "ema_buffers": True}], ids=["whole", "shards"])
def test_without_a_step_nothing_is_rounded(tmp_path, recipe):
    train(tmp_path / "parent", dense(1), net={"norm": True})
    train(
        tmp_path / "same",
        Stage(name="finetune", epochs=0, schedule="finetune", start="parent"),
        parent=tmp_path / "parent",
        net={"norm": True},
        **recipe,
    )
    given = weights(tmp_path / "parent")
    assert not torch.equal(given["norm.running_mean"].bfloat16().float(), given["norm.running_mean"])
    assert_same(weights(tmp_path / "same"), given)


def masks_of_ranks(folder):
    one_shot(folder, ranks=rendezvous(threads=1))


@pytest.mark.slow
def test_two_ranks_calibrate_as_one(tmp_path):
    train(tmp_path / "parent", dense(1))
    alone = one_shot(tmp_path)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "parent").symlink_to(tmp_path / "parent")
    run_ranks("tests.jobs.train.test_network:masks_of_ranks", 2, tmp_path / "two")
    (out,) = (tmp_path / "two").glob("pruned-*")
    assert_same(load_masks(out / "export"), alone[0])
