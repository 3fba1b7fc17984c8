"""Vim against the official code: integers, names, initialisation, logits and gradients."""

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models.layers import InvertedTokenPath
from models.registry import create_model
from models.ssm import cuda, triton_ops
from models.vim import BidirectionalMixer
from tests.support import upstream_kernels
from tests.support.golden import GOLDEN, LIMITS, NAMES, filled, golden_distance, golden_images, on_meta
from tests.support.triton_device import DEVICE, needs_triton


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("vim_tiny", 1000, 7_148_008),
        ("vim_tiny", 10, 6_956_938),
        ("vim_small", 1000, 25_796_584),
        ("vim_small", 10, 25_415_434),
        ("vim_base", 1000, 97_598_440),
        ("vim_base", 10, 96_837_130),
        ("vim_tiny_stride8", 1000, 7_250_344),
        ("vim_tiny_stride8", 10, 7_059_274),
        ("vim_small_stride8", 1000, 26_001_256),
        ("vim_small_stride8", 10, 25_620_106),
    ],
)
def test_parameter_counts_are_the_official_integers(name: str, classes: int, parameters: int) -> None:
    model = on_meta(name, num_classes=classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == 415


def test_state_dict_has_the_official_names_and_shapes() -> None:
    block = {
        "norm.weight": (192,),
        "mixer.A_log": (384, 16),
        "mixer.A_b_log": (384, 16),
        "mixer.D": (384,),
        "mixer.D_b": (384,),
        "mixer.in_proj.weight": (768, 192),
        "mixer.out_proj.weight": (192, 384),
        "mixer.conv1d.weight": (384, 1, 4),
        "mixer.conv1d.bias": (384,),
        "mixer.conv1d_b.weight": (384, 1, 4),
        "mixer.conv1d_b.bias": (384,),
        "mixer.x_proj.weight": (44, 384),
        "mixer.x_proj_b.weight": (44, 384),
        "mixer.dt_proj.weight": (384, 12),
        "mixer.dt_proj.bias": (384,),
        "mixer.dt_proj_b.weight": (384, 12),
        "mixer.dt_proj_b.bias": (384,),
    }
    expected = {
        "cls_token": (1, 1, 192),
        "pos_embed": (1, 197, 192),
        "patch_embed.proj.weight": (192, 3, 16, 16),
        "patch_embed.proj.bias": (192,),
        "head.weight": (1000, 192),
        "head.bias": (1000,),
        "norm_f.weight": (192,),
    }
    expected |= {f"layers.{i}.{name}": shape for i in range(24) for name, shape in block.items()}
    assert {name: tuple(tensor.shape) for name, tensor in on_meta("vim_tiny").state_dict().items()} == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("key", "options"),
    [("vim_tiny", {}), ("vim_tiny at 32 px: patch 4, stride 4, 10 classes", {"num_classes": 10, "img_size": 32, "patch_size": 4})],
)
def test_logits_and_gradients_are_those_of_the_official_code(key: str, options: dict[str, int], dtype: torch.dtype) -> None:
    model, expected = filled(create_model("vim_tiny", **options).to(dtype)), GOLDEN[key][NAMES[dtype]]
    logits = model(golden_images(options.get("img_size", 224)).to(dtype))
    logits.square().mean().backward()
    assert golden_distance(logits.detach(), expected) < LIMITS[dtype]
    gradients = {name: float(parameter.grad.double().norm()) for name, parameter in model.named_parameters() if name in expected["grad"]}
    assert gradients == pytest.approx(expected["grad"], rel=LIMITS[dtype])
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_initialisation_has_the_official_statistics() -> None:
    torch.manual_seed(0)
    model = create_model("vim_tiny", depth=6, num_classes=10)
    mixer = model.layers[1].mixer
    assert torch.equal(mixer.A_log, torch.arange(1.0, 17).log().repeat(384, 1)) and torch.equal(mixer.A_b_log, mixer.A_log)
    assert torch.equal(mixer.D, torch.ones(384)) and torch.equal(mixer.D_b, torch.ones(384))
    delta = torch.nn.functional.softplus(mixer.dt_proj.bias).detach()
    assert 1e-3 <= delta.min() * 1.001 and delta.max() <= 0.1001
    assert float(delta.log().mean()) == pytest.approx(math.log(1e-2), abs=0.25)  # log-uniform: the middle of [1e-3, 0.1] in logarithms
    assert not mixer.dt_proj_b.bias.any() and not model.head.bias.any() and not model.patch_embed.proj.bias.any()
    for weight, std in [
        (mixer.dt_proj.weight, 12**-0.5 / 3**0.5),
        (mixer.dt_proj_b.weight, 12**-0.5 / 3**0.5),
        (mixer.in_proj.weight, 192**-0.5 / 3**0.5),
        (mixer.out_proj.weight, 384**-0.5 / 3**0.5 / 6**0.5),
        (model.patch_embed.proj.weight, 768**-0.5),
        (model.pos_embed, 0.02),
    ]:
        assert float(weight.detach().std()) == pytest.approx(std, rel=0.05)


def test_the_class_token_in_the_middle_decides_the_output() -> None:
    model = create_model("vim_micro", num_classes=10, depth=1).eval()
    images = torch.randn(1, 3, 32, 32)
    before = model(images)
    with torch.no_grad():
        model.pos_embed[:, 32] += 1
        moved = (model(images) - before).abs().max()
        model.pos_embed[:, 32] -= 1
    assert moved > 1e-3
    assert model.pos_embed.shape[1] == 65


def test_both_directions_reach_the_class_token() -> None:
    model = create_model("vim_micro", num_classes=10, depth=1, patch_size=16).eval()  # 4 patches: 2 before the token, 2 behind
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    model(images).sum().backward()
    assert images.grad is not None
    assert all(images.grad[..., y : y + 16, x : x + 16].abs().max() > 0 for y in (0, 16) for x in (0, 16))


def test_backends_that_flip_agree_with_the_one_that_runs_backwards() -> None:
    torch.manual_seed(0)
    model, images = create_model("vim_micro", num_classes=10).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        want = model(images)
        for module in model.modules():
            for name in {"backend", "scan_backend"} & vars(module).keys():
                setattr(module, name, "reference")
        torch.testing.assert_close(model(images), want, rtol=1e-4, atol=1e-5)


@needs_triton
@pytest.mark.parametrize("options", [{}, {"mobilenet": {"kernel": 5}}, {"s4": {}}], ids=lambda options: "+".join(options) or "plain")
def test_triton_agrees_with_the_reference_forward_and_backward(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = create_model("vim_micro", num_classes=10, depth=2, patch_size=16, dim=24, **options).to(DEVICE)
    images, results = torch.randn(1, 3, 32, 32, device=DEVICE), []
    for backend in ("triton", "reference"):
        for module in model.modules():
            for name in {"backend", "scan_backend"} & vars(module).keys():
                setattr(module, name, backend)
        scores = model(images)
        results.append((scores, *torch.autograd.grad(scores.square().sum(), list(model.parameters()))))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-5)


@needs_triton
def test_triton_scans_both_directions_in_one_launch_and_copies_nothing_into_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("vim_micro", num_classes=10, depth=1, patch_size=16, dim=16, scan_backend="triton").to(DEVICE)
    images = torch.randn(1, 3, 32, 32, device=DEVICE)
    (mixer,) = (module for module in model.modules() if isinstance(module, BidirectionalMixer))
    seen: list[tuple[int, ...]] = []
    scan = triton_ops.scan_sides
    monkeypatch.setattr(triton_ops, "scan_sides", lambda u, *rest: seen.append(tuple(part.stride(1) for part in u)) or scan(u, *rest))
    hidden = torch.randn(1, 5, 16, device=DEVICE)
    mixer.out_proj.register_forward_pre_hook(lambda module, given: seen.append(given[0].stride()))
    with TransposingCopies() as copies:
        mixer(hidden)
    assert seen.pop() == (5 * 32, 32, 1)  # the sum of both, which would be copied before the product otherwise
    assert seen == [(1, 1)]  # one scan, of two sides whose channels lie beside each other
    assert copies.count == 0
    mixer.A_b_log = torch.nn.Parameter(mixer.A_b_log[:, :3])  # as after pruning the states of a direction
    mixer.x_proj_b = torch.nn.Linear(32, mixer.dt_proj_b.in_features + 6, bias=False, device=DEVICE)
    assert not mixer._scans_together(hidden, list(mixer.directions)) and model(images).isfinite().all()


@pytest.mark.parametrize("options", [{}, {"mobilenet": {"kernel": 5}}, {"s4": {}}], ids=lambda options: "+".join(options) or "plain")
def test_mamba_ssm_s_kernels_agree_and_get_sequences_as_they_read_them(monkeypatch: pytest.MonkeyPatch, options: dict[str, object]) -> None:
    """With stand-ins for the kernels."""
    upstream_kernels.install(monkeypatch)
    as_asked = {"cuda": "cuda", "reference": "reference"}
    for module in ("scan", "conv", "backends"):
        monkeypatch.setattr(f"models.ssm.{module}.resolve_backend", lambda tensor, backend: as_asked[backend])
    monkeypatch.setattr("models.vim.resolve_backend", lambda tensor, backend: as_asked[backend])
    monkeypatch.setattr("models.ssm.conv.is_installed", lambda backend: False)
    strides, sequence = [], cuda._sequence
    monkeypatch.setattr(cuda, "_sequence", lambda part, *rest: strides.append((part.shape[1], part.stride(-1))) or sequence(part, *rest))
    torch.manual_seed(0)
    model = create_model("vim_micro", num_classes=10, depth=2, patch_size=8, dim=24, **options)
    images, results = torch.randn(2, 3, 32, 32), []
    for backend in ("cuda", "reference"):
        for module in model.modules():
            for name in {"backend", "scan_backend"} & vars(module).keys():
                setattr(module, name, backend)
        scores = model(images)
        results.append((scores, *torch.autograd.grad(scores.square().sum(), list(model.parameters()))))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-5)
    channels = [stride for width, stride in strides if width == 48]  # of u, delta and z; B and C, of 1 group, are small
    assert len(channels) == (0 if "s4" in options else 2 * 2 * 3)
    assert options or set(channels) == {1}


class TransposingCopies(TorchDispatchMode):
    """Counts copies of a sequence, a tensor of three or more dimensions, into another memory layout."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation's result."""
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.clone.default, torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if func is torch.ops.aten.copy_.default else args[0]
            self.count += source.ndim >= 3 and source.stride() != result.stride()
        return result


def test_bf16_keeps_the_sum_of_branches_in_fp32() -> None:
    model = create_model("vim_micro", num_classes=10).bfloat16()
    hidden, residual = model.layers[0](torch.randn(2, 5, 64, dtype=torch.bfloat16), None)
    hidden, residual = model.layers[1](hidden, residual)
    assert (hidden.dtype, residual.dtype) == (torch.bfloat16, torch.float32)


def test_bf16_is_close_to_fp32() -> None:
    torch.manual_seed(0)
    model, images = create_model("vim_micro", num_classes=10).eval(), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        wide = model(images)
        narrow = model.bfloat16()(images.bfloat16())
    assert narrow.dtype == torch.bfloat16
    assert (narrow.float() - wide).norm() / wide.norm() < 0.05


def test_squeeze_and_excitation_scales_each_channel_of_the_branch() -> None:
    torch.manual_seed(0)
    plain, model = create_model("vim_micro"), create_model("vim_micro", se={"ratio": 4})
    assert sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters()) == 4 * (64 * 16 + 16 + 16 * 64 + 64)
    gate = model.layers[0].se
    x = torch.randn(2, 7, 64)
    ratio = gate(x) / x
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert (ratio > 0).all() and (ratio < 1).all()


def test_dropped_paths_leave_evaluation_alone() -> None:
    torch.manual_seed(0)
    model, images = create_model("vim_micro", drop_path=0.9), torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(model(images), model(images))
        model.eval()
        assert torch.equal(model(images), model(images))


def test_rates_of_dropped_paths_rise_from_zero_and_belong_to_the_branch_of_the_block_before() -> None:
    model = create_model("vim_micro", depth=5, drop_path=0.4)
    assert [layer.drop_path.rate for layer in model.layers] == pytest.approx([0, 0, 0.1, 0.2, 0.3])  # official: inter_dpr = [0.0] + dpr
    assert model.drop_path.rate == pytest.approx(0.4)
    assert create_model("vim_micro", depth=1, drop_path=0.4).layers[0].drop_path.rate == 0


@pytest.mark.parametrize("block", range(3))
def test_every_block_has_a_branch_that_can_be_dropped(block: int) -> None:
    torch.manual_seed(0)
    model = create_model("vim_micro", num_classes=10, depth=3, drop_path=0.0).train()
    [*(layer.drop_path for layer in model.layers), model.drop_path][block + 1].rate = 1.0 - 1e-12
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [bool(layer.mixer.out_proj.weight.grad.any()) for layer in model.layers] == [index != block for index in range(3)]


@pytest.mark.parametrize(("stride", "patches"), [(4, 49), (8, 16), (16, 4)])  # 49: an odd number
def test_the_class_token_stands_behind_half_of_the_patches_rounded_down(stride: int, patches: int) -> None:
    model = create_model("vim_micro", num_classes=10, depth=1, patch_size=8, stride=stride).eval()
    seen: list[torch.Tensor] = []
    model.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model.pos_embed.zero_()
        model.cls_token.fill_(7.0)
        model(torch.randn(2, 3, 32, 32))
    (tokens,) = seen
    assert tokens.shape[1] == patches + 1
    assert [index for index in range(patches + 1) if (tokens[:, index] == 7).all()] == [patches // 2]  # official: token_position = M // 2


@pytest.mark.parametrize(("stride", "patches"), [(4, 49), (8, 16)])
def test_the_class_scores_are_read_at_the_class_token(stride: int, patches: int) -> None:
    model = create_model("vim_micro", num_classes=10, depth=2, patch_size=8, stride=stride).eval()
    seen: list[torch.Tensor] = []
    model.layers[-1].register_forward_hook(lambda _, inputs, outputs: seen.append(outputs[0] + outputs[1]))
    with torch.no_grad():
        scores = model(torch.randn(2, 3, 32, 32))
        torch.testing.assert_close(scores, model.head(model.norm_f(seen[0][:, patches // 2])))


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="28x28 px, the model was made for img_size=32"):
        create_model("vim_micro")(torch.zeros(1, 3, 28, 28))
    with pytest.raises(ValueError, match="patch_size 64 is larger than the image, 32 px"):
        create_model("vim_micro", patch_size=64)


@pytest.mark.parametrize(
    "options",
    [{"s4": {}}, {"s5": {}}, {"mobilenet": {}}, {"se": {"ratio": 2}}, {"mobilenet": {"expand": 2, "kernel": 5}, "s4": {"init": "inv"}, "se": {}}],
    ids=lambda options: "+".join(options),
)
def test_every_variant_trains_all_its_parameters(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = create_model("vim_micro", num_classes=10, **options)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in on_meta("vim_small", **options).parameters()) > 0


def test_the_mobilenet_path_is_a_residual_around_a_causal_convolution() -> None:
    torch.manual_seed(0)
    path, x = InvertedTokenPath(6, expand=2, taps=3, backend="auto"), torch.randn(1, 8, 6)
    changed = x.clone()
    changed[:, 5] += 1
    assert torch.equal(path(changed)[:, :5], path(x)[:, :5])
    torch.testing.assert_close(path(x, reverse=True), path(x.flip(1)).flip(1))
    torch.nn.init.zeros_(path.narrow.weight)
    torch.testing.assert_close(path(x), torch.nn.functional.silu(x))
