"""The formats that cells can be exported to, by name."""

import shutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from analysis.merge import AnalysisError, merge
from analysis.trackers.tracked import tracked_cells

FORMATS: Final[Mapping[str, tuple[str, str]]] = {  # name: (a module that must be installed, what pip calls it)
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"),
    "trackio": ("trackio", "trackio"),
    "every_eval_ever": ("json", ""),
}
FOLDER: Final = "exports"


def export(runs: Sequence[Path], out: Path, name: str) -> str:
    """Writes the cells of all run folders to `out/exports/<name>`, in place of what an export before has written there. Returns what to do with it.

    Raises AnalysisError if the format's library is missing, or if the folders hold no record.
    """
    module, package = FORMATS[name]
    if find_spec(module) is None:
        raise AnalysisError(f"--export {name} needs the package {package}: python -m pip install {package}")
    merged = merge(runs)
    folder = out / FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written: str = import_module(f"analysis.trackers.{name}").write(tracked_cells(merged.records, runs), folder)
    return written
