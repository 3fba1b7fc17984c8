import pytest
import torch
from torch import Tensor, nn

from jobs.profiling import check_zeros, measure, profile
from models.registry import create_model


def half(weight: Tensor) -> Tensor:
    """A mask that drops every second weight."""
    return (torch.arange(weight.numel()) % 2 == 0).view(weight.shape)


def test_a_profile_agrees_with_its_masks():
    model = create_model("vim_micro", num_classes=10)
    weights = {name: weight for name, weight in model.named_parameters() if name.endswith("in_proj.weight")}
    masks = {name: half(weight) for name, weight in weights.items()} | {"head.weight": torch.zeros(10, 64, dtype=torch.bool)}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    found = profile(model, img_size=32, masks=masks, threads=1, batch_size=4, min_s=0.0)
    dropped = 4 * 256 * 64 // 2 + 640
    assert found.params == sum(weight.numel() for weight in model.parameters())
    assert found.params_nonzero == found.params - dropped
    assert found.sparsity_prunable == dropped / (4 * 256 * 64 + 640) and found.sparsity_all == dropped / found.params
    assert found.layers == {**dict.fromkeys(weights, 0.5), "head.weight": 1.0} and found.collapsed == ["head.weight"]
    assert found.macs - found.macs_nonzero == 4 * 65 * 64 * 256 // 2 + 640
    assert found.throughput_img_per_s > 0 and found.latency_ms > 0 and found.throughput_batch == 4
    assert found.peak_memory_bytes > 4 * found.params


def test_a_weight_that_its_mask_drops_and_that_is_not_zero_is_refused():
    model = nn.Linear(4, 2)
    with pytest.raises(ValueError, match="4 weights of 'weight' are not zero"):
        check_zeros(model, {"weight": half(model.weight)})


@pytest.mark.parametrize(("name", "shape"), [("wieght", (2, 4)), ("weight", (4, 2))])
def test_a_mask_without_its_parameter_is_refused(name, shape):
    with pytest.raises(ValueError, match=f"named '{name}', and the model has no such parameter"):
        check_zeros(nn.Linear(4, 2), {name: torch.ones(shape, dtype=torch.bool)})


def test_measuring_leaves_threads_and_mode_as_they_were():
    model, before = nn.Conv2d(3, 4, 3), torch.get_num_threads()
    seen: list[tuple[int, bool]] = []
    model.register_forward_hook(lambda *_: seen.append((torch.get_num_threads(), model.training)))
    measure(model, img_size=8, threads=before + 1, batch_size=2, min_s=0.0)
    assert set(seen) == {(before + 1, False)} and len(seen) == 8  # one to warm up and three to time, at batch 1 and at batch 2
    assert torch.get_num_threads() == before and model.training
