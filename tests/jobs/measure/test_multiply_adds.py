from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models.ssm.conv
import models.ssm.cpu
import models.ssm.kernel
from jobs.measure.multiply_adds import count_multiply_adds
from models.flops import costs
from models.pruning.structure import find_groups, remove
from models.registry import MODELS, create_model
from models.ssm.kernel import KernelMissing
from tests.support.networks import Calls, Patches


def macs(model: nn.Module, masks: dict[str, Tensor] | None = None, img_size: int = 8) -> tuple[int, int]:
    costs = count_multiply_adds(model, img_size=img_size, masks=masks or {})
    return costs.macs, costs.macs_nonzero


def half(weight: Tensor) -> Tensor:
    """A mask that drops every second weight."""
    return (torch.arange(weight.numel()) % 2 == 0).view(weight.shape)


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


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: torch.einsum("blc,bkc->blk", x, x), 16 * 16 * 12),
        (lambda x: x @ x.transpose(1, 2), 16 * 16 * 12),
        (lambda x: torch.complex(x, x) @ torch.complex(x, x).transpose(1, 2), 4 * 16 * 16 * 12),
        (lambda x: torch.complex(x, x) * torch.complex(x, x), 4 * 16 * 12),
        (lambda x: torch.fft.rfft(x, n=32, dim=1), 12 * 1.25 * 32 * 5),
        (lambda x: torch.fft.irfft(torch.fft.rfft(x, n=32, dim=1), n=32, dim=1), 2 * 12 * 1.25 * 32 * 5),
        (lambda x: torch.exp(torch.complex(x, x)), 4 * 16 * 12),
        (lambda x: F.relu(torch.fft.rfft(x, n=8)[..., :5].real), 16 * 1.25 * 8 * 3),
    ],
)
def test_products_and_transforms_cost_what_their_formulas_say(function, expected):
    assert macs(Patches(Calls(function)))[0] == expected


@pytest.mark.parametrize("variant", ["se", "mobilenet", "swa", "s4", "s5", "attention_pool", "convnext"])
def test_every_variant_is_counted(variant):
    for name in ("mambavision_micro", "vim_micro") if variant in ("se", "mobilenet", "s4", "s5") else ("mambavision_micro",):
        costs = count_multiply_adds(create_model(name, num_classes=10, **{variant: {}}), img_size=32, masks={})
        assert costs.macs > 6_000_000 and costs.uncounted_share < 0.2


def test_a_weight_that_is_zero_costs_nothing():
    model = Patches(nn.Linear(12, 7))
    assert macs(model, {"body.weight": half(model.body.weight)}) == (1344, 672)


def test_the_density_is_that_of_the_weight_even_where_the_layer_is_never_called():
    model = Patches(ReadsItsWeight())
    assert macs(model, {"body.projection.weight": half(model.body.projection.weight)}) == (960, 480)


def test_attention_under_masks_is_not_discounted():
    model = Patches(Attention())
    dense, sparse = macs(model, {"body.qkv.weight": half(model.body.qkv.weight)})
    assert dense - sparse == 16 * 12 * 36 // 2


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_scan_of_a_small_vim_is_counted_whatever_its_backend(backend):
    """Hand count of vim_micro: 65 tokens of width 64, d_inner 128, state 8, rank 4, depth 4, two directions."""
    tokens, width, inner, state, rank = 65, 64, 128, 8, 4
    direction = tokens * inner * (4 + rank + 2 * state + rank) + tokens * inner * (9 * state + 2)
    layer = tokens * width * 2 * inner + tokens * inner * width + 2 * direction
    expected = 64 * 3 * 4 * 4 * width + 4 * layer + 10 * width
    assert macs(create_model("vim_micro", num_classes=10, scan_backend=backend), img_size=32)[0] == expected


def unfilled(name: str) -> nn.Module:
    """A registered model whose weights are all zero: what it costs does not depend on them, and drawing them takes longer than counting."""
    with torch.device("meta"):
        model = create_model(name)
    model = model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.zero_()
    return model


@pytest.mark.parametrize("name", [name for name in MODELS if "_micro" in name])
def test_of_the_smallest_models_less_than_a_fifth_goes_uncounted(name):
    assert count_multiply_adds(create_model(name, num_classes=10), img_size=32, masks={}).uncounted_share < 0.2


@pytest.mark.parametrize(("name", "projections", "width"), [("vim_tiny", 1.293, 192), ("vim_small", 4.851, 384), ("vim_base", 18.766, 768)])
def test_vim_costs_both_directions_and_nine_operations_a_state_of_each_scan(name, projections, width):
    operators = count_multiply_adds(unfilled(name), img_size=224, masks={}).by_operator
    scans = 24 * 2 * 197 * 2 * width * (9 * 16 + 2)  # the 2: skip and gate
    assert operators["selective_scan"] == scans
    assert sum(operators.values()) - scans == pytest.approx(1e9 * projections, rel=0.001)


@pytest.mark.parametrize(
    ("name", "layers", "attention"),
    [
        ("mambavision_t", 4.460, 0.105),
        ("mambavision_t2", 5.106, 0.129),
        ("mambavision_s", 7.482, 0.096),
        ("mambavision_b", 14.956, 0.207),
        ("mambavision_l", 34.843, 0.316),
        ("mambavision_l2", 37.503, 0.377),
    ],
)
def test_mambavision_costs_what_was_counted_on_the_official_code(name, layers, attention):
    operators = count_multiply_adds(unfilled(name), img_size=224, masks={}).by_operator
    assert sum(operators[name] for name in ("convolution", "linear", "conv1d_silu")) == pytest.approx(1e9 * layers, rel=0.001)
    assert operators["scaled_dot_product_attention"] == pytest.approx(1e9 * attention, rel=0.01)
    assert sum(operators.values()) == pytest.approx(1e9 * (layers + attention), rel=0.01)


@pytest.mark.parametrize("name", ["vim_micro", "mambavision_t", "vmamba_micro", "vssd_micro_32", "vit_micro", "mambaout_micro"])
def test_torchs_own_counter_agrees(name):
    model = create_model(name)
    size = MODELS[name].img_size
    ours, second = count_multiply_adds(model, img_size=size, masks={}), costs(deepcopy(model).to("meta"), size)
    assert ours.macs - ours.by_operator.get("selective_scan", 0) == second.macs


@pytest.mark.parametrize(
    ("name", "projections", "scans"),
    [("vmamba_tiny_s1l8", 4.813, 0.057), ("vmamba_tiny_s2l5", 4.716, 0.098), ("vssd_micro", 2.387, 0.0), ("vssd_tiny", 4.664, 0.0)],
)
def test_vmamba_and_vssd_cost_what_was_counted_by_hand(name, projections, scans):
    operators = count_multiply_adds(unfilled(name), img_size=224, masks={}).by_operator
    attention, scan = (operators.get(operator, 0) for operator in ("scaled_dot_product_attention", "selective_scan"))
    assert sum(operators.values()) - scan == pytest.approx(1e9 * projections, rel=0.001)
    assert scan == pytest.approx(1e9 * scans * 10 / 9, rel=0.02)  # 9 of N = 1 and 1 of the skip
    assert (attention > 0) == name.startswith("vssd")


def test_zeros_in_the_bare_projections_of_vmamba_cost_nothing():
    model = create_model("vmamba_micro", num_classes=10)
    for name, macs_of_it in (("x_proj_weight", 256 * 4 * 4 * 32), ("dt_projs_weight", 256 * 4 * 2 * 32)):
        weight = f"layers.0.blocks.0.op.{name}"
        dense, sparse = macs(model, {weight: half(model.get_parameter(weight))}, img_size=32)
        assert dense - sparse == macs_of_it // 2


def test_a_zero_in_a_mixers_convolution_costs_nothing():
    model = create_model("vim_micro", num_classes=10)
    name = "layers.0.mixer.conv1d.weight"
    dense, sparse = macs(model, {name: half(model.get_parameter(name))}, img_size=32)
    assert dense - sparse == 65 * 128 * 4 // 2


def test_the_traced_copy_leaves_the_model_as_it_was():
    model = create_model("vim_micro", num_classes=10, scan_backend="reference").double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_multiply_adds(model, img_size=32, masks={})
    assert model.training and {mixer.scan_backend for mixer in model.modules() if hasattr(mixer, "scan_backend")} == {"reference"}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "options"), [("vim_micro", {}), ("mambavision_micro", {}), ("vim_micro", {"s5": {}})])
def test_a_count_needs_no_library_and_computes_no_scan(monkeypatch, name, options):
    """A GPU's cell ended for want of the C++ scan, after all its training."""

    def gone(*_):
        raise KernelMissing

    network = create_model(name, 10, 32, **options)
    expected = count_multiply_adds(network, img_size=32, masks={})
    for module in (models.ssm.kernel, models.ssm.cpu, models.ssm.conv):
        monkeypatch.setattr(module, "load_kernel", gone)
    assert count_multiply_adds(network, img_size=32, masks={}) == expected
    with pytest.raises(KernelMissing):
        network(torch.zeros(1, 3, 32, 32))


def test_multiply_adds_are_those_of_the_narrower_architecture():
    smaller = create_model("vim_micro", 10, 32, dim=16, depth=2, d_state=4)
    groups = find_groups(smaller, 32)
    remove(smaller, groups, {group.name: list(range(group.count // 2)) for group in groups})
    narrower = create_model("vim_micro", 10, 32, dim=16, depth=2, d_state=2, expand=1)
    assert count_multiply_adds(smaller, img_size=32, masks={}).macs == count_multiply_adds(narrower, img_size=32, masks={}).macs


@pytest.mark.parametrize("options", [{"convnext": True, "se": True}, {"attention_pool": True, "swa": {"window": 3}, "s5": True}])
def test_smaller_variants_have_their_multiply_adds_counted(options):
    network = create_model("mambavision_micro", 10, 32, **{"dim": 8, "in_dim": 6, "depths": [1, 1, 2, 2]} | options)
    before = count_multiply_adds(network, img_size=32, masks={}).macs
    groups = find_groups(network, 32)
    remove(network, groups, {group.name: [0] for group in groups})
    assert count_multiply_adds(network, img_size=32, masks={}).macs < 0.7 * before
