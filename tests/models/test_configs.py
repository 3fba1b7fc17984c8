"""Options have bounds, and options that exclude each other are refused."""

import re
from dataclasses import asdict, fields
from itertools import combinations
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import torch

from models import configs
from models.configs import AttentionPoolConfig, ConvNeXtConfig, MambaOutConfig, MambaVisionConfig, S5Config, SWAConfig, VimConfig, ViTConfig
from models.registry import MODELS, OptionError, create_model, model_config
from models.typed import SettingsError, build

OPTIONS = [kind for kind in vars(configs).values() if isinstance(kind, type) and kind.__name__.endswith("Config")]


def bare_numbers(hint: Any) -> bool:
    """True if a field's type has a number without a bound."""
    if get_origin(hint) is Annotated:
        return False
    return hint in (int, float) or any(bare_numbers(inner) for inner in get_args(hint))


@pytest.mark.parametrize("options", OPTIONS)
def test_every_number_has_a_bound(options: type) -> None:
    hints = get_type_hints(options, include_extras=True)
    assert [name for name, hint in hints.items() if bare_numbers(hint)] == []


@pytest.mark.parametrize("name", MODELS)
def test_the_options_of_every_model_are_within_their_bounds(name: str) -> None:
    config = MODELS[name].config
    assert build(type(config), asdict(config)) == config
    config.check()


@pytest.mark.parametrize(
    ("options", "inside", "outside"),
    [
        (VimConfig, {"dim": 1, "d_conv": 4, "d_state": 256, "drop_path": 0.999}, {"dim": 0, "d_conv": 5, "d_state": 257, "drop_path": 1.0}),
        (VimConfig, {"d_conv": 2, "drop_path": 0.0, "stride": 1}, {"d_conv": 1, "drop_path": -0.001, "stride": 0}),
        (MambaVisionConfig, {"depths": [1, 1, 1, 1], "mlp_ratio": 0.001}, {"depths": [1, 1, 1, 0], "mlp_ratio": 0.0}),
        (S5Config, {"d_state": 2}, {"d_state": 3}),
        (S5Config, {"d_state": 2}, {"d_state": 0}),
        (SWAConfig, {"shift": 0}, {"shift": -1}),
    ],
)
def test_a_bound_holds_just_inside_and_just_outside_it(options: type, inside: dict[str, Any], outside: dict[str, Any]) -> None:
    build(options, inside)
    with pytest.raises(SettingsError) as caught:
        build(options, outside)
    assert [path for path, _ in caught.value.errors] == [(name,) for name in outside]


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (SWAConfig, {"window": 4}, "window must be odd, so that it has a middle; not 4"),
        (SWAConfig, {"window": 3, "shift": 2}, "shift must be at most window // 2 = 1"),
        (ConvNeXtConfig, {"kernel": 2}, "kernel must be odd"),
        (S5Config, {"d_state": 6, "blocks": 2}, "d_state must be a multiple of 2 * blocks = 4, not 6"),
    ],
)
def test_knobs_of_a_variant_that_do_not_go_together_are_refused(options: type, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build(options, given)
    ((path, said),) = caught.value.errors
    assert path == () and said.startswith(message)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (VimConfig(s4=configs.S4Config(), s5=S5Config()), "s4 and s5 both replace the selective scan: give only one"),
        (MambaVisionConfig(dim=15), "dim must be even"),
        (MambaVisionConfig(attention_pool=AttentionPoolConfig(heads=7)), "7 heads do not divide 640 channels"),
        (ViTConfig(heads=5), "5 heads do not divide 192 channels"),
    ],
)
def test_options_of_a_model_that_do_not_go_together_are_refused(config: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        config.check()
    assert str(caught.value).startswith(message)


def test_any_options_of_mambaout_go_together() -> None:
    MambaOutConfig(depths=(1, 1, 1, 1), dims=(1, 2, 3, 4)).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"s4": {}, "s5": {}}, "s4 and s5 both replace the selective scan"),
        ({"swa": {"window": 4}}, "window must be odd"),
        ({"swa": {"window": 3, "shift": 2}}, "shift must be at most window // 2 = 1"),
        ({"s5": {"d_state": 6, "blocks": 2}}, "d_state must be a multiple of 2 \\* blocks = 4, not 6"),
        ({"attention_pool": {"heads": 5}}, "5 heads do not divide"),
        ({"convnext": {"kernel": 4}}, "kernel must be odd"),
        ({"depths": [1, 1, 4]}, "depths"),
        ({"heads": [1, 2, 3, 8]}, "3 heads do not divide 64"),
        ({"dim": 15}, "dim must be even"),
        ({"mobilenet": {"kernel": 2}}, "mobilenet: kernel must be odd"),
        ({"pretrained_key": "model_ema"}, "pretrained_key 'model_ema' names weights in a checkpoint: give its path"),
    ],
)
def test_options_that_cannot_be_are_refused_by_the_registry_too(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model_config("mambavision_micro", options)  # before anything is built: the launcher reports it


VARIANTS = ("se", "mobilenet", "s4", "s5", "swa", "attention_pool", "convnext", "scan")
NARROW: dict[str, dict[str, Any]] = {  # a model of each family
    "vim_micro": {"dim": 8, "depth": 1},
    "mambavision_micro": {"dim": 8, "in_dim": 8, "depths": [1, 1, 2, 2]},
    "vmamba_micro": {"dim": 8, "depths": [1, 1, 1, 1]},
    "vssd_micro_32": {"dim": 8, "depths": [1, 1, 1, 1], "d_state": 4},
    "vit_micro": {},
    "mambaout_micro": {},
}


def test_every_family_has_a_model_in_the_product() -> None:
    assert {type(MODELS[name].config) for name in NARROW} == {type(entry.config) for entry in MODELS.values()}


@pytest.mark.parametrize("name", NARROW)
def test_every_variant_is_taken_or_refused_with_the_reason_and_all_that_are_taken_compose(name: str) -> None:
    config = type(MODELS[name].config)
    given: dict[str, Any] = dict.fromkeys(VARIANTS, True) | {"scan": ["h", "v", "w2_flip"], "s5": {"d_state": 4}}
    taken = [variant for variant in VARIANTS if variant not in config.refused]
    assert config.refused.keys() <= set(VARIANTS) and not config.refused.keys() & {field.name for field in fields(config)}
    for variant, reason in config.refused.items():
        with pytest.raises(OptionError, match=f"{variant}: {name} does not take this variant: {re.escape(reason)}"):
            model_config(name, {variant: given[variant]})
    for chosen in [*combinations(taken, 1), *combinations(taken, 2), tuple(part for part in taken if part != "s5")]:
        options = NARROW[name] | {variant: given[variant] for variant in chosen}
        if set(chosen) == {"s4", "s5"}:
            with pytest.raises(OptionError, match="give only one"):
                model_config(name, options)
            continue
        with torch.device("meta"):
            model = create_model(name, num_classes=10, **options)
        with torch.set_grad_enabled(len(chosen) > 2):
            scores = model(torch.empty(2, 3, 32, 32, device="meta"))
        assert scores.shape == (2, 10), chosen
        if len(chosen) > 2:  # all at once
            assert all(gradient is not None for gradient in torch.autograd.grad(scores.sum(), list(model.parameters()), allow_unused=True))


def test_defaults_are_those_of_the_smallest_published_size() -> None:
    assert MambaVisionConfig().depths == (1, 3, 8, 4)
