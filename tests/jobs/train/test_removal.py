"""Networks that become smaller while they are trained: at every ZeRO stage, over ranks, after a kill, and from disk."""

import json
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec, StageSpec
from jobs.measure.multiply_adds import count_multiply_adds
from jobs.parallel.engine import Ranks, rendezvous
from jobs.train.evaluation import WeightsError, evaluate, load_masks, load_model
from jobs.train.exports import StageResult, exported
from jobs.train.removal import load_structure, parameters
from jobs.train.stage_trainer import StageTrainer
from models.blocks import take_out
from models.layers import weight_decay_groups
from models.merge_sites import merge_tokens, merging_of
from models.pruning.base import Budget, NetworkView, PruningMethod, Stage
from models.pruning.chain import Chain
from models.pruning.masks import living
from models.pruning.registry import create_method
from models.pruning.structure import Structure, find_groups, remove
from models.registry import create_model
from tests.support.processes import run_ranks
from tests.support.removal import silence

SMALL_MAMBAVISION = {"dim": 8, "in_dim": 6, "depths": [1, 1, 2, 2]}
MODELS = {
    "vim": ModelSpec(name="vim_micro", options={"dim": 16, "depth": 2, "d_state": 4}, label="vim"),
    "mambavision": ModelSpec(name="mambavision_micro", options=SMALL_MAMBAVISION | {"attention_pool": True}, label="mambavision"),
    "vmamba": ModelSpec(name="vmamba_micro", options={"dim": 8, "depths": [1, 1, 1, 1]}, label="vmamba"),
    "vssd": ModelSpec(name="vssd_micro_32", options={"dim": 8, "depths": [1, 1, 1, 1], "heads": [2, 4, 4, 4], "d_state": 4}, label="vssd"),
    "paths": ModelSpec(name="vim_micro", options={"dim": 8, "depth": 1, "d_state": 4, "scan": ["h", "h_flip", "w2", "v_flip"]}, label="paths"),
}
BATCH, STEPS = 8, 3
METHODS: dict[str, Any] = {
    "norm": create_method("structured", ratio=0.5),
    "taylor": create_method("structured", ratio=0.5, criterion="taylor", batches=2),
    "states": create_method("structured", ratio=0.5, units=("inner", "state"), criterion="random"),
    "sparsessm": create_method("structured", ratio=0.5, units=("state",), criterion="sparsessm", batches=2),
    "early_bird": create_method("early_bird", ratio=0.5, fifo=2, epsilon=0.5, units=("inner", "heads", "mlp", "conv", "state")),
    "merging": create_method("token_merging", r=0.4, layers=(1,), score="timescale"),
}
MASKED = create_method("magnitude", sparsity=0.5)
METHODS["masks, then units"] = Chain(methods=(MASKED, METHODS["taylor"]), split=(0, 1))
METHODS["units, masks, units, masks"] = Chain(
    methods=(METHODS["norm"], MASKED, METHODS["taylor"], create_method("magnitude", sparsity=0.8)), split=(0, 0, 1, 0)
)
METHODS["masks, then merging, then units"] = Chain(methods=(MASKED, METHODS["merging"], METHODS["taylor"]), split=(0, 0, 1))
BLOCKS = create_method("block_removal", blocks=1, batches=2)
METHODS["blocks"] = BLOCKS
METHODS["masks, blocks, units, scans"] = Chain(
    methods=(MASKED, BLOCKS, METHODS["taylor"], create_method("block_removal", blocks=1, unit="ssm", batches=1)), split=(0, 0, 1, 0)
)
ON_RANKS = {"blocks": 0, "taylor": 2, "sparsessm": 1, "early_bird": 3, "masks, then units": 1, "units, masks, units, masks": 3}  # their ZeRO stages
ON_RANKS["masks, then merging, then units"] = 2
FAMILIES: dict[str, dict[str, Any]] = {  # models besides Vim as published
    "vmamba": {"zero_stage": 1},
    "vssd": {"zero_stage": 2, "micro_batch_size": BATCH // 2},  # its batch norms see what a rank sees, or a micro-batch
    "paths": {"zero_stage": 3},
}
BUDGET = Budget(epochs=3, finetune_epochs=1)


class Cut(Exception):
    """Stands for a kill."""


@dataclass
class Pictures:
    """Stands for both loaders: images of 32 px whose label can be learnt, the same global batches whatever the ranks.

    `cut`: the step that never comes.
    """

    ranks: Ranks
    cut: int | None = None
    micro: int = BATCH  # images of a micro-batch at most
    steps_per_epoch: int = STEPS

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple[torch.Tensor, torch.Tensor]]:
        """This rank's share of each batch."""
        for step in range(first_step, STEPS):
            if epoch * STEPS + step == self.cut:
                raise Cut
            yield from zip(*(self.share(tensor).split(self.micro) for tensor in pictures(epoch * STEPS + step)), strict=True)

    def share(self, tensor: torch.Tensor) -> torch.Tensor:
        """This rank's part; alone with micro-batches, the parts that two ranks would have, behind each other."""
        apart = self.ranks.world == 1 and self.micro < BATCH
        return torch.cat((tensor[::2], tensor[1::2])) if apart else tensor[self.ranks.rank :: self.ranks.world]

    def batches(self) -> Generator[tuple[torch.Tensor, torch.Tensor]]:
        """A batch that training never sees."""
        yield tuple(tensor[self.ranks.rank :: self.ranks.world] for tensor in pictures(999))


def pictures(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A global batch of images and labels."""
    generator = torch.Generator().manual_seed(number)
    labels = torch.randint(0, 10, (BATCH,), generator=generator)
    return torch.randn(BATCH, 3, 32, 32, generator=generator) + (labels[:, None, None, None] - 4.5) / 4, labels


def network_of(model: ModelSpec) -> torch.nn.Module:
    """The whole network of seed 0."""
    torch.manual_seed(0)
    return create_model(model.name, 10, 32, **model.options)


def spec_of(stage: Stage, model: str = "vim", **recipe: Any) -> StageSpec:
    """A stage of a model, with few steps unless `recipe` says otherwise."""
    settings = RecipeSpec(**{"epochs": 3, "finetune_epochs": 1, "batch_size": BATCH, "lr": 1e-2, "warmup_epochs": 0.0} | recipe)
    return StageSpec(id="0", model=MODELS[model], data=DataSpec(), recipe=settings, seed=0, stage=stage)


def train(
    folder: Path, stage: Stage, ranks: Ranks, *, parent: Path | None = None, model: str = "vim", cut: int | None = None, **recipe: Any
) -> StageResult:
    """One stage's result."""
    network = network_of(MODELS[model])
    no_decay = weight_decay_groups(network, False)[1]
    loader = Pictures(ranks, cut, recipe.get("micro_batch_size") or BATCH)
    every = None if cut is None else 1
    run = StageTrainer(spec_of(stage, model, **recipe), network, loader, loader, folder, no_decay=no_decay, ranks=ranks, checkpoint_steps=every)
    try:
        return run.run(parent, None)
    finally:
        run.network.engine.close()


TRAINED: dict[str, tuple[Path, StageResult]] = {}  # paths of stages that this process has trained


def train_path(folder: Path, method: str, ranks: Ranks, *, cut: int | None = None, **options: Any) -> tuple[Path, StageResult]:
    """The last stage's folder and result. What was trained before, by this process or in the folder, is not trained again."""
    *before, last = METHODS[method].stages(BUDGET)
    parent, path = None, f"{ranks.world}"
    for number, stage in enumerate(before):
        at, path = folder / f"{number}_{stage.name}", f"{path} {spec_of(stage, **options)}"
        if not at.exists():
            train_once(path, at, stage, ranks, parent=parent, **options)
        parent = at
    if cut is not None or (folder / method).exists():
        return folder / method, train(folder / method, last, ranks, parent=parent, cut=cut, **options)
    return folder / method, train_once(f"{path} {spec_of(last, **options)}", folder / method, last, ranks, parent=parent, **options)


def train_once(path: str, folder: Path, stage: Stage, ranks: Ranks, **options: Any) -> StageResult:
    """The result of a stage, the last of a path, with its files in the folder: copied where this process has trained the same path."""
    if path in TRAINED:
        shutil.copytree(TRAINED[path][0], folder)
    else:
        TRAINED[path] = folder, train(folder, stage, ranks, **options)
    return TRAINED[path][1]


def loaded(folder: Path, model: str = "vim") -> torch.nn.Module:
    """The exported network, from disk."""
    return load_model(MODELS[model], classes=10, img_size=32, scan="auto", weights=exported(folder).weights)


def assert_same(first: Path, second: Path, *, exactly: bool = True) -> None:
    one, two = (load_file(exported(folder).weights) for folder in (first, second))
    assert one.keys() == two.keys()
    names = one.keys() if exactly else [name for name in one if "running_" not in name and "num_batches" not in name]  # a step for each micro-batch
    assert all(torch.equal(one[name], two[name]) if exactly else torch.allclose(one[name], two[name], atol=2e-3) for name in names)
    assert load_structure(first / "export") == load_structure(second / "export")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "zero_stages"), [("norm", (0, 3)), ("taylor", (0, 1)), ("states", (0,)), ("early_bird", (0, 2, 3))])
def test_a_smaller_network_is_the_same_at_every_zero_stage_and_scores_the_same_from_disk(tmp_path, method, zero_stages):
    ranks = rendezvous(threads=1)
    for zero_stage in zero_stages:
        folder, result = train_path(tmp_path / str(zero_stage), method, ranks, zero_stage=zero_stage)
        network = loaded(folder)
        assert evaluate(network, Pictures(ranks).batches(), ranks).top1 == result.val_top1
        before, after = (sum(parameter.numel() for parameter in one.parameters()) for one in (network_of(MODELS["vim"]), network))
        assert result.sparsity == pytest.approx(1 - after / before) and 0.2 < result.sparsity < 0.5
        assert_same(folder, tmp_path / "0" / method, exactly=False)


@pytest.mark.slow
def test_a_smaller_network_trains_in_bf16_with_averaged_weights(tmp_path):
    ranks = rendezvous(threads=1)
    folder, result = train_path(tmp_path, "early_bird", ranks, model="mambavision", dtype="bf16", zero_stage=2, ema=0.9)
    assert evaluate(loaded(folder, "mambavision"), Pictures(ranks).batches(), ranks).top1 == result.val_top1
    assert not any("parametrizations" in name for name in load_file(exported(folder).weights))


@pytest.mark.slow
def test_before_fine_tuning_the_outputs_are_those_of_the_masked_network(tmp_path):
    ranks = rendezvous(threads=1)
    trunk, prune = METHODS["norm"].stages(Budget(epochs=2, finetune_epochs=0))
    train(tmp_path / "trunk", trunk, ranks, model="mambavision")
    result = train(tmp_path / "pruned", prune, ranks, parent=tmp_path / "trunk", model="mambavision")
    masked = loaded(tmp_path / "trunk", "mambavision")
    silence(masked, find_groups(masked, 32), load_structure(tmp_path / "pruned" / "export").kept)
    with torch.no_grad():
        assert torch.allclose(loaded(tmp_path / "pruned", "mambavision")(pictures(1)[0]), masked(pictures(1)[0]), rtol=1e-4, atol=1e-5)
    assert (result.steps, result.epochs) == (0, 0)
    files = [exported(tmp_path / folder).weights.stat().st_size for folder in ("trunk", "pruned")]
    assert files[1] < 0.7 * files[0]


KILLED = [("taylor", (1, 2)), ("early_bird", (5, 8)), ("masks, then units", (1, 2)), ("merging", (0, 2)), ("blocks", (0, 1))]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "cuts"), KILLED)
def test_a_killed_stage_goes_on_bit_for_bit_before_and_after_removal(tmp_path, method, cuts):
    ranks = rendezvous(threads=1)
    whole, _ = train_path(tmp_path / "whole", method, ranks)
    for cut in cuts:
        with pytest.raises(Cut):
            train_path(tmp_path / str(cut), method, ranks, cut=cut)
        folder, _ = train_path(tmp_path / str(cut), method, ranks)
        assert_same(folder, whole)


@pytest.mark.slow
def test_a_network_whose_tokens_merge_comes_back_from_disk_with_its_weights_whole_and_its_merging(tmp_path: Path) -> None:
    ranks = rendezvous(threads=1)
    folder, result = train_path(tmp_path, "merging", ranks, dtype="bf16", ema=0.9, zero_stage=1)
    trunk, network = loaded(tmp_path / "0_train"), loaded(folder)
    assert {name: weight.shape for name, weight in network.state_dict().items()} == {name: w.shape for name, w in trunk.state_dict().items()}
    assert evaluate(network, Pictures(ranks).batches(), ranks).top1 == result.val_top1 and result.sparsity == 0.0
    structure = load_structure(folder / "export")
    assert structure is not None and structure.merging == METHODS["merging"].merging(trunk) == merging_of(network)
    assert structure.summary == {"tokens.1": (38, 64)} and structure.notes == ("tokens merge: 64 before block 1, 38 from block 1 on",)
    merge_tokens(trunk, structure.merging)
    assert result.val_top1_pruned == evaluate(trunk, Pictures(ranks).batches(), ranks).top1  # before the first step
    train(tmp_path / "more", Stage(name="more", epochs=1, schedule="finetune", start="parent"), ranks, parent=folder)
    assert load_structure(tmp_path / "more" / "export") == structure


def train_on_ranks(folder: Path) -> None:
    for method, zero_stage in ON_RANKS.items():
        train_path(folder / method, method, rendezvous(threads=1), zero_stage=zero_stage)
    for model, recipe in FAMILIES.items():
        train_path(folder / model, "norm", rendezvous(threads=1), model=model, **recipe)


@pytest.mark.slow
def test_two_ranks_remove_the_same_units_as_one(tmp_path):
    """From the same dense weights, which one rank has trained."""
    one, two, ranks = tmp_path / "one", tmp_path / "two", rendezvous(threads=1)
    paths = {name: (name, {}) for name in ON_RANKS} | {
        model: ("norm", {"model": model, "micro_batch_size": recipe.get("micro_batch_size")}) for model, recipe in FAMILIES.items()
    }
    for name, (method, options) in paths.items():
        train_path(one / name, method, ranks, **options)
        if (one / name / "0_train").exists():
            shutil.copytree(one / name / "0_train", two / name / "0_train")
    two.mkdir(exist_ok=True)
    run_ranks("tests.jobs.train.test_removal:train_on_ranks", 2, two)
    for name, (method, _) in paths.items():
        assert_same(two / name / method, one / name / method, exactly=False)


@pytest.mark.slow
def test_a_stage_that_starts_from_a_smaller_network_goes_on_with_it(tmp_path):
    ranks = rendezvous(threads=1)
    folder, _ = train_path(tmp_path, "states", ranks)
    before = load_file(exported(folder).weights)
    train(tmp_path / "more", Stage(name="more", epochs=1, schedule="finetune", start="parent"), ranks, parent=folder)
    after = load_file(exported(tmp_path / "more").weights)
    assert {name: tensor.shape for name, tensor in after.items()} == {name: tensor.shape for name, tensor in before.items()}
    assert not torch.equal(after["head.weight"], before["head.weight"])
    assert load_structure(tmp_path / "more" / "export") == load_structure(folder / "export")


@dataclass(frozen=True, kw_only=True)
class Twice(PruningMethod):
    """Removes half of the inner channels, sets a mask on what is left, and removes again."""

    name: ClassVar[str] = "twice"
    removes_units: ClassVar[bool] = True
    masks: bool = True

    def begin(self, network: NetworkView) -> None:
        half = Structure(kept={group.name: range(group.count // 2) for group in network.groups if group.kind == "inner"}, counts={})
        network.remove(half)
        if self.masks:
            name = "layers.0.mixer.out_proj.weight"
            network.set_masks({name: torch.arange(network.read_weight(name).numel()).view(16, 16) % 2 == 0})
        network.remove(half)


@pytest.mark.slow
@pytest.mark.parametrize("masks", [True, False])
def test_units_are_removed_once_in_a_stage(tmp_path, masks):
    with pytest.raises(ValueError, match="removes units once in a stage; this network is smaller already"):
        train(tmp_path, Stage(name="train", epochs=1, method=Twice(masks=masks)), rendezvous(threads=1))


def cut_by_hand(masks: dict[str, torch.Tensor], structure: Structure) -> dict[str, torch.Tensor]:
    """Masks of the whole network without the entries that removed units own."""
    smaller = {name: mask.clone() for name, mask in masks.items()}
    gone: dict[tuple[str, int], set[int]] = {}
    for group in find_groups(network_of(MODELS["vim"]), 32):
        dropped = sorted(set(range(group.count)) - set(structure.kept.get(group.name, range(group.count))))
        for owned in group.owned:
            gone.setdefault((owned.parameter, owned.dimension), set()).update(owned.indices[dropped].flatten().tolist())
    for (name, dimension), indices in gone.items():
        if name in smaller:
            stay = [index for index in range(smaller[name].shape[dimension]) if index not in indices]
            smaller[name] = smaller[name].index_select(dimension, torch.tensor(stay))
    return smaller


@pytest.mark.slow
def test_masks_lose_what_removed_units_own_and_stay_exact_zeros(tmp_path):
    folder, result = train_path(tmp_path, "masks, then units", rendezvous(threads=1))
    before, after, weights = load_masks(tmp_path / "1_finetune" / "export"), load_masks(folder / "export"), load_file(exported(folder).weights)
    structure = load_structure(folder / "export")
    assert structure is not None and structure.kept
    expected = cut_by_hand(before, structure)
    assert after.keys() == expected.keys() and all(torch.equal(after[name], expected[name]) for name in after)
    assert all(not weights[name][~mask].any() for name, mask in after.items()) and result.val_top1_pruned is None
    gone = sum(mask.numel() - living(mask) for mask in after.values())
    alive = sum(parameter.numel() for parameter in loaded(folder).parameters()) - gone
    assert result.sparsity == pytest.approx(1 - alive / sum(parameter.numel() for parameter in network_of(MODELS["vim"]).parameters()))


@pytest.mark.slow
def test_a_chain_removes_units_twice_with_masks_between(tmp_path):
    folder, _ = train_path(tmp_path, "units, masks, units, masks", rendezvous(threads=1))
    path = [load_structure(stage / "export") for stage in (tmp_path / "1_finetune", tmp_path / "3_finetune", folder)]
    first, second, last = [structure.summary for structure in path if structure is not None]
    assert last == second and all(second[name][0] < first[name][0] < first[name][1] == second[name][1] for name in first)
    masks, weights = load_masks(folder / "export"), load_file(exported(folder).weights)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(map(living, masks.values())) == total - round(0.8 * total)
    assert all(not weights[name][~mask].any() for name, mask in masks.items())


@pytest.mark.slow
def test_a_network_without_blocks_is_saved_loaded_and_fine_tuned_as_such(tmp_path, capsys):
    (tmp_path / "blocks").mkdir()  # it is trained here, and says what it removes
    folder, result = train_path(tmp_path, "blocks", rendezvous(threads=1))
    structure = load_structure(folder / "export")
    assert structure is not None and len(structure.blocks) == 1 and not structure.kept
    losses = {}
    for name in ("layers.0", "layers.1"):
        network = loaded(tmp_path / "0_train")
        take_out(network, (name,), ())
        with torch.no_grad():
            batches = [pictures(step) for step in range(2)]
            losses[name] = sum(float(cross_entropy(network(images), labels, label_smoothing=0.1).double()) for images, labels in batches) / 2
    gone = min(losses, key=lambda name: losses[name])
    assert structure.blocks == (gone,) and f"block_removal: 1 of 1: without {gone}: {losses[gone]:.6g}" in capsys.readouterr().out
    assert not any(name.startswith(f"{gone}.") for name in load_file(exported(folder).weights))
    assert structure.summary == {name: (int(name != gone), 1) for name in losses}
    assert result.sparsity == pytest.approx(1 - parameters(loaded(folder)) / parameters(network_of(MODELS["vim"])))
    assert evaluate(loaded(folder), Pictures(rendezvous(threads=1)).batches(), rendezvous(threads=1)).top1 == result.val_top1
    shallow = create_model("vim_micro", 10, 32, dim=16, depth=1, d_state=4)
    assert count_multiply_adds(loaded(folder), img_size=32, masks={}).macs == count_multiply_adds(shallow, img_size=32, masks={}).macs


@pytest.mark.slow
def test_a_chain_removes_blocks_units_and_scans_from_a_masked_network(tmp_path):
    folder, _ = train_path(tmp_path, "masks, blocks, units, scans", rendezvous(threads=1))
    structure, masks, weights = load_structure(folder / "export"), load_masks(folder / "export"), load_file(exported(folder).weights)
    assert structure is not None and len(structure.blocks) == len(structure.scans) == 1 and structure.kept
    assert masks and masks.keys() <= weights.keys() and all(not weights[name][~mask].any() for name, mask in masks.items())
    assert not any("x_proj" in name or name.startswith(f"{structure.blocks[0]}.") for name in weights)
    assert loaded(folder)(pictures(0)[0]).isfinite().all()


def test_a_structure_of_another_network_is_refused_by_file_name(tmp_path):
    from safetensors.torch import save_file

    save_file(network_of(MODELS["vim"]).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "structure.json").write_text(json.dumps({"kept": {"layers.7.mixer.d_inner": [0]}, "counts": {}, "notes": []}))
    with pytest.raises(WeightsError, match=r"model\.safetensors does not hold the weights of vim: the network has no units 'layers\.7"):
        load_model(MODELS["vim"], classes=10, img_size=32, scan="auto", weights=tmp_path / "model.safetensors")


def test_the_accuracy_of_removal_alone_is_that_of_the_smaller_network_before_its_first_step(tmp_path: Path) -> None:
    folder, result = train_path(tmp_path, "norm", rendezvous(threads=1))
    structure = load_structure(folder / "export")
    assert structure is not None
    network = network_of(MODELS["vim"])
    network.load_state_dict(load_file(exported(tmp_path / "0_train").weights))
    remove(network, find_groups(network, 32), structure.kept)
    images, labels = pictures(999)
    with torch.no_grad():
        hits = network.eval()(images).argmax(1) == labels
    assert result.val_top1_pruned == pytest.approx(100 * float(hits.double().mean()))
    assert train_path(tmp_path, "taylor", rendezvous(threads=1))[1].val_top1_pruned is None
