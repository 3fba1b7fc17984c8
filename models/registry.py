"""Every model by name, and `create_model`, which makes it. No torch at import.

Models with official checkpoints, which load strictly unless an option changes names or shapes, are those of `models.published.PUBLISHED`.

Every other image classifier of timm is there too, as `timm/<name>` (`models.timm_models`).

A new model is an entry here. A new family also needs a dataclass of options in `models.configs` and a function that builds it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.configs import MambaOutConfig, MambaVisionConfig, VimConfig, ViTConfig, VMambaConfig, VSSDConfig
from models.plugins.installed import installed_names, load_installed_row
from models.text import valid_names
from models.timm_models import PREFIX, SIZE, TimmConfig, build_timm, is_timm, tag_problem, timm_options, timm_problem, timm_refused
from models.typed import SettingsError, build, fields_of

if TYPE_CHECKING:
    from torch import nn

Config = VimConfig | MambaVisionConfig | VMambaConfig | VSSDConfig | ViTConfig | MambaOutConfig | TimmConfig
Build = Callable[[Any, int, int, str], "nn.Module"]  # config, img_size in pixels, num_classes, scan_backend


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model: the function that builds it, its options, and its image size."""

    build: Build
    config: Config
    img_size: int = 224  # pixels; the default of create_model


class OptionError(ValueError):
    """Options that a model does not take. `errors`: (path of keys, message) for each of them."""

    def __init__(self, name: str, errors: list[tuple[tuple[str, ...], str]]) -> None:
        self.errors = errors
        super().__init__("\n".join(": ".join(filter(None, (f"model {name}", ".".join(path), message))) for path, message in errors))


def build_vim(config: VimConfig, img_size: int, num_classes: int, scan_backend: str) -> nn.Module:
    """A Vim."""
    from models.vim import Vim

    return Vim(config, img_size=img_size, num_classes=num_classes, scan_backend=scan_backend)


def build_mambavision(config: MambaVisionConfig, img_size: int, num_classes: int, scan_backend: str) -> nn.Module:
    """A MambaVision, which takes images of any size."""
    from models.mambavision import MambaVision

    return MambaVision(config, num_classes=num_classes, scan_backend=scan_backend)


def build_vmamba(config: VMambaConfig, img_size: int, num_classes: int, scan_backend: str) -> nn.Module:
    """A VMamba, which takes images of any size."""
    from models.vmamba import VMamba

    return VMamba(config, num_classes=num_classes, scan_backend=scan_backend)


def build_vssd(config: VSSDConfig, img_size: int, num_classes: int, scan_backend: str) -> nn.Module:
    """A VSSD, which takes images of any size and has no scan."""
    from models.vssd import VSSD

    return VSSD(config, num_classes=num_classes)


def build_vit(config: ViTConfig, img_size: int, num_classes: int, scan_backend: str) -> nn.Module:
    """timm's ViT, which has no scan."""
    from models import timm_controls

    return timm_controls.build_vit(config, img_size, num_classes)


def build_mambaout(config: MambaOutConfig, img_size: int, num_classes: int, scan_backend: str) -> nn.Module:
    """timm's MambaOut, which takes images of any size and has no scan."""
    from models import timm_controls

    return timm_controls.build_mambaout(config, num_classes)


MODELS: dict[str, ModelEntry] = {
    "vim_tiny": ModelEntry(build=build_vim, config=VimConfig()),
    "vim_tiny_stride8": ModelEntry(build=build_vim, config=VimConfig(stride=8)),
    "vim_small": ModelEntry(build=build_vim, config=VimConfig(dim=384, drop_path=0.05)),
    "vim_small_stride8": ModelEntry(build=build_vim, config=VimConfig(dim=384, stride=8, drop_path=0.05)),
    "vim_base": ModelEntry(build=build_vim, config=VimConfig(dim=768, drop_path=0.05)),
    "vim_micro": ModelEntry(build=build_vim, config=VimConfig(patch_size=4, dim=64, depth=4, d_state=8), img_size=32),
    "mambavision_t": ModelEntry(build=build_mambavision, config=MambaVisionConfig()),
    "mambavision_t2": ModelEntry(build=build_mambavision, config=MambaVisionConfig(depths=(1, 3, 11, 4))),
    "mambavision_s": ModelEntry(build=build_mambavision, config=MambaVisionConfig(dim=96, in_dim=64, depths=(3, 3, 7, 5))),
    "mambavision_b": ModelEntry(
        build=build_mambavision, config=MambaVisionConfig(dim=128, in_dim=64, depths=(3, 3, 10, 5), drop_path=0.3, layer_scale=1e-5)
    ),
    "mambavision_l": ModelEntry(
        build=build_mambavision,
        config=MambaVisionConfig(dim=196, in_dim=64, depths=(3, 3, 10, 5), heads=(4, 8, 16, 32), drop_path=0.3, layer_scale=1e-5),
    ),
    "mambavision_l2": ModelEntry(
        build=build_mambavision,
        config=MambaVisionConfig(dim=196, in_dim=64, depths=(3, 3, 12, 5), heads=(4, 8, 16, 32), drop_path=0.3, layer_scale=1e-5),
    ),
    "mambavision_micro": ModelEntry(
        build=build_mambavision,
        img_size=32,
        config=MambaVisionConfig(
            dim=16, in_dim=16, depths=(1, 1, 4, 2), heads=(1, 2, 4, 8), windows=(8, 8, 4, 2), stem_strides=(1, 2), drop_path=0.0
        ),
    ),
    "vmamba_tiny_s1l8": ModelEntry(build=build_vmamba, config=VMambaConfig()),
    "vmamba_tiny_s2l5": ModelEntry(build=build_vmamba, config=VMambaConfig(depths=(2, 2, 5, 2), expand=2)),
    "vmamba_small_s2l15": ModelEntry(build=build_vmamba, config=VMambaConfig(depths=(2, 2, 15, 2), expand=2, drop_path=0.3)),
    "vmamba_small_s1l20": ModelEntry(build=build_vmamba, config=VMambaConfig(depths=(2, 2, 20, 2), drop_path=0.3)),
    "vmamba_base_s2l15": ModelEntry(build=build_vmamba, config=VMambaConfig(dim=128, depths=(2, 2, 15, 2), expand=2, drop_path=0.6)),
    "vmamba_base_s1l20": ModelEntry(build=build_vmamba, config=VMambaConfig(dim=128, depths=(2, 2, 20, 2), drop_path=0.5)),
    "vmamba_micro": ModelEntry(build=build_vmamba, img_size=32, config=VMambaConfig(dim=32, depths=(1, 1, 2, 1), stem_strides=(1, 2), drop_path=0.0)),
    "vssd_micro": ModelEntry(build=build_vssd, config=VSSDConfig()),
    "vssd_tiny": ModelEntry(build=build_vssd, config=VSSDConfig(dim=64, depths=(2, 4, 8, 4), d_state=64, drop_path=0.2)),
    "vssd_small": ModelEntry(build=build_vssd, config=VSSDConfig(dim=64, depths=(3, 4, 21, 5), d_state=64, drop_path=0.4)),
    "vssd_base": ModelEntry(build=build_vssd, config=VSSDConfig(dim=96, depths=(3, 4, 21, 5), heads=(3, 6, 12, 24), d_state=64, drop_path=0.6)),
    "vssd_micro_32": ModelEntry(
        build=build_vssd,
        img_size=32,
        config=VSSDConfig(dim=32, depths=(1, 1, 2, 1), heads=(1, 2, 4, 8), stem_strides=(1, 2), d_state=16, drop_path=0.0),
    ),
    "vit_tiny": ModelEntry(build=build_vit, config=ViTConfig()),
    "vit_micro": ModelEntry(build=build_vit, config=ViTConfig(patch_size=4, dim=64, depth=4, heads=4), img_size=32),
    "mambaout_femto": ModelEntry(build=build_mambaout, config=MambaOutConfig()),
    "mambaout_kobe": ModelEntry(build=build_mambaout, config=MambaOutConfig(depths=(3, 3, 15, 3))),
    "mambaout_tiny": ModelEntry(build=build_mambaout, config=MambaOutConfig(dims=(96, 192, 384, 576))),
    "mambaout_small": ModelEntry(build=build_mambaout, config=MambaOutConfig(depths=(3, 4, 27, 3), dims=(96, 192, 384, 576))),
    "mambaout_base": ModelEntry(build=build_mambaout, config=MambaOutConfig(depths=(3, 4, 27, 3), dims=(128, 256, 512, 768))),
    "mambaout_micro": ModelEntry(build=build_mambaout, config=MambaOutConfig(depths=(1, 1, 2, 1), dims=(16, 32, 64, 96)), img_size=32),
}


def create_model(
    name: str,
    num_classes: int = 1000,
    img_size: int | None = None,
    pretrained: str | Path | None = None,
    *,
    pretrained_key: str | None = None,
    scan_backend: str = "auto",
    **options: Any,
) -> nn.Module:
    """The network, in training mode, freshly initialised or with an official checkpoint's weights.

    `img_size` in pixels; None: the entry's. `pretrained`: a file of torch.save or safetensors; `pretrained_key`: the weights in it, if it holds
    several. Names and shapes must match, but for a head of other classes and positions of another image size. ValueError: an unknown
    name, an unknown option, an impossible value, or a `pretrained` that cannot be read or does not fit. `models.pretrained` says what may differ.
    """
    entry, config = model_entry(name), model_config(name, options)
    model = entry.build(config, img_size or entry.img_size, num_classes, scan_backend)
    if pretrained is not None:
        from models.pretrained import load_pretrained

        load_pretrained(model, Path(pretrained), pretrained_key)
    return model


def model_problem(name: str) -> str | None:
    """Why there is no model of this name, with the nearest and the valid names; None if there is."""
    if is_timm(name):
        return timm_problem(name)
    if name in MODELS:
        return None
    if timm_problem(PREFIX + name) is None:
        return f"unknown model {name!r}; did you mean {PREFIX + name!r}?"
    return f"unknown model {name!r}{valid_names(name, dict.fromkeys([*MODELS, *installed_names('models')]))}, and {PREFIX}<a name of timm's>"


def model_entry(name: str) -> ModelEntry:
    """The entry of MODELS, or that of one of timm's models. ValueError names the nearest and all valid names."""
    if problem := model_problem(name):
        load_installed_row("models", name, problem)
    return timm_entry(name) if is_timm(name) else MODELS[name]


def timm_entry(name: str) -> ModelEntry:
    """The entry of a model of timm's, which has no scan."""

    def build(config: TimmConfig, img_size: int, num_classes: int, scan_backend: str) -> nn.Module:
        return build_timm(name, config, img_size, num_classes)

    return ModelEntry(build=build, config=timm_options(name)(), img_size=SIZE)


def model_options(name: str) -> type:
    """The dataclass of options that a model takes; `models.typed.build` makes it from a mapping."""
    return type(model_entry(name).config)


def model_config(name: str, options: Mapping[str, Any]) -> Config:
    """The entry's config, changed by `options`. A variant may be given as a mapping of its knobs, as true (its defaults) or as null (none).

    OptionError lists every unknown option, wrong type and impossible value.
    """
    default, refused = model_entry(name).config, refused_options(name)
    for key in options:
        if key in refused:
            raise OptionError(name, [((key,), refused[key])])
    try:
        given = build(type(default), options)
    except SettingsError as error:
        raise OptionError(name, error.errors) from None
    config = dataclasses.replace(default, **{key: getattr(given, key) for key in options})
    try:
        config.check()
    except ValueError as error:
        raise OptionError(name, [((), str(error))]) from None
    return config


def refused_options(name: str) -> Mapping[str, str]:
    """Options that a model does not take, and that others do, each with the reason and what to do."""
    if is_timm(name):
        return timm_refused(name)
    variants: Mapping[str, str] = getattr(model_entry(name).config, "refused", {})
    return {key: f"{name} does not take this variant: {reason}" for key, reason in variants.items()}


def weights_problem(name: str, options: Mapping[str, Any]) -> str | None:
    """Why a name stands for weights that are not given; None if it does not."""
    return tag_problem(name, options) if is_timm(name) else None


def drop_path_option(name: str) -> str | None:
    """The option that is a model's rate of stochastic depth; None if it has none."""
    names = ("drop_path_rate",) if is_timm(name) else ("drop_path",)
    return next((option for option in names if option in fields_of(model_options(name))), None)


def recorded_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a model by name, those at their default too; of timm's models those that are given, because timm has the defaults."""
    config = model_config(name, options)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {key: value for key, value in values.items() if value is not None} if is_timm(name) else values


def effective_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that differ from the entry's, as JSON values, without the knobs of variants at their defaults. Part of a cell's identity."""
    default, config = model_entry(name).config, model_config(name, options)
    pairs = ((field.name, getattr(config, field.name), getattr(default, field.name)) for field in dataclasses.fields(config))
    return {key: _changed(value) for key, value, preset in pairs if value != preset}


def model_label(name: str, options: Mapping[str, Any], file: str | None = None) -> str:
    """`vim_tiny(depth=12)`, `vim_micro+se`, `vim_micro+se(ratio=2)`: its name and changed options. Of a checkpoint, `file` or its name."""
    changed = effective_options(name, options)
    if "pretrained" in changed:
        changed["pretrained"] = file or Path(changed["pretrained"]).name
    plain = {key: value for key, value in changed.items() if not isinstance(value, dict)}
    variants = [f"+{key}{_knobs(value)}" for key, value in changed.items() if isinstance(value, dict)]
    return name + _knobs(plain) + "".join(variants)


def _changed(value: Any) -> Any:
    """An option as a JSON value; of a variant only the knobs that are not at their default."""
    if dataclasses.is_dataclass(value):
        return {f.name: _changed(getattr(value, f.name)) for f in dataclasses.fields(value) if getattr(value, f.name) != f.default}
    return list(value) if isinstance(value, tuple) else value


def _knobs(options: Mapping[str, Any]) -> str:
    return "(" + ",".join(f"{key}={_brief(value)}" for key, value in options.items()) + ")" if options else ""


def _brief(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)
