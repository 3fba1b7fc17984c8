"""timm's models by name: their options, their refusals, and networks that are timm's own."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.flops import costs
from models.registry import (
    OptionError,
    create_model,
    drop_path_option,
    effective_options,
    model_config,
    model_label,
    model_problem,
    refused_options,
    weights_problem,
)
from models.timm_models import check_logits, timm_problem
from models.torchvision_shim import load_timm, load_torchvision
from tests.support.timm_families import FAMILIES


@pytest.mark.parametrize(("name", "options"), list(FAMILIES.items())[:4])
def test_a_network_is_timms_with_these_arguments(name: str, options: dict[str, object]) -> None:
    timm = load_timm()
    torch.manual_seed(0)
    ours = create_model(name, 3, 64, **options)
    sized = {"img_size": 64} if name.startswith(("timm/deit", "timm/swin")) else {}
    torch.manual_seed(0)
    theirs = timm.create_model(name.removeprefix("timm/"), num_classes=3, **sized, **options)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnt18", "unknown model 'timm/resnt18'; did you mean 'timm/resnet"),
        ("timm/", "unknown model"),
        ("timm/vim_tiny", "unknown model"),
        ("timm/resnet18.a1_in2k", "unknown tag 'a1_in2k' of timm/resnet18; did you mean 'a1_in1k'"),
        ("timm/qwen3_vit_88m_enc", "is no image classifier"),
        ("resnet18", "did you mean 'timm/resnet18'"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_nearest(name: str, message: str) -> None:
    assert message in str(model_problem(name))
    with pytest.raises(ValueError, match="unknown|classifier"):
        create_model(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_path": 0.1}, "drop_path: timm's name of stochastic depth is drop_path_rate"),
        ({"num_classes": 3}, "num_classes: the number of classes is that of the data"),
        ({"drop_path_rat": 0.1}, "drop_path_rat: unknown field; did you mean 'drop_path_rate'"),
        ({"depth": "x"}, "depth: expected a whole number or null, got text 'x'"),
        ({"global_pool": "mean"}, "global_pool: unknown value 'mean'"),
        ({"pretrained_key": "ema"}, "pretrained_key 'ema' names weights in a checkpoint"),
    ],
)
def test_an_argument_that_is_none_is_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model_config("timm/deit_tiny_patch16_224", options)


def test_a_tag_needs_the_file_that_it_names() -> None:
    assert "the tag a1_in1k names weights, and nothing is downloaded here" in str(weights_problem("timm/resnet18.a1_in1k", {}))
    assert weights_problem("timm/resnet18.a1_in1k", {"pretrained": "file.pth"}) is None
    assert weights_problem("timm/resnet18", {}) is None


def test_a_network_that_cannot_be_built_says_with_what() -> None:
    with pytest.raises(ValueError, match=r"timm does not build it for images of 64 px with num_heads 5: "):
        create_model("timm/deit_tiny_patch16_224", 3, 64, num_heads=5)
    with pytest.raises(ValueError, match="timm does not build it for images of 64 px with depth 4, w0 8: AssertionError"):
        create_model("timm/regnetx_002", 3, 64, depth=4, w0=8)
    with pytest.raises(OptionError, match="timm/mixer_s32_224 sets num_blocks itself"):
        create_model("timm/mixer_s32_224", 3, 64, num_blocks=2)


def test_labels_and_identities_hold_what_is_given_and_no_more() -> None:
    options = {"drop_path_rate": 0, "layers": [1, 1, 1, 1], "drop_rate": None}
    assert effective_options("timm/resnet18", options) == {"layers": [1, 1, 1, 1], "drop_path_rate": 0.0}
    assert model_label("timm/resnet18", options) == "timm/resnet18(layers=1-1-1-1,drop_path_rate=0.0)"
    assert (drop_path_option("timm/resnet18"), drop_path_option("vim_tiny"), drop_path_option("timm/vgg11")) == ("drop_path_rate", "drop_path", None)


def test_networks_that_give_no_logits_are_refused() -> None:
    with torch.device("meta"):
        maps = create_model("timm/convnext_atto", 10, 64, global_pool="")
        small = create_model("timm/inception_v4", 10, 32)
    with pytest.raises(ValueError, match="gives an output of shape 1 x 2 x 2 x 10|gives an output of shape|does not run on images of 64 px"):
        check_logits(maps, 64, 10)
    with pytest.raises(ValueError, match="timm/inception_v4 does not run on images of 32 px"):
        check_logits(small, 32, 10)
    with torch.device("meta"):
        check_logits(create_model("timm/resnet18", 10, 64), 64, 10)


def test_a_file_of_timms_loads_strictly_with_a_head_of_other_classes(tmp_path: Path) -> None:
    timm = load_timm()
    theirs = timm.create_model("mobilenetv3_small_050", num_classes=7)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    ours = create_model("timm/mobilenetv3_small_050.lamb_in1k", 7, 32, tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in theirs.state_dict().items())
    other = create_model("timm/mobilenetv3_small_050", 3, 32, tmp_path / "model.safetensors")
    assert torch.equal(other.state_dict()["conv_stem.weight"], theirs.state_dict()["conv_stem.weight"])
    with pytest.raises(ValueError, match="does not fit the model: missing conv1.weight"):
        create_model("timm/resnet18", 7, 32, tmp_path / "model.safetensors")
    bare = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("classifier")}
    save_file(bare, tmp_path / "bare.safetensors")
    create_model("timm/mobilenetv3_small_050", 7, 32, tmp_path / "bare.safetensors")


def test_reasons_come_before_anything_is_built() -> None:
    assert timm_problem("timm/resnet18") is None
    assert refused_options("vssd_micro")["s4"].startswith("vssd_micro does not take this variant: it has no scan")


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("timm/resnet50", "ResNet50_Weights"),
        ("timm/vit_base_patch16_224", "ViT_B_16_Weights"),
        ("timm/swin_tiny_patch4_window7_224", "Swin_T_Weights"),
        ("timm/convnext_tiny", "ConvNeXt_Tiny_Weights"),
        ("timm/efficientnet_b0", "EfficientNet_B0_Weights"),
        ("timm/regnety_004", "RegNet_Y_400MF_Weights"),
    ],
)
def test_parameters_and_multiply_adds_are_those_that_torchvision_publishes_of_its_own(name: str, weights: str) -> None:
    published = getattr(load_torchvision().models, weights).IMAGENET1K_V1.meta
    with torch.device("meta"):
        counted = costs(create_model(name), 224)
    assert counted.parameters == published["num_params"]
    assert counted.macs / 1e9 == pytest.approx(published["_ops"], abs=6e-4)


def test_the_mixer_has_the_multiply_adds_of_its_formula() -> None:
    tokens, channels, blocks = 14 * 14, 768, 12
    mixing = 2 * channels * tokens * 384 + 2 * tokens * channels * 3072
    with torch.device("meta"):
        counted = costs(create_model("timm/mixer_b16_224"), 224)
    assert counted.macs == tokens * 3 * 16 * 16 * channels + blocks * mixing + channels * 1000
