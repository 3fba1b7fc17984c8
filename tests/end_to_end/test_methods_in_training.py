"""Every row of METHODS on the real engine: a toy network trained over the method's whole path of stages."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs.parallel.engine import Ranks, rendezvous
from jobs.train.evaluation import load_masks
from jobs.train.exports import exported
from jobs.train.stage_trainer import StageTrainer
from models.pruning.base import Budget
from models.pruning.gradient import Gradient
from models.pruning.masks import sparsity_of
from models.pruning.registry import METHODS, create_method
from tests.models.pruning.test_second_order import damped, surgeon
from tests.support.network_views import lowest_dropped, same
from tests.support.networks import NO_DECAY, ToyBatches, ToySamples, global_batch, toy_net, toy_spec
from tests.support.processes import run_ranks

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {}),
    "dense as long as IMP": ("dense", {"rounds": 2}),
    "random": ("random", {"sparsity": 0.6, "ratios": "magnitude"}),
    "random at init": ("random", {"sparsity": 0.6, "at": "init"}),
    "magnitude": ("magnitude", {"sparsity": 0.6}),
    "magnitude by layer": ("magnitude", {"sparsity": 0.6, "scope": "layer"}),
    "dynamic": ("dynamic", {"sparsity": 0.6, "interval": 2}),
    "dynamic, regrown": ("dynamic", {"sparsity": 0.6, "interval": 2, "regrow": True}),
    "IMP": ("iterative_magnitude", {"rate": 0.4, "rounds": 2, "rewind_step": 3}),
    "IMP, rate rewound": ("iterative_magnitude", {"rate": 0.4, "rounds": 2, "rewind": "learning_rate"}),
    "IMP, nothing rewound": ("iterative_magnitude", {"rate": 0.4, "rounds": 2, "rewind": "none"}),
    "gradient": ("gradient", {"sparsity": 0.6, "criterion": "gradient", "batches": 2}),
    "SNIP": ("gradient", {"sparsity": 0.6, "criterion": "snip"}),
    "Taylor": ("gradient", {"sparsity": 0.6}),
    "movement": ("gradient", {"sparsity": 0.6, "criterion": "movement", "schedule": "cubic", "interval": 1}),
    "RigL": ("rigl", {"sparsity": 0.6, "interval": 2}),
    "Wanda": ("wanda", {"sparsity": 0.6, "batches": 3}),
    "2:4": ("semi_structured", {}),
    "SparseGPT": ("sparsegpt", {"sparsity": 0.6, "batches": 3, "block": 16}),
    "SparseGPT 2:4": ("sparsegpt", {"pattern": "2:4"}),
}
SPARSITY = {"dense": 0.0, "dense as long as IMP": 0.0, "IMP": 0.64, "IMP, rate rewound": 0.64, "IMP, nothing rewound": 0.64}
SPARSITY["Wanda"] = (5 * 16 + 9 * 48 + 7 * 5) / 918  # by rows
PATTERNED = 9 * 80 / 2 / (135 + 720 + 63)  # 2:4 takes fc (9, 80); conv has four dimensions, and the head nine inputs


def train_path(folder: Path, case: str, ranks: Ranks, *, epochs: int = 2, finetune_epochs: int = 1, **recipe: Any) -> Path:
    """The folder of the last stage of a case, all stages trained; `epochs`: of the stages before the pruning."""
    name, knobs = CASES[case]
    stages: list[Path] = []
    for place, stage in enumerate(create_method(name, **knobs).stages(Budget(epochs=epochs, finetune_epochs=finetune_epochs))):
        spec = toy_spec(stage, **recipe)
        batches = ToyBatches(spec.recipe.batch_size, spec.recipe.micro_batch_size or spec.recipe.batch_size // ranks.world, ranks)
        at = folder / f"{place}_{stage.name}"
        run = StageTrainer(spec, toy_net(), batches, ToySamples(ranks), at, no_decay=NO_DECAY, ranks=ranks)
        try:
            run.run(stages[-1] if stage.start != "scratch" else None, stages[0] if stage.start == "rewind" else None)
        finally:
            run.network.engine.close()
        stages.append(at)
    return stages[-1]


def masks_and_weights(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return load_masks(folder / "export"), load_file(exported(folder).weights)


def test_every_method_has_a_case():
    smaller = {name for name, method in METHODS.items() if method.removes_units or method.removes_blocks} | {"token_merging"}
    assert {name for name, _ in CASES.values()} == METHODS.keys() - smaller  # which are in tests/jobs/train/test_removal.py


@pytest.mark.parametrize("case", CASES)
def test_a_cell_ends_at_its_sparsity_with_exact_zeros_and_living_weights(tmp_path, case):
    masks, weights = masks_and_weights(train_path(tmp_path, case, rendezvous(threads=1)))
    expected = PATTERNED if "2:4" in case else SPARSITY.get(case, 0.6)
    assert sparsity_of(masks) == pytest.approx(expected, abs=1e-3)
    for name, mask in masks.items():
        assert not weights[name][~mask].any()
        assert weights[name][mask].count_nonzero() >= 0.9 * mask.sum()  # RigL's youngest weights may still be zero


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_wanda_chooses_by_the_norms_of_the_first_training_images_through_the_trained_network(tmp_path, zero_stage):
    masks, _ = masks_and_weights(train_path(tmp_path, "Wanda", rendezvous(threads=1), zero_stage=zero_stage, micro_batch_size=4))
    network = toy_net()
    network.load_state_dict(load_file(exported(tmp_path / "0_train").weights))
    images = torch.cat([global_batch(step, 16)[0] for step in range(3)])
    hidden = torch.relu(network.conv(images)).flatten(1)
    patches = torch.nn.functional.unfold(images, 3, padding=1).mT.flatten(0, 1)
    met = {"fc.weight": hidden, "head.weight": torch.relu(network.fc(hidden)), "conv.weight": patches}
    for name, inputs in met.items():
        weight = network.get_parameter(name).flatten(1)
        scores = weight.abs() * inputs.norm(dim=0)
        zeros = round(0.6 * weight.shape[1])
        kept = scores > scores.kthvalue(zeros, dim=1, keepdim=True).values
        assert torch.equal(masks[name].flatten(1), kept), name


@pytest.mark.parametrize(("zero_stage", "dtype"), [(0, "fp32"), (0, "bf16"), (2, "bf16"), (3, "fp32")])
def test_sparsegpt_prunes_and_updates_each_layer_by_its_inputs_from_those_already_pruned(tmp_path, monkeypatch, zero_stage, dtype):
    """Against explicit inverses on the exported dense weights; seen at the start of the fine-tuning."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def look(trainer: StageTrainer) -> None:
        network = trainer.network
        seen.update({name: (network.masking.weight(name), mask) for name, mask in network.masking.masks.items()})
        assert network.average is not None
        assert all(torch.equal(network.average.weights()[name], weight) for name, (weight, _) in seen.items())
        held = network.engine.module.state_dict()
        assert zero_stage == 3 or all(torch.equal(held[name], weight.to(held[name].dtype)) for name, (weight, _) in seen.items())

    monkeypatch.setattr(StageTrainer, "measure_pruned", look)
    train_path(tmp_path, "SparseGPT", rendezvous(threads=1), zero_stage=zero_stage, dtype=dtype, micro_batch_size=4, ema=0.9)
    network = toy_net().double()
    network.load_state_dict(load_file(exported(tmp_path / "0_train").weights))
    images = torch.cat([global_batch(step, 16)[0] for step in range(3)]).double()
    inputs = {"conv.weight": torch.nn.functional.unfold(images, 3, padding=1).mT.flatten(0, 1)}
    for name in ("conv.weight", "fc.weight", "head.weight"):
        weight = network.get_parameter(name)
        rows = weight.detach().flatten(1)
        new, mask = surgeon(rows, damped(inputs[name].T.detach()), torch.ones_like(rows, dtype=torch.bool), 0.6, 16)
        assert torch.equal(seen[name][1].flatten(1), mask), name
        torch.testing.assert_close(seen[name][0].flatten(1).double(), new, rtol=1e-4, atol=1e-5)
        weight.data.copy_(new.view(weight.shape))
        hidden = torch.relu(network.conv(images)).flatten(1)
        inputs |= {"fc.weight": hidden, "head.weight": torch.relu(network.fc(hidden))}


@pytest.mark.parametrize(
    ("case", "zero_stage"), [("gradient", 0), ("SNIP", 0), ("SNIP", 3), ("Taylor", 0), ("movement at once", 0), ("movement at once", 3)]
)
def test_gradient_scores_are_those_of_autograd_on_the_whole_batch(tmp_path, monkeypatch, case, zero_stage):
    """One batch, so that no weight has moved: in micro-batches through the engine, and at once through torch alone."""
    seen: dict[str, torch.Tensor] = {}
    scores = Gradient.scores
    monkeypatch.setattr(Gradient, "scores", lambda self, network: seen.update(scores(self, network)) or scores(self, network))
    monkeypatch.setitem(CASES, "gradient", ("gradient", {"sparsity": 0.6, "criterion": "gradient"}))
    monkeypatch.setitem(CASES, "movement at once", ("gradient", {"sparsity": 0.6, "criterion": "movement"}))
    masks = load_masks(train_path(tmp_path, case, rendezvous(threads=1), epochs=1, zero_stage=zero_stage, micro_batch_size=4) / "export")
    network = toy_net()
    if case != "SNIP":
        network.load_state_dict(load_file(exported(tmp_path / "0_train").weights))
    images, labels = global_batch(0, 16)
    torch.nn.functional.cross_entropy(network(images), labels, label_smoothing=0.1).backward()
    pairs = {name: (network.get_parameter(name).detach(), network.get_parameter(name).grad) for name in masks}
    formula = {"gradient": lambda w, g: g.abs(), "SNIP": lambda w, g: (g * w).abs(), "Taylor": lambda w, g: (g * w) ** 2}
    expected = {name: formula.get(case, lambda w, g: -g * w)(*pair) for name, pair in pairs.items()}
    for name, score in expected.items():
        torch.testing.assert_close(seen[name], score, rtol=1e-4, atol=1e-4 * float(score.abs().max()))
    assert same(masks, lowest_dropped({name: seen[name] for name in masks}, round(0.6 * sum(map(torch.numel, seen.values())))))


def test_each_round_of_imp_drops_the_smallest_weights_that_the_round_before_trained(tmp_path):
    last = train_path(tmp_path, "IMP", rendezvous(threads=1))
    masks, before = load_masks(last / "export"), load_masks(tmp_path / "2_round_1" / "export")
    trained = load_file(exported(tmp_path / "2_round_1").weights)
    assert all(not (mask & ~before[name]).any() for name, mask in masks.items())
    dropped = torch.cat([trained[name][before[name] & ~mask].abs() for name, mask in masks.items()])
    kept = torch.cat([trained[name][mask].abs() for name, mask in masks.items()])
    assert dropped.max() <= kept.min()


SHARED = {  # their ZeRO stages; criteria of one formula's gradients share them
    "SNIP": (1,),
    "Taylor": (3,),
    "movement": (1,),
    "RigL": (3,),
    "dynamic": (3,),
    "dynamic, regrown": (1,),
    "Wanda": (1, 3),
    "SparseGPT": (3,),
}
UNTRAINED = "untrained"  # pruned by gradients of stages that make no step


def draw_masks(folder: Path) -> None:
    """Run by every rank: the cells whose masks depend on gradients or on weights in training, with partitioned weights."""
    for case, zero_stages in SHARED.items():
        for zero_stage in zero_stages:
            train_path(folder / f"{case} {zero_stage}", case, rendezvous(threads=1), epochs=1, zero_stage=zero_stage)
    train_path(folder / UNTRAINED, "Taylor", rendezvous(threads=1), epochs=0, finetune_epochs=0, zero_stage=3)


@pytest.mark.slow
def test_one_rank_and_two_draw_the_same_masks(tmp_path):
    draw_masks(tmp_path / "one")
    (tmp_path / "two").mkdir()
    run_ranks("tests.end_to_end.test_methods_in_training:draw_masks", 2, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        first, second = (load_masks(sorted((tmp_path / world / path.name).iterdir())[-1] / "export") for world in ("one", "two"))
        assert first and first.keys() == second.keys()
        differing = sum(int((first[name] != second[name]).sum()) for name in first)
        # two ranks round their sums differently, and steps add up
        assert differing <= (0 if path.name.startswith(("SNIP", "Wanda", "SparseGPT", UNTRAINED)) else 4), path.name
