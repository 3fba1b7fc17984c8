"""What the authors of official checkpoints report on ImageNet-1k, and how they evaluate. No torch at import."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CLASSES = 1000
IMAGES = 50_000  # of ImageNet-1k's validation set, on which all figures were measured


@dataclass(frozen=True, kw_only=True)
class Published:
    """The figures of an official checkpoint, and the evaluation behind them."""

    top1: float  # percent
    top5: float | None = None  # percent; None: not published
    eval_crop: float  # fraction of the shorter side
    img_size: int = 224  # pixels
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"  # PIL's, with which images are resized
    source: str
    licence: str  # of the weights, as the source states it


# README.md for the figures; vim/datasets.py and the default of --eval-crop-ratio in vim/main.py for the evaluation
VIM = "github.com/hustvl/Vim, commit dd0358a"
APACHE = "Apache-2.0"
# README.md for figures and licences; default_cfgs in mambavision/models/mamba_vision.py for the evaluation
MAMBAVISION = "github.com/NVlabs/MambaVision, commit 7860a50"
NON_COMMERCIAL = "non-commercial: CC-BY-NC-SA-4.0; the code NVIDIA Source Code License-NC"
# assets/performance.md, which has no top-5; TEST.CROP and INTERPOLATION in classification/config.py: 224 of 256 pixels
VMAMBA = "github.com/MzeroMiko/VMamba, commit 2ed52ea"
MIT = "MIT"
# README.md, which has no top-5, of the plain weights, not of those trained with MESA; classification/data/build.py: 224 of 256 pixels
VSSD = "github.com/YuHengsss/VSSD, commit 87b753b"
NO_LICENCE = "none stated: ask the authors before you use them"

PUBLISHED: Mapping[str, Published] = {  # by the name of a model in `models.registry.MODELS`
    "vim_tiny": Published(top1=76.1, top5=93.0, eval_crop=0.875, source=VIM, licence=APACHE),
    "vim_tiny_stride8": Published(top1=78.3, top5=94.2, eval_crop=0.875, source=VIM, licence=APACHE),
    "vim_small": Published(top1=80.5, top5=95.1, eval_crop=0.875, source=VIM, licence=APACHE),
    "vim_small_stride8": Published(top1=81.6, top5=95.4, eval_crop=0.875, source=VIM, licence=APACHE),
    "vim_base": Published(top1=81.9, top5=95.8, eval_crop=0.875, source=VIM, licence=APACHE),
    "mambavision_t": Published(top1=82.3, top5=96.2, eval_crop=1.0, source=MAMBAVISION, licence=NON_COMMERCIAL),
    "mambavision_t2": Published(top1=82.7, top5=96.3, eval_crop=0.98, source=MAMBAVISION, licence=NON_COMMERCIAL),
    "mambavision_s": Published(top1=83.3, top5=96.5, eval_crop=0.93, source=MAMBAVISION, licence=NON_COMMERCIAL),
    "mambavision_b": Published(top1=84.2, top5=96.9, eval_crop=1.0, source=MAMBAVISION, licence=NON_COMMERCIAL),
    "mambavision_l": Published(top1=85.0, top5=97.1, eval_crop=1.0, source=MAMBAVISION, licence=NON_COMMERCIAL),
    "mambavision_l2": Published(top1=85.3, top5=97.2, eval_crop=1.0, source=MAMBAVISION, licence=NON_COMMERCIAL),
    "vmamba_tiny_s1l8": Published(top1=82.6, eval_crop=0.875, source=VMAMBA, licence=MIT),
    "vmamba_tiny_s2l5": Published(top1=82.5, eval_crop=0.875, source=VMAMBA, licence=MIT),
    "vmamba_small_s2l15": Published(top1=83.6, eval_crop=0.875, source=VMAMBA, licence=MIT),
    "vmamba_small_s1l20": Published(top1=83.3, eval_crop=0.875, source=VMAMBA, licence=MIT),
    "vmamba_base_s2l15": Published(top1=83.9, eval_crop=0.875, source=VMAMBA, licence=MIT),
    "vmamba_base_s1l20": Published(top1=83.8, eval_crop=0.875, source=VMAMBA, licence=MIT),
    "vssd_micro": Published(top1=82.5, eval_crop=0.875, source=VSSD, licence=NO_LICENCE),
    "vssd_tiny": Published(top1=83.6, eval_crop=0.875, source=VSSD, licence=NO_LICENCE),
    "vssd_small": Published(top1=84.1, eval_crop=0.875, source=VSSD, licence=NO_LICENCE),
    "vssd_base": Published(top1=84.7, eval_crop=0.875, source=VSSD, licence=NO_LICENCE),
}
