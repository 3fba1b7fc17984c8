"""MambaVision against the official code, and what each of its variants changes."""

import pytest
import torch
from torch import nn

from models.attention import WindowLayout
from models.convolution import LayerNorm2d
from models.mambavision import Level, SSMMixer
from models.registry import create_model
from tests.support.golden import GOLDEN, LIMITS, NAMES, filled, golden_distance, golden_images, on_meta


@pytest.mark.parametrize(
    ("name", "parameters", "at_100", "entries", "buffers"),
    [
        ("mambavision_t", 31_794_248, 31_217_348, 252, 3_755),
        ("mambavision_t2", 35_104_008, 34_527_108, 298, 3_755),
        ("mambavision_s", 50_140_584, 49_448_484, 285, 5_327),
        ("mambavision_b", 97_685_288, 96_762_788, 356, 7_055),
        ("mambavision_l", 227_961_048, 226_548_948, 356, 10_727),
        ("mambavision_l2", 241_554_824, 240_142_724, 389, 10_727),
    ],
)
def test_parameter_and_buffer_counts_are_the_official_integers(name: str, parameters: int, at_100: int, entries: int, buffers: int) -> None:
    model = on_meta(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(parameter.numel() for parameter in on_meta(name, num_classes=100).parameters()) == at_100
    assert (len(model.state_dict()), sum(buffer.numel() for buffer in model.buffers())) == (entries, buffers)


def test_state_dict_has_the_official_names_and_shapes() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in on_meta("mambavision_t").state_dict().items()}
    expected = {
        "patch_embed.conv_down.0.weight": (32, 3, 3, 3),
        "patch_embed.conv_down.1.running_mean": (32,),
        "patch_embed.conv_down.3.weight": (80, 32, 3, 3),
        "patch_embed.conv_down.4.bias": (80,),
        "levels.0.blocks.0.conv1.weight": (80, 80, 3, 3),
        "levels.1.blocks.2.conv2.bias": (160,),
        "levels.1.blocks.0.norm2.running_var": (160,),
        "levels.0.downsample.reduction.0.weight": (160, 80, 3, 3),
        "levels.2.downsample.reduction.0.weight": (640, 320, 3, 3),
        "levels.2.blocks.0.mixer.A_log": (160, 8),
        "levels.2.blocks.0.mixer.D": (160,),
        "levels.2.blocks.3.mixer.in_proj.weight": (320, 320),
        "levels.2.blocks.3.mixer.x_proj.weight": (36, 160),
        "levels.2.blocks.3.mixer.dt_proj.weight": (160, 20),
        "levels.2.blocks.3.mixer.dt_proj.bias": (160,),
        "levels.2.blocks.3.mixer.conv1d_x.weight": (160, 1, 3),
        "levels.2.blocks.3.mixer.conv1d_z.weight": (160, 1, 3),
        "levels.2.blocks.3.mixer.out_proj.weight": (320, 320),
        "levels.2.blocks.4.mixer.qkv.weight": (960, 320),
        "levels.2.blocks.4.mixer.proj.bias": (320,),
        "levels.3.blocks.1.mlp.fc1.weight": (2560, 640),
        "levels.3.blocks.1.norm1.weight": (640,),
        "norm.weight": (640,),
        "head.weight": (1000, 640),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert not any(name.endswith(("conv1d_x.bias", "conv1d_z.bias")) or "gamma" in name for name in shapes)
    assert {"levels.2.blocks.0.gamma_1", "levels.3.blocks.4.gamma_2"} <= set(on_meta("mambavision_b").state_dict())


def test_an_odd_depth_gives_the_state_space_the_extra_block() -> None:
    levels = on_meta("mambavision_t2").levels
    kinds = ["".join("M" if isinstance(block.mixer, SSMMixer) else "A" for block in level.blocks) for level in (levels[2], levels[3])]
    assert kinds == ["MMMMMMAAAAA", "MMAA"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_and_gradients_are_those_of_the_official_code(dtype: torch.dtype) -> None:
    model, expected = filled(create_model("mambavision_t").to(dtype)).eval(), GOLDEN["mambavision_t"][NAMES[dtype]]
    logits = model(golden_images(224).to(dtype))
    logits.square().mean().backward()
    assert golden_distance(logits.detach(), expected) < LIMITS[dtype]
    gradients = {name: float(parameter.grad.double().norm()) for name, parameter in model.named_parameters() if name in expected["grad"]}
    assert gradients == pytest.approx(expected["grad"], rel=LIMITS[dtype])


def test_initialisation_overwrites_that_of_delta() -> None:
    torch.manual_seed(0)
    mixer = create_model("mambavision_micro").levels[2].blocks[0].mixer
    assert not mixer.dt_proj.bias.any()
    assert float(mixer.in_proj.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert torch.equal(mixer.A_log, torch.arange(1.0, 9).log().repeat(32, 1))


def test_maps_that_are_no_multiple_of_a_window_are_padded_and_cut_back() -> None:
    level = Level([_Doubling()], None, window=4)
    x = torch.randn(2, 3, 6, 5)
    assert torch.equal(level(x), 2 * x)


class _Doubling(nn.Module):
    def forward(self, x: torch.Tensor, layout: WindowLayout) -> torch.Tensor:
        assert x.shape == (2 * 4, 16, 3)
        return 2 * x


VARIANTS: list[dict[str, object]] = [
    {"s4": {}},
    {"s4": {"init": "inv", "d_state": 8}},
    {"s5": {}},
    {"s5": {"blocks": 4}},
    {"swa": {"window": 3, "shift": 1}},
    {"attention_pool": {}},
    {"attention_pool": {"downsample": True}},
    {"convnext": {}},
    {"convnext": {"kernel": 7, "layer_norm": False}},
    {"se": {"ratio": 2}},
    {"mobilenet": {"expand": 2}},
    {"s5": {}, "swa": {"window": 3}, "attention_pool": {"downsample": True}, "convnext": {}, "se": {}, "mobilenet": {}},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "+".join(options))
def test_every_variant_takes_odd_images_and_trains_all_its_parameters(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = create_model("mambavision_micro", num_classes=10, **options)
    model(torch.randn(2, 3, 36, 30)).square().sum().backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["mambavision_t2", "mambavision_b", "mambavision_l2"])
@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "+".join(options))
def test_every_variant_composes_with_every_size(name: str, options: dict[str, object]) -> None:
    assert sum(parameter.numel() for parameter in on_meta(name, **options).parameters()) > 0


@pytest.mark.parametrize(
    ("flag", "holds"),
    [
        ("layer_norm", lambda m: not _any(m, nn.BatchNorm2d) and _any(m, LayerNorm2d)),
        ("patch_downsample", lambda m: [conv.kernel_size for conv in (level.downsample.reduction[0] for level in m.levels[:3])] == [(2, 2)] * 3),
        ("separable", lambda m: any(conv.groups == 160 for conv in m.levels[1].blocks[0].conv1.modules() if isinstance(conv, nn.Conv2d))),
        ("gelu", lambda m: not _any(m, nn.ReLU) and m.levels[0].blocks[0].act1.approximate == "none"),
        ("fewer_blocks", lambda m: [len(level.blocks) for level in m.levels] == [1, 2, 8, 4]),
    ],
)
def test_each_principle_of_convnext_is_a_flag(flag: str, holds: object) -> None:
    off = dict.fromkeys(("layer_norm", "patch_downsample", "separable", "gelu", "fewer_blocks"), False)
    assert not holds(on_meta("mambavision_t", convnext=off))
    assert holds(on_meta("mambavision_t", convnext=off | {flag: True}))


def _any(model: nn.Module, kind: type) -> bool:
    return any(isinstance(module, kind) for module in model.modules())


def test_convnext_without_its_flags_is_the_plain_model() -> None:
    off = dict.fromkeys(("layer_norm", "patch_downsample", "separable", "gelu", "fewer_blocks"), False)
    plain, styled = on_meta("mambavision_s"), on_meta("mambavision_s", convnext=off)
    assert {n: t.shape for n, t in plain.state_dict().items()} == {n: t.shape for n, t in styled.state_dict().items()}


@pytest.mark.parametrize("options", [{}, {"convnext": {}}, {"mobilenet": {}}], ids=lambda options: "+".join(options))
def test_rates_of_dropped_paths_rise_linearly_from_zero_over_all_levels(options: dict[str, object]) -> None:
    model = create_model("mambavision_micro", depths=[2, 2, 3, 2], drop_path=0.4, **options)
    rates = [block.drop_path.rate for level in model.levels for block in level.blocks]
    assert len(rates) == (7 if "convnext" in options else 9)
    assert rates == pytest.approx([0.4 * index / (len(rates) - 1) for index in range(len(rates))])


@pytest.mark.parametrize("options", [{}, {"mobilenet": {}}, {"layer_scale": 0.5}], ids=lambda options: "+".join(options))
def test_a_block_whose_paths_are_dropped_hands_its_input_on(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = create_model("mambavision_micro", drop_path=0.0, **options).train()
    same: list[bool] = []
    for level in model.levels:
        for block in level.blocks:
            block.drop_path.rate = 1.0 - 1e-12
            block.register_forward_hook(lambda _, inputs, output: same.append(torch.equal(inputs[0], output)))
    model(torch.randn(2, 3, 32, 32))
    assert same == [True] * 8
