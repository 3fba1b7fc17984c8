"""The published figures: those of the official README files, for models that are there, in the table of the page."""

from pathlib import Path

from models.configs import MambaVisionConfig, VimConfig, VMambaConfig, VSSDConfig
from models.published import PUBLISHED
from models.registry import MODELS

# README.md of hustvl/Vim at dd0358a and of NVlabs/MambaVision at 7860a50, assets/performance.md of MzeroMiko/VMamba at 2ed52ea,
# README.md of YuHengsss/VSSD at 87b753b; crops: vim/main.py, default_cfgs, and 224 of 256 pixels in classification/data/build.py
FIGURES = {
    "vim_tiny": (76.1, 93.0, 0.875),
    "vim_tiny_stride8": (78.3, 94.2, 0.875),
    "vim_small": (80.5, 95.1, 0.875),
    "vim_small_stride8": (81.6, 95.4, 0.875),
    "vim_base": (81.9, 95.8, 0.875),
    "mambavision_t": (82.3, 96.2, 1.0),
    "mambavision_t2": (82.7, 96.3, 0.98),
    "mambavision_s": (83.3, 96.5, 0.93),
    "mambavision_b": (84.2, 96.9, 1.0),
    "mambavision_l": (85.0, 97.1, 1.0),
    "mambavision_l2": (85.3, 97.2, 1.0),
    "vmamba_tiny_s1l8": (82.6, None, 0.875),
    "vmamba_tiny_s2l5": (82.5, None, 0.875),
    "vmamba_small_s2l15": (83.6, None, 0.875),
    "vmamba_small_s1l20": (83.3, None, 0.875),
    "vmamba_base_s2l15": (83.9, None, 0.875),
    "vmamba_base_s1l20": (83.8, None, 0.875),
    "vssd_micro": (82.5, None, 0.875),
    "vssd_tiny": (83.6, None, 0.875),
    "vssd_small": (84.1, None, 0.875),
    "vssd_base": (84.7, None, 0.875),
}


def test_the_figures_are_those_of_the_official_pages() -> None:
    assert {name: (row.top1, row.top5, row.eval_crop) for name, row in PUBLISHED.items()} == FIGURES
    assert {(row.img_size, row.interpolation) for row in PUBLISHED.values()} == {(224, "bicubic")}


def test_every_full_size_of_an_official_family_has_them_and_nothing_else() -> None:
    official = VimConfig | MambaVisionConfig | VMambaConfig | VSSDConfig
    full = [name for name, entry in MODELS.items() if isinstance(entry.config, official) and entry.img_size == 224]
    assert list(PUBLISHED) == full


def test_weights_that_may_not_be_sold_say_so() -> None:
    assert all(("non-commercial" in row.licence) == name.startswith("mambavision") for name, row in PUBLISHED.items())


def test_the_page_has_every_figure() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    for name, row in PUBLISHED.items():
        assert f"| {name} | {row.top1} | {row.top5 or ''} | {row.eval_crop} | {row.interpolation} |" in page
