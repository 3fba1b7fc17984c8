"""What is read from timm's source is what timm itself says."""

import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch

from models.timm_models import REFUSED, build_timm, timm_options
from models.timm_source import arguments, files, fixed, tags
from models.torchvision_shim import load_timm


def test_the_names_are_those_that_timm_lists() -> None:
    timm = load_timm()
    ours = {name for name in timm.list_models() if not name.startswith("vssm_bench")}
    assert set(files()) == ours


@pytest.mark.parametrize("name", ["resnet50", "vit_tiny_patch16_224", "deit3_small_patch16_224"])
def test_the_tags_are_those_of_the_published_weights(name: str) -> None:
    timm = load_timm()
    assert {f"{name}.{tag}" for tag in tags(name)} == {full for full in timm.list_models(f"{name}.*", include_tags=True) if full != name}


@pytest.mark.parametrize("name", ["timm/test_efficientnet", "timm/regnetx_002", "timm/mobilevit_xxs", "timm/swin_tiny_patch4_window7_224"])
def test_every_argument_is_one_of_the_networks_class(name: str) -> None:
    with torch.device("meta"):
        network = build_timm(name, timm_options(name)(), img_size=64, num_classes=3)
    signature = inspect.signature(type(network).__init__).parameters
    fields = {field for parameter in signature.values() for field in getattr(parameter.annotation, "__dataclass_fields__", ())}
    given = set(arguments(name.removeprefix("timm/")))
    assert given <= set(signature) | fields
    assert {"num_classes", "in_chans", "drop_rate", "drop_path_rate"} <= given


@pytest.mark.parametrize(
    ("name", "argument", "hint"),
    [
        ("resnet18", "layers", tuple[int, ...]),
        ("resnet18", "drop_path_rate", float),
        ("resnet18", "act_layer", str),
        ("deit_tiny_distilled_patch16_224", "embed_dim", int),  # of its base, in another file
        ("swin_tiny_patch4_window7_224", "window_size", int | tuple[int, int]),
        ("regnetx_002", "w0", int),  # of the dataclass that its class takes
    ],
)
def test_an_argument_has_timms_type(name: str, argument: str, hint: Any) -> None:
    assert arguments(name)[argument] == hint


def test_code_is_no_argument() -> None:
    assert not {"block", "self", "device", "dtype", "cfg"} & set(arguments("resnet18"))
    assert set(arguments("qwen3_vit_88m_enc")) == set()  # no classifier


def test_arguments_that_a_models_function_gives_itself_are_none() -> None:
    assert {"num_blocks", "embed_dim", "patch_size"} <= fixed("mixer_s32_224")
    assert not fixed("mixer_s32_224") & set(arguments("mixer_s32_224"))
    assert "layers" not in fixed("resnet18")


def test_nothing_of_it_imports_torch() -> None:
    code = "import sys; from models.timm_models import timm_options; timm_options('timm/resnet18'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_the_harness_owns_is_no_option() -> None:
    assert not set(REFUSED) & set(timm_options("timm/deit_tiny_patch16_224").__dataclass_fields__)
