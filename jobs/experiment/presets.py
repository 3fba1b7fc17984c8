"""Recipes of papers by name: the settings of their official code, each with the file that says so.

A preset stands for its values: `recipe: {preset: vim_tiny}` is the same grid, with the same ids, as one that spells the values out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.closed_pipe import ends_with_its_reader


@dataclass(frozen=True)
class Setting:
    """A value and where it comes from."""

    value: Any
    source: str  # owner/repository@commit:path, or owner/repository#issue
    note: str = ""  # how the value is read from there

    @property
    def url(self) -> str:
        """The source on GitHub."""
        if "#" in self.source:
            return "https://github.com/{}/issues/{}".format(*self.source.split("#"))
        repository, commit, path = re.split("[@:]", self.source)
        return f"https://github.com/{repository}/blob/{commit}/{path}"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The settings of a recipe, and those of its data, by the names of the fields of RecipeSpec and DataSpec."""

    recipe: Mapping[str, Setting]
    data: Mapping[str, Setting] = field(default_factory=dict)

    def recipe_values(self) -> dict[str, Any]:
        """The values of the recipe's fields."""
        return {name: setting.value for name, setting in self.recipe.items()}

    def data_values(self) -> dict[str, Any]:
        """The values of the data's fields."""
        return {name: setting.value for name, setting in self.data.items()}


_VIM, _MAMBAVISION = "hustvl/Vim@dd0358a:vim/", "NVlabs/MambaVision@7860a50:mambavision/"
_VMAMBA, _SWIN = "MzeroMiko/VMamba@2ed52ea:classification/", "microsoft/Swin-Transformer@f82860b:"
_TIMM = "huggingface/pytorch-image-models@{}:timm/"
_MARK = "the mark of A_log that forbids decay is not read"


def augmentation(source: str, jitter: float) -> dict[str, Setting]:
    """What all of them do to images and targets."""
    return {
        "label_smoothing": Setting(0.1, source),
        "auto_augment": Setting("rand-m9-mstd0.5-inc1", source),
        "color_jitter": Setting(jitter, source, "timm leaves it out beside RandAugment"),
        "random_erase": Setting(0.25, source),
        "random_erase_mode": Setting("pixel", source),
        "random_erase_count": Setting(1, source),
        "mixup": Setting(0.8, source),
        "cutmix": Setting(1.0, source),
        "mixup_prob": Setting(1.0, source),
        "mixup_switch_prob": Setting(0.5, source),
        "mixup_mode": Setting("batch", source),
    }


def images(source: str, eval_crop: Setting, interpolation: Setting) -> dict[str, Setting]:
    """Crops and flips of timm's create_transform, which all of them call. `source`: where it is called."""
    return {
        "augment": Setting("crop", source, "create_transform"),
        "crop_scale": Setting((0.08, 1.0), source, "the default of create_transform"),
        "flip": Setting(True, source, "the default of create_transform"),
        "eval_crop": eval_crop,
        "interpolation": interpolation,
    }


def vim(size: str, *, per_gpu: int, lr: float, weight_decay: float, drop_path: float, note: str = "") -> Preset:
    """Vim: the flags of the script for a size over the defaults of main.py. `lr`: before its scaling by batch / 512. `note`: on the script."""
    batch, script, main = 8 * per_gpu, f"{_VIM}scripts/pt-vim-{size}.sh", f"{_VIM}main.py"
    recipe = {
        "epochs": Setting(300, main, "the loop ends there; --cooldown-epochs is not trained"),
        "batch_size": Setting(batch, script, f"{note}8 GPUs x {per_gpu}"),
        "optimizer": Setting("adamw", main),
        "lr": Setting(lr * batch / 512, script, f"{note}{lr:g} x {batch} / 512"),
        "min_lr": Setting(1e-5, main),
        "lr_every": Setting("epoch", main, "lr_scheduler.step(epoch) after the epoch, so that rates come an epoch later"),
        "warmup_epochs": Setting(5.0, main),
        "warmup_lr": Setting(1e-6, main, "not scaled by batch / 512"),
        "warmup_prefix": Setting(False, _TIMM.format("v0.4.12") + "scheduler/scheduler_factory.py"),
        "cooldown_epochs": Setting(0, main),
        "weight_decay": Setting(weight_decay, script, note.rstrip(": ")),
        "decay_ssm": Setting(True, _TIMM.format("v0.4.12") + "optim/optim_factory.py", _MARK),
        "betas": Setting((0.9, 0.999), main, "torch's own"),
        "opt_eps": Setting(1e-8, main),
        "loss": Setting("cross_entropy", main, "SoftTargetCrossEntropy"),
        "drop_path": Setting(drop_path, script, note.rstrip(": ")),
        "clip_grad": Setting(None, main),
        "ema": Setting(0.99996, main),
        "ema_warmup": Setting("none", main, "timm's ModelEma"),
        "dtype": Setting("fp32", script, f"{note}--no_amp"),
        **augmentation(main, 0.3),
        "repeated_augment": Setting(3, f"{_VIM}samplers.py", "num_repeats"),
    }
    datasets = f"{_VIM}datasets.py"
    return Preset(recipe=recipe, data=images(datasets, Setting(0.875, main), Setting("bicubic", datasets)))


def mambavision(size: str, *, weight_decay: float, mesa: float, eval_crop: float, warmup: float = 20.0, mesa_start: float = 0.25) -> Preset:
    """MambaVision: the file of its size, and the settings that are equal in all six. Its drop_path is the model's own."""
    file, train = _MAMBAVISION + "configs/mambavision_{}_1k.yaml", f"{_MAMBAVISION}train.py"
    source, own = file.format("tiny"), file.format(size)
    recipe = {
        "epochs": Setting(320, source, "epochs 310 and cooldown_epochs 10, which its create_scheduler adds"),
        "batch_size": Setting(4096, "NVlabs/MambaVision#57", "over all GPUs"),
        "optimizer": Setting("lamb", source),
        "lr": Setting(5e-3, source),
        "min_lr": Setting(5e-6, source),
        "lr_every": Setting("step", train, "step_update before the step, so that rates come a step earlier"),
        "warmup_epochs": Setting(warmup, own),
        "warmup_lr": Setting(1e-6, source),
        "warmup_prefix": Setting(False, f"{_MAMBAVISION}scheduler/scheduler_factory.py"),
        "cooldown_epochs": Setting(10, source),
        "weight_decay": Setting(weight_decay, own),
        "decay_ssm": Setting(True, _TIMM.format("v1.0.15") + "optim/_param_groups.py", _MARK),
        "betas": Setting((0.9, 0.999), source),
        "opt_eps": Setting(1e-8, source),
        "loss": Setting("cross_entropy", train, "SoftTargetCrossEntropy"),
        "clip_grad": Setting(1.0, _TIMM.format("v1.0.15") + "optim/lamb.py", "its max_grad_norm, after the clip_grad of 5 in the configuration"),
        "clip_mode": Setting("norm", source),
        "ema": Setting(0.9998, source),
        "ema_warmup": Setting("none", train, "timm's ModelEmaV2"),
        "ema_buffers": Setting(True, train, "timm's ModelEmaV2"),
        "mesa": Setting(mesa, own),
        "mesa_start": Setting(mesa_start, own),
        "mesa_loss": Setting("kl", train, "kdloss"),
        "dtype": Setting("bf16", source, "amp, which is float16 there"),
        **augmentation(source, 0.4),
        "repeated_augment": Setting(1, source, "aug_repeats 0"),
    }
    evaluation = f"{_MAMBAVISION}models/mamba_vision.py"
    resampling = Setting("bicubic", evaluation, "default_cfgs; in training bilinear or bicubic by chance")
    return Preset(recipe=recipe, data=images(source, Setting(eval_crop, evaluation, "default_cfgs"), resampling))


def like_swin(folder: str, extra: Mapping[str, Setting]) -> Preset:
    """Swin, and VMamba, which took over its recipe. Rates are scaled by batch / 512."""
    source, main, build = f"{folder}config.py", f"{folder}main.py", f"{folder}data/build.py"
    recipe = {
        "epochs": Setting(300, source),
        "batch_size": Setting(1024, source, "8 GPUs x 128"),
        "optimizer": Setting("adamw", source),
        "lr": Setting(1e-3, source, "5e-4 x 1024 / 512"),
        "min_lr": Setting(1e-5, source, "5e-6 x 1024 / 512"),
        "lr_every": Setting("step", main, "step_update after the step with the number before it, so that rates come a step later"),
        "warmup_epochs": Setting(20.0, source),
        "warmup_lr": Setting(1e-6, source, "5e-7 x 1024 / 512"),
        "warmup_prefix": Setting(True, source),
        "cooldown_epochs": Setting(0, source),
        "weight_decay": Setting(0.05, source),
        "betas": Setting((0.9, 0.999), source),
        "opt_eps": Setting(1e-8, source),
        "loss": Setting("cross_entropy", main, "SoftTargetCrossEntropy"),
        "clip_grad": Setting(5.0, source),
        "clip_mode": Setting("norm", source),
        "dtype": Setting("bf16", source, "AMP_ENABLE, which is float16 there"),
        **augmentation(source, 0.4),
        "repeated_augment": Setting(1, build, "none"),
        **extra,
    }
    return Preset(recipe=recipe, data=images(build, Setting(0.875, build, "224 of 256"), Setting("bicubic", source)))


def sized(family: Preset, drop_path: float, source: str) -> Preset:
    """The family's preset with the stochastic depth of a size."""
    return Preset(recipe={**family.recipe, "drop_path": Setting(drop_path, source)}, data=family.data)


VMAMBA = like_swin(
    _VMAMBA,
    {
        "decay_ssm": Setting(True, f"{_VMAMBA}utils/optimizer.py", _MARK),
        "ema": Setting(0.9999, f"{_VMAMBA}main.py"),
        "ema_warmup": Setting("none", f"{_VMAMBA}main.py", "timm's ModelEma"),
    },
)
SWIN = like_swin(_SWIN, {"ema": Setting(None, f"{_SWIN}main.py", "none")})
_VMAMBA_SIZE, _SWIN_SIZE = _VMAMBA + "configs/vssm/vmambav2v_{}_224.yaml", _SWIN + "configs/swin/swin_{}_patch4_window7_224.yaml"
OF_S = "Vim-S, as there is none of Vim-B: "

PRESETS: Mapping[str, Preset] = {
    "vim_tiny": vim("t", per_gpu=128, lr=5e-4, weight_decay=0.1, drop_path=0.0),
    "vim_small": vim("s", per_gpu=64, lr=1e-3, weight_decay=0.05, drop_path=0.05),
    "vim_base": vim("s", per_gpu=64, lr=1e-3, weight_decay=0.05, drop_path=0.05, note=OF_S),
    "mambavision_t": mambavision("tiny", weight_decay=0.05, mesa=0.5, eval_crop=1.0),
    "mambavision_t2": mambavision("tiny2", weight_decay=0.05, mesa=0.75, eval_crop=0.98),
    "mambavision_s": mambavision("small", weight_decay=0.05, mesa=1.0, eval_crop=0.93),
    "mambavision_b": mambavision("base", weight_decay=0.075, mesa=1.0, eval_crop=1.0, warmup=35.0, mesa_start=0.3),
    "mambavision_l": mambavision("large", weight_decay=0.12, mesa=6.0, eval_crop=1.0),
    "mambavision_l2": mambavision("large2", weight_decay=0.12, mesa=6.0, eval_crop=1.0),
    "vmamba": VMAMBA,
    "vmamba_tiny": sized(VMAMBA, 0.2, _VMAMBA_SIZE.format("tiny")),
    "vmamba_small": sized(VMAMBA, 0.3, _VMAMBA_SIZE.format("small")),
    "vmamba_base": sized(VMAMBA, 0.5, _VMAMBA_SIZE.format("base")),
    "swin": SWIN,
    "swin_tiny": sized(SWIN, 0.2, _SWIN_SIZE.format("tiny")),
    "swin_small": sized(SWIN, 0.3, _SWIN_SIZE.format("small")),
    "swin_base": sized(SWIN, 0.5, _SWIN_SIZE.format("base")),
}


def table() -> list[str]:
    """The settings of all presets as lines of a Markdown table; presets that share a setting share its line."""
    sharing: dict[tuple[str, str, Setting], list[str]] = {}
    for name, preset in PRESETS.items():
        for part, settings in (("recipe", preset.recipe), ("data", preset.data)):
            for key, setting in settings.items():
                sharing.setdefault((f"{part}.{key}", shown(setting.value), setting), []).append(name)
    return [
        f"| {', '.join(names)} | `{key}` | `{value}` | [{re.split('[@#]', setting.source)[0]}]({setting.url}){setting.note and f': {setting.note}'} |"
        for (key, value, setting), names in sharing.items()
    ]


def shown(value: Any) -> str:
    """A value as YAML has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    ends_with_its_reader(print)("\n".join(table()))
