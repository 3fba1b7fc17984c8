import pytest
import torch
from torch import nn
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass, sparse_semi_structured_to_dense_cutlass

from jobs.measure.profiling import profile_network
from jobs.measure.sparse_kernels import patterned, semi_structured_speedup, sparsified
from models.pruning.semi_structured import two_of_four
from models.registry import create_model


def masked_vim(**options: object) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A network with 2:4 weights in its projections."""
    torch.manual_seed(0)
    model = create_model("vim_micro", 10, **options)
    masks = {name: two_of_four(weight) for name, weight in model.named_parameters() if "_proj" in name and weight.dim() == 2}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return model, masks


def test_masks_with_the_pattern_are_told_from_others():
    half = torch.rand(8, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    masks = {
        "pattern": two_of_four(torch.randn(8, 16)),
        "sparser": torch.zeros(4, 8, dtype=torch.bool),
        "half": half,
        "dense": torch.ones(8, 16, dtype=torch.bool),
        "odd": torch.zeros(8, 6, dtype=torch.bool),
        "kernel": torch.zeros(4, 4, 1, 4, dtype=torch.bool),
    }
    assert patterned(masks) == ["pattern"]


def test_on_a_cpu_there_is_no_figure_but_the_reason():
    model, masks = masked_vim()
    assert semi_structured_speedup(model, masks, img_size=32, batch_size=2) == (
        None,
        "2:4: no 2:4 kernels on CPU; the pattern is in the weights, and a GPU runs it faster",
    )
    assert semi_structured_speedup(model, {}, img_size=32, batch_size=2) == (None, "2:4: no mask has the pattern")


def test_weights_are_turned_in_a_copy_and_those_that_the_kernels_refuse_stay():
    """A stand-in for the kernels: it takes 128 columns alone, and doubles what it takes."""

    def turn(weight: torch.Tensor) -> torch.Tensor:
        if weight.shape[1] != 128:
            raise RuntimeError(f"{tuple(weight.shape)} is not supported")
        return 2 * weight

    model, masks = masked_vim()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    found, turned, refused = sparsified(model, [*masks, "patch_embed.proj.weight"], turn)
    assert turned and all("x_proj" in name or "out_proj" in name for name in turned)
    assert "is not supported" in refused
    for name, weight in found.named_parameters():
        assert torch.equal(weight, before[name] * (2 if name in turned else 1)), name
        assert torch.equal(model.get_parameter(name), before[name])


def test_torch_packs_the_weights_without_losing_one():
    """Half the columns and two bits a weight of where they were: the form that the kernels read. torch packs and unpacks it on any device."""
    model, masks = masked_vim()
    taken = 0
    for name in patterned(masks):
        weight = model.get_parameter(name).detach().to(torch.bfloat16)
        if weight.shape[0] % 32 or weight.shape[1] % 32:  # CUTLASS' tiles
            continue
        packed, places = sparse_semi_structured_from_dense_cutlass(weight)
        assert packed.shape == (weight.shape[0], weight.shape[1] // 2) and packed.count_nonzero() == weight.count_nonzero()
        assert torch.equal(sparse_semi_structured_to_dense_cutlass(packed, places), weight), name
        taken += 1
    assert taken >= 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_the_kernels_compute_the_same_and_are_timed():
    model, masks = masked_vim(dim=256, depth=2, scan_backend="reference")
    model = model.cuda().eval()
    dense = model.to(torch.bfloat16)
    sparse, turned, _ = sparsified(dense, patterned(masks), torch.sparse.to_sparse_semi_structured)
    images = torch.randn(8, 3, 32, 32, device="cuda", dtype=torch.bfloat16)
    with torch.inference_mode():
        torch.testing.assert_close(sparse(images), dense(images), rtol=5e-2, atol=5e-2)
    ratio, reason = semi_structured_speedup(model.float(), masks, img_size=32, batch_size=64)
    assert turned and ratio is not None and ratio > 0 and reason.startswith(f"2:4: {len(turned)} of ")


def test_a_profile_says_why_a_pattern_has_no_speed_up_here():
    model, masks = masked_vim(depth=1, dim=16)
    found = profile_network(model, img_size=32, masks=masks, threads=1, batch_size=2, seconds=0.1)
    assert found.speedup_measured is None
    assert [note for note in found.notes if note.startswith("2:4: no 2:4 kernels on CPU")]
    assert profile_network(model, img_size=32, masks={}, threads=1, batch_size=2, seconds=0.1).speedup_measured == 1.0
