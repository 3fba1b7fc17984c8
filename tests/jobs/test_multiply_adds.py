from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jobs.multiply_adds import count
from models.registry import create_model


def macs(model: nn.Module, masks: dict[str, Tensor] | None = None, img_size: int = 8) -> tuple[int, int]:
    costs = count(model, img_size=img_size, masks=masks or {})
    return costs.macs, costs.macs_nonzero


def half(weight: Tensor) -> Tensor:
    """A mask that drops every second weight."""
    return (torch.arange(weight.numel()) % 2 == 0).view(weight.shape)


class Patches(nn.Module):
    """(B, 16, 12) from (B, 3, 8, 8): a body gets tokens of width 12."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        return self.body(F.pixel_unshuffle(images, 2).flatten(2).transpose(1, 2))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).view(len(tokens), 16, 3, 2, 6).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v)


class ReadsItsWeight(nn.Module):
    """Uses the weight of a layer that is never called, as mixers do, and changes its shape on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(12, 5, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.matmul(tokens, self.projection.weight.to(tokens.dtype).t())


def test_a_linear_layer_costs_inputs_times_outputs_for_each_token():
    assert macs(Patches(nn.Linear(12, 7))) == (16 * 12 * 7, 16 * 12 * 7)


def test_a_grouped_strided_convolution_costs_its_weight_at_every_place():
    model = nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3)
    assert macs(model)[0] == 4 * 4 * 6 * 1 * 3 * 3


def test_attention_costs_two_products_besides_its_projections():
    assert macs(Patches(Attention()))[0] == 16 * 12 * 36 + 2 * (2 * 16 * 16 * 6)


class Calls(nn.Module):
    """Any function of (B, 16, 12) tokens."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, tokens: Tensor) -> Tensor:
        return self.function(tokens)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: torch.einsum("blc,bkc->blk", x, x), 16 * 16 * 12),
        (lambda x: x @ x.transpose(1, 2), 16 * 16 * 12),
        (lambda x: torch.complex(x, x) @ torch.complex(x, x).transpose(1, 2), 4 * 16 * 16 * 12),
        (lambda x: torch.complex(x, x) * torch.complex(x, x), 4 * 16 * 12),
        (lambda x: x * x, 0),
        (lambda x: torch.fft.rfft(x, n=32, dim=1), 12 * 1.25 * 32 * 5),
        (lambda x: torch.fft.irfft(torch.fft.rfft(x, n=32, dim=1), n=32, dim=1), 2 * 12 * 1.25 * 32 * 5),
        (lambda x: F.relu(torch.fft.rfft(x, n=8)[..., :5].abs()), 16 * 1.25 * 8 * 3),
    ],
)
def test_products_and_transforms_cost_what_their_formulas_say(function, expected):
    assert macs(Patches(Calls(function)))[0] == expected


def test_a_product_of_real_numbers_element_by_element_is_listed_as_not_counted():
    assert count(Patches(Calls(lambda x: x * x)), img_size=8, masks={}).uncounted_ops == {"aten::mul": 1, "aten::pixel_unshuffle": 1}


@pytest.mark.parametrize("variant", ["se", "mobilenet", "swa", "s4", "s5", "attention_pool", "convnext"])
def test_every_variant_is_counted(variant):
    for name in ("mambavision_micro", "vim_micro") if variant in ("se", "mobilenet") else ("mambavision_micro",):
        assert macs(create_model(name, num_classes=10, **{variant: {}}), img_size=32)[0] > 6_000_000


def test_a_weight_that_is_zero_costs_nothing():
    model = Patches(nn.Linear(12, 7))
    assert macs(model, {"body.weight": half(model.body.weight)}) == (1344, 672)


def test_the_density_is_that_of_the_weight_even_where_the_layer_is_never_called():
    model = Patches(ReadsItsWeight())
    assert macs(model, {"body.projection.weight": half(model.body.projection.weight)}) == (960, 480)


def test_the_function_that_deepspeed_puts_in_place_of_linear_counts_as_it(monkeypatch):
    from deepspeed.runtime.zero.linear import zero3_linear_wrap

    model = Patches(nn.Linear(12, 7))
    monkeypatch.setattr(F, "linear", zero3_linear_wrap)
    costs = count(model, img_size=8, masks={"body.weight": half(model.body.weight)})
    assert (costs.macs, costs.macs_nonzero, costs.by_operator) == (1344, 672, {"linear": 1344})


def test_attention_under_masks_is_not_discounted():
    model = Patches(Attention())
    dense, sparse = macs(model, {"body.qkv.weight": half(model.body.qkv.weight)})
    assert dense - sparse == 16 * 12 * 36 // 2


def test_operations_that_are_not_counted_are_listed_with_their_number():
    model = Patches(nn.Sequential(nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 2), nn.GELU()))
    uncounted = count(model, img_size=8, masks={}).uncounted_ops
    assert uncounted["aten::gelu"] == 2 and uncounted["aten::layer_norm"] == 1


def test_a_heavy_operation_without_a_counter_is_an_error():
    class Heavy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.linalg.matrix_exp(images)

    with pytest.raises(ValueError, match="nothing counts the operations aten::linalg_matrix_exp"):
        count(Heavy(), img_size=8, masks={})


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_scan_of_a_small_vim_is_counted_whatever_its_backend(backend):
    """Hand count of vim_micro: 65 tokens of width 64, d_inner 128, state 8, rank 4, depth 4, two directions."""
    tokens, width, inner, state, rank = 65, 64, 128, 8, 4
    direction = tokens * inner * (4 + rank + 2 * state + rank) + tokens * inner * (9 * state + 2)
    layer = tokens * width * 2 * inner + tokens * inner * width + 2 * direction
    expected = 64 * 3 * 4 * 4 * width + 4 * layer + 10 * width
    assert macs(create_model("vim_micro", num_classes=10, scan_backend=backend), img_size=32)[0] == expected


def test_vim_tiny_costs_what_the_usual_table_says():
    costs = count(create_model("vim_tiny"), img_size=224, masks={})
    assert round(costs.macs / 1e9, 3) == 1.823
    assert round((costs.macs - costs.by_operator["selective_scan"]) / 1e9, 3) == 1.293


def test_mambavision_t_costs_what_the_usual_table_says():
    operators = count(create_model("mambavision_t"), img_size=224, masks={}).by_operator
    layers = sum(operators[name] for name in ("convolution", "linear", "conv1d_silu"))
    assert (round(layers / 1e9, 3), round(operators["scaled_dot_product_attention"] / 1e9, 3)) == (4.460, 0.104)


def test_a_zero_in_a_mixers_convolution_costs_nothing():
    model = create_model("vim_micro", num_classes=10)
    name = "layers.0.mixer.conv1d.weight"
    dense, sparse = macs(model, {name: half(model.get_parameter(name))}, img_size=32)
    assert dense - sparse == 65 * 128 * 4 // 2


def test_the_traced_copy_leaves_the_model_as_it_was():
    model = create_model("vim_micro", num_classes=10, scan_backend="reference").double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count(model, img_size=32, masks={})
    assert model.training and {mixer.scan_backend for mixer in model.modules() if hasattr(mixer, "scan_backend")} == {"reference"}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
