"""What must hold on a GPU as on a CPU. Each body runs on the device of this machine: here on a CPU, and by `pytest -m gpu` on a lent GPU."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.data.loaders import PLAIN, TrainLoader
from jobs.data.prepare import Dataset, prepare
from jobs.experiment.specs import ClusterSpec, ModelSpec, RecipeSpec, StageSpec
from jobs.measure.profiling import profile_network
from jobs.measure.protocols import Protocol, images_for, prepared
from jobs.parallel.engine import Engine, make_optimizer, rendezvous
from jobs.parallel.fragments import Fragments
from jobs.parallel.precision import set_precision
from jobs.train.evaluation import evaluate
from jobs.train.stage import train_stage
from models.blocks import blocks_of, scans_of, take_out
from models.pruning.base import Stage
from models.pruning.structure import find_groups, remove
from models.registry import create_model
from models.ssm.backends import is_installed
from models.ssm.check import LENGTHS, first_fault, implementations
from tests.support.devices import GPU, on_this_device, set_backend, with_variants, without_waiting
from tests.support.images import SMALL
from tests.support.networks import NO_DECAY, global_batch, toy_net
from tests.support.removal import SMALLER, VARIANTS, images, small_network
from tests.support.stages import assert_same, weights

FAMILIES = ("vim", "mambavision", "vmamba", "vssd", "vit")


@pytest.fixture(autouse=True)
def _precision() -> None:
    torch.set_num_threads(1)
    set_precision("fp32")  # torch's own default is TF32 in convolutions


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(SMALL, tmp_path_factory.mktemp("cache"))


# kernels and networks


@on_this_device
@pytest.mark.parametrize("backend", ["cpu", "triton", "cuda"])
def test_kernels_equal_closed_forms_in_fp64(backend: str, device: str) -> None:
    """Scan and convolution, forward and backward, fp32 and bf16, at the lengths for which kernels have code of their own."""
    if (backend == "cpu") != (device == "cpu") or (backend != "cpu" and not is_installed(backend)):
        pytest.skip(f"{backend} has no kernel here")
    assert first_fault(*implementations(backend), device, LENGTHS if device == "cuda" else (5, 197)) is None


@with_variants(FAMILIES, list(VARIANTS))
def test_every_variant_computes_what_its_reference_computes_on_a_cpu(variant: str, device: str) -> None:
    network = small_network(variant)
    with torch.no_grad():
        want = set_backend(network, "reference")(images())
        got = set_backend(network, "auto").to(device)(images().to(device)).cpu()
    assert (got - want).norm() < 2e-3 * want.norm()


@with_variants(FAMILIES, FAMILIES)
def test_networks_of_odd_widths_do_too(variant: str, device: str) -> None:
    """As structured pruning leaves them: no width is a multiple of a vector, and loads are not aligned."""
    network = set_backend(small_network(variant), "reference")
    groups = find_groups(network, 32)
    remove(network, groups, {group.name: list(range(max(1, group.count - 1))) for group in groups})
    with torch.no_grad():
        want = network(images())
        got = set_backend(network, "auto").to(device)(images().to(device)).cpu()
    assert (got - want).norm() < 2e-3 * want.norm()


@with_variants(FAMILIES, FAMILIES)
def test_a_training_step_repeats_to_the_bit(variant: str, device: str) -> None:
    torch.backends.cudnn.deterministic = True
    network = set_backend(small_network(variant), "triton" if device == "cuda" else "auto").to(device).train()
    batch = images(8).to(device)
    first, again = (torch.autograd.grad(network(batch).square().sum(), list(network.parameters())) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


@pytest.mark.slow
@with_variants(["vim"], FAMILIES)
def test_torch_compile_sees_no_break_and_computes_the_same(variant: str, device: str) -> None:
    """The scan and the convolution are operators to it. On a GPU its own kernels are compiled around ours."""
    network = set_backend(small_network(variant), "triton" if device == "cuda" else "auto").to(device)
    batch, parameters = images().to(device), list(network.parameters())
    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend="inductor" if device == "cuda" else "aot_eager")
    results = []
    for call in (network, compiled):
        scores = call(batch)
        results.append((scores, *torch.autograd.grad(scores.square().sum(), parameters)))
    for got, want in zip(results[1], results[0], strict=True):
        assert (got - want).norm() <= 2e-3 * want.norm() + 1e-7


@pytest.mark.parametrize("variant", FAMILIES[1:4])
def test_no_scan_breaks_a_graph(variant: str) -> None:
    """With the blocks that have the first scan alone; that of Vim is in the test before."""
    network = small_network(variant)
    take_out(network, [name for name in blocks_of(network) if not scans_of(network)[0].startswith(f"{name}.")], ())
    with torch.no_grad():
        assert torch.equal(torch.compile(network, fullgraph=True, dynamic=False, backend="eager")(images()), network(images()))


# the engine


def rounded_net() -> nn.Module:
    """A network whose weights bf16 has too, so that all stages of ZeRO start from the same masters."""
    return toy_net().bfloat16().float()


def masters_by_torch(recipe: RecipeSpec, steps: int) -> tuple[dict[str, Tensor], Tensor]:
    """fp32 masters and the last loss after steps of a network in the recipe's dtype, by torch alone on a CPU."""
    masters = rounded_net()
    optimizer = make_optimizer(masters, recipe, frozenset(NO_DECAY))
    kind, loss = torch.bfloat16 if recipe.dtype == "bf16" else torch.float32, torch.tensor(0.0)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for step in range(steps):
        pixels, labels = global_batch(step, 8)
        work = copy.deepcopy(masters).to(kind)
        loss = functional.cross_entropy(work(pixels.to(kind)).float(), labels, label_smoothing=recipe.label_smoothing)
        for master, gradient in zip(masters.parameters(), torch.autograd.grad(loss, list(work.parameters())), strict=True):
            master.grad = gradient.float()
        nn.utils.clip_grad_norm_(masters.parameters(), recipe.clip_grad or 1e9)
        optimizer.step()
    return {name: parameter.detach() for name, parameter in masters.named_parameters()}, loss.detach()


@on_this_device
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_steps_of_the_engine_are_torchs_own_on_a_cpu(zero_stage: int, dtype: str, device: str) -> None:
    recipe = RecipeSpec(batch_size=8, dtype=dtype, zero_stage=zero_stage, optimizer="sgd", weight_decay=0.0)
    engine = Engine(rounded_net(), recipe, no_decay=NO_DECAY, ranks=rendezvous(threads=1))
    assert engine.ranks.device.type == device
    for step in range(4):
        loss = engine.forward_backward(*global_batch(step, 8), last=True)
        assert engine.step(1e-2)
    want, want_loss = masters_by_torch(recipe, 4)
    got = Fragments(engine).weights()
    engine.close()
    limit = 1e-4 if dtype == "fp32" else 2e-2
    assert float(loss) == pytest.approx(float(want_loss), rel=limit)
    start = dict(rounded_net().named_parameters())
    for name, weight in want.items():
        moved = (weight - start[name].detach()).norm()
        assert (got[name].cpu() - weight).norm() <= 5 * limit * moved + 1e-6, name


@on_this_device
def test_a_bf16_step_never_waits_for_the_device(device: str) -> None:
    torch.manual_seed(0)
    network = create_model("vim_micro", 7, 32, **SMALLER["vim_micro"], patch_size=16)
    engine = Engine(network, RecipeSpec(batch_size=2, dtype="bf16", optimizer="sgd"), no_decay=[], ranks=rendezvous(threads=1))
    pixels, labels = images().to(device), torch.tensor([1, 2]).to(device)
    for _ in range(2):
        engine.forward_backward(pixels, labels, last=True)
        engine.update(1e-3)
    with without_waiting(device):
        engine.forward_backward(pixels, labels, last=True)
        engine.update(1e-3)
    engine.close()


@on_this_device
def test_an_evaluation_waits_for_the_device_once_however_many_batches_there_are(device: str) -> None:
    ranks, network = rendezvous(threads=1), toy_net().to(device)
    batches = [tuple(part.to(device) for part in global_batch(number, 8)) for number in range(3)]

    def guarded() -> Iterator[tuple[Tensor, Tensor]]:
        with without_waiting(device):  # entered with the first batch, left after the last
            yield from batches

    assert evaluate(network, guarded(), ranks).samples == 24


# batches


@on_this_device
@pytest.mark.parametrize("settings", [{}, {"mixup": 0.8, "cutmix": 1.0, "random_erase": 0.5, "label_smoothing": 0.1}], ids=["plain", "recipe"])
def test_batches_arrive_with_the_bits_of_a_cpu(dataset: Dataset, settings: dict[str, float], device: str) -> None:
    share = {"seed": 3, "batch_size": 16, "micro_batch_size": 8, "rank": 0, "world": 1, "threads": 2}
    epochs = [
        [
            (pixels.cpu(), targets.cpu())
            for pixels, targets in TrainLoader(SMALL, dataset, **share, device=where, recipe=replace(PLAIN, **settings)).epoch(1)
        ]
        for where in (device, "cpu")
    ]
    assert len(epochs[0]) == len(epochs[1]) > 4
    for (pixels, targets), (want, wanted) in zip(*epochs, strict=True):
        assert torch.equal(pixels, want) if not settings else torch.allclose(pixels, want, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(targets, wanted, rtol=1e-6, atol=1e-7)


@with_variants(FAMILIES, FAMILIES)
def test_images_with_channels_last_give_the_same_scores_in_bf16(variant: str, device: str) -> None:
    network, pixels = small_network(variant).to(device, torch.bfloat16), images().to(device, torch.bfloat16)
    with torch.no_grad():
        want, got = network(pixels).float(), network(pixels.contiguous(memory_format=torch.channels_last)).float()
    assert (got - want).norm() < 5e-2 * want.norm()


# a stage, killed


class Cut(Exception):
    """Stands for a kill."""


class Loader(TrainLoader):
    """A loader that cuts the training once, before optimizer step `at`."""

    at: int | None = None
    given = 0

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:  # type: ignore[override]
        for step, batch in enumerate(super().epoch(epoch, first_step), epoch * self.steps_per_epoch + first_step):
            if Loader.at is not None and step >= Loader.at:
                Loader.at = None
                raise Cut
            yield batch


@on_this_device
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_killed_stage_goes_on_to_the_same_bits(dataset: Dataset, dtype: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.data.loaders.TrainLoader", Loader)
    recipe = RecipeSpec(epochs=2, batch_size=16, dtype=dtype, ema=0.9, scan="triton" if device == "cuda" else "auto", drop_path=0.2)
    model = ModelSpec(name="vim_micro", options={**SMALLER["vim_micro"], "patch_size": 8}, label="vim")
    spec = StageSpec(id="0", model=model, data=SMALL, recipe=recipe, seed=0, stage=Stage(name="train", epochs=2))
    cluster = ClusterSpec(kind="debug", checkpoint_steps=2, cache=str(tmp_path))
    cuts = {"whole": (), "cut": (3, 7)}
    for name, steps in cuts.items():
        for step in (*steps, None):
            Loader.at = step
            try:
                train_stage(spec, dataset, tmp_path / name, parent=None, rewind=None, ranks=rendezvous(threads=1), cluster=cluster)
            except Cut:
                continue
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


# measuring


@on_this_device
def test_a_profile_has_speed_memory_and_no_figure_that_is_not_one(device: str) -> None:
    network = small_network("vim").to(device)
    ways = (Protocol(dtype="bf16"), Protocol(channels_last=True), *((Protocol(cuda_graphs=True),) if device == "cuda" else ()))
    profile = profile_network(network, img_size=32, masks={}, threads=1, batch_size=2, seconds=0.01, further=ways)
    assert profile.latency_ms > 0 and profile.throughput_img_per_s > 0 and profile.peak_memory_bytes > 0 and profile.macs > 0
    assert ("CUDA events" in profile.speed_protocol) == (device == "cuda")
    assert len(profile.speeds) == len(ways) and all(speed["latency_ms"] for speed in profile.speeds.values()), profile.notes


class Noting(nn.Module):
    """A network that keeps its last scores, so that a test sees what a captured graph writes."""

    scores: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores."""
        Noting.scores = self.network(pixels)
        return Noting.scores


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no GPU here")
@pytest.mark.parametrize("variant", FAMILIES)
@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_a_replayed_graph_computes_the_scores_of_the_images_that_are_then_in_its_input(dtype: str | None, variant: str) -> None:
    network, way = small_network(variant).cuda(), Protocol(cuda_graphs=True, dtype=dtype)
    with torch.inference_mode():
        pixels = images_for(way, images().cuda())
        graphs = prepared(Noting(network), way, pixels)
        captured = Noting.scores  # of the larger batch, which is captured last
        pixels.mul_(-1.5)
        graphs(pixels)
        torch.cuda.synchronize()
        want = copy.deepcopy(network).to(pixels.dtype)(pixels)
    torch.testing.assert_close(captured, want, rtol=1e-3, atol=1e-3)
