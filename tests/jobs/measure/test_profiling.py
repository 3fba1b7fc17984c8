import itertools

import pytest
import torch
from torch import Tensor, nn

from jobs.measure.profiling import check_zeros, parameter_counts, profile_network
from models.blocks import take_out
from models.registry import create_model


def half(weight: Tensor) -> Tensor:
    """A mask that drops every second weight."""
    return (torch.arange(weight.numel()) % 2 == 0).view(weight.shape)


def masked_micro() -> tuple[nn.Module, dict[str, Tensor]]:
    """A micro Vim with half of its input projections and all of its head gone, and the masks."""
    model = create_model("vim_micro", num_classes=10)
    weights = {name: weight for name, weight in model.named_parameters() if name.endswith("in_proj.weight")}
    fours = {name: (torch.arange(weight.numel()) % 8 < 4).view(weight.shape) for name, weight in weights.items()}  # no 2:4
    masks = fours | {"head.weight": torch.zeros(10, 64, dtype=torch.bool)}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return model, masks


def test_a_profile_agrees_with_its_masks():
    model, masks = masked_micro()
    found = profile_network(model, img_size=32, masks=masks, threads=1, dense=lambda: create_model("vim_micro", 10), batch_size=4, seconds=0.0)
    dropped = 4 * 256 * 64 // 2 + 640
    assert found.params == found.params_dense == sum(weight.numel() for weight in model.parameters())
    assert found.params_nonzero == found.params - dropped
    assert found.sparsity_prunable == dropped / (4 * 256 * 64 + 640) and found.sparsity_all == pytest.approx(dropped / found.params)
    assert found.layers == {name: 1.0 if name == "head.weight" else 0.5 for name in masks} and found.collapsed == ["head.weight"]
    assert found.macs == found.macs_structural and found.macs - found.macs_nonzero == 4 * 65 * 64 * 256 // 2 + 640
    assert found.throughput_img_per_s > 0 and found.latency_ms > 0 and found.throughput_batch == 4
    assert found.peak_memory_bytes > 4 * found.params


@pytest.fixture
def pace(monkeypatch):
    """A network whose forward passes take these milliseconds in turn, by a clock that nothing else moves."""
    clock = [0.0]
    monkeypatch.setattr("jobs.measure.speed.time.perf_counter", lambda: clock[0])

    def paced(network, *milliseconds):
        turns = itertools.cycle(milliseconds)

        def pass_time(*_):
            clock[0] += next(turns) / 1e3

        network.register_forward_hook(pass_time)
        return network

    return paced


def test_a_mask_is_not_faster_and_the_record_says_what_was_measured(pace):
    """Its dense network is slower in the median, but not in every turn."""
    model, masks = masked_micro()
    network, dense = pace(model, 10), pace(create_model("vim_micro", 10), 12, 12, 9)
    found = profile_network(network, img_size=32, masks=masks, threads=1, dense=lambda: dense, batch_size=4, seconds=0.5)
    assert found.speedup_measured == found.speedup_latency == 1.0
    assert found.throughput_img_per_s == pytest.approx(4 / 0.010) and found.dense_throughput_img_per_s == pytest.approx(4 / 0.012)
    assert found.latency_ms == pytest.approx(10.0) and found.dense_latency_ms == pytest.approx(12.0)
    (note,) = (note for note in found.notes if note.startswith("a mask runs dense kernels"))
    assert "batch 1 " in note and "batch 4 " in note


class Wide(nn.Module):
    """A network of one hidden layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, width, 1), nn.Conv2d(width, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(images))


def test_a_smaller_network_is_measured_beside_the_one_it_was_cut_from(pace):
    small, whole = pace(Wide(16), 2), pace(Wide(512), 7)
    masks = {"head.weight": half(small.head.weight)}
    with torch.no_grad():
        small.head.weight.mul_(masks["head.weight"])
    found = profile_network(small, img_size=64, masks=masks, threads=1, dense=lambda: whole, batch_size=8, seconds=0.1)
    places, cut = 64 * 64, 496 * 3 + 496 + 8 * 496
    assert (found.macs, found.macs_structural, found.macs_nonzero) == (places * 512 * 11, places * 16 * 11, places * (16 * 3 + 8 * 8))
    assert (found.params, found.params_dense, found.params_nonzero) == (16 * 12 + 8, 512 * 12 + 8, 16 * 12 + 8 - 64)
    assert found.layers == {"stem.weight": 496 / 512, "stem.bias": 496 / 512, "head.weight": (8 * 496 + 64) / (8 * 512)}
    assert found.sparsity_prunable == (cut + 64) / (512 * 12) and found.collapsed == []
    assert found.speedup_measured == pytest.approx(3.5) and found.speedup_latency == pytest.approx(3.5)
    assert found.throughput_img_per_s == pytest.approx(8 / 0.002) and found.dense_throughput_img_per_s == pytest.approx(8 / 0.007)
    assert found.latency_ms == pytest.approx(2.0) and found.dense_latency_ms == pytest.approx(7.0)


def test_a_dense_network_is_its_own_measure():
    found = profile_network(Wide(8), img_size=8, masks={}, threads=1, batch_size=2, seconds=0.0)
    assert found.speedup_measured == found.speedup_latency == 1.0 and found.dense_latency_ms == found.latency_ms
    assert found.layers == {} and found.sparsity_prunable == found.sparsity_all == 0.0


def test_energy_is_a_number_or_has_a_reason():
    found = profile_network(Wide(8), img_size=8, masks={}, threads=1, batch_size=2, seconds=0.0)
    assert (found.infer_j_per_img is None) == any(note.startswith("energy: ") for note in found.notes)


def test_a_weight_that_its_mask_drops_and_that_is_not_zero_is_refused():
    model = nn.Linear(4, 2)
    with pytest.raises(ValueError, match="4 weights of 'weight' are not zero"):
        check_zeros(model, {"weight": half(model.weight)})


@pytest.mark.parametrize(("name", "shape"), [("wieght", (2, 4)), ("weight", (4, 2))])
def test_a_mask_without_its_parameter_is_refused(name, shape):
    with pytest.raises(ValueError, match=f"named '{name}', and the model has no such parameter"):
        check_zeros(nn.Linear(4, 2), {name: torch.ones(shape, dtype=torch.bool)})


def test_measuring_leaves_threads_and_mode_as_they_were():
    model, before = Wide(4), torch.get_num_threads()
    seen: list[tuple[int, bool]] = []
    counted = profile_network(model, img_size=8, masks={}, threads=before, batch_size=2, seconds=0.0)
    model.register_forward_hook(lambda *_: seen.append((torch.get_num_threads(), model.training)) if torch.is_inference_mode_enabled() else None)
    found = profile_network(model, img_size=8, masks={}, threads=before + 1, batch_size=2, seconds=0.0)
    assert set(seen) == {(before + 1, False)} and found.macs == counted.macs
    assert torch.get_num_threads() == before and model.training


def test_the_energy_of_an_image_is_that_of_all_passes_by_their_images(tmp_path, monkeypatch):
    """Every forward pass adds 4 joules to the counter of the only package."""
    package, passes = tmp_path / "intel-rapl:0", []
    package.mkdir()
    (package / "energy_uj").write_text("0")
    (package / "max_energy_range_uj").write_text("1000000000000")
    monkeypatch.setattr("jobs.measure.energy.Meter.__init__.__defaults__", (tmp_path,))

    def spend(*_):
        passes.append(1)
        (package / "energy_uj").write_text(str(4_000_000 * len(passes)))

    model = Wide(8)
    model.register_forward_hook(spend)
    found = profile_network(model, img_size=8, masks={}, threads=1, batch_size=2, seconds=0.0)
    assert found.infer_j_per_img == pytest.approx(2.0) and not any(note.startswith("energy: ") for note in found.notes)


def test_without_counters_there_is_no_energy_and_the_reason_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.measure.energy.Meter.__init__.__defaults__", (tmp_path,))
    found = profile_network(Wide(8), img_size=8, masks={}, threads=1, batch_size=2, seconds=0.0)
    assert found.infer_j_per_img is None
    assert [note for note in found.notes if note.startswith("energy: ")] == [
        f"energy: this machine has no RAPL counters ({tmp_path}/intel-rapl:*); virtual machines hide them"
    ]


def test_parameters_that_went_with_a_block_count_as_pruned_among_those_of_all_blocks():
    whole, shorter = (create_model("vim_micro", num_classes=10, dim=8, depth=4) for _ in range(2))
    take_out(shorter, ("layers.2",), ())
    counts = parameter_counts(shorter, whole, {"head.weight": half(shorter.head.weight)})
    blocks, head = sum(parameter.numel() for parameter in whole.layers.parameters()), whole.head.weight.numel()
    assert counts["sparsity_prunable"] == pytest.approx((blocks / 4 + head / 2) / (blocks + head)) and counts["collapsed"] == []
    assert counts["layers"]["layers.2.mixer.A_log"] == 1.0 and counts["layers"]["layers.1.mixer.A_log"] == 0.0
    take_out(shorter, (), ("layers.0.mixer",))
    assert parameter_counts(shorter, whole, {})["layers"]["layers.0.mixer.x_proj.weight"] == 1.0
