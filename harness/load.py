"""A finished cell as a network that anybody can use: `load_cell`. It needs the cell's folder, or a copy of it, and no run folder.

from PIL import Image
from harness.load import load_cell
cell = load_cell("runs/quickstart/cells/3f2a8c11d0e5")
scores = cell.network(cell.preprocess(Image.open("seven.png")))
print(cell.class_names[scores.argmax()])
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.experiment.cell import Cell
from jobs.experiment.cell_config import CellConfig, ConfigError, cell_config, read_config
from jobs.experiment.files import sha256_of
from jobs.experiment.plugins import check_plugins
from jobs.experiment.records import RecordError, read_record
from jobs.experiment.run_folder import CONFIG, PLUGINS, RECORD, STRUCTURE, WEIGHTS
from jobs.experiment.specs import image_size
from models.plugins.content import PluginError
from models.plugins.loading import DIGITS, load_copy

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn


class LoadError(ValueError):
    """A cell cannot be loaded. The message names the file, and what to do."""


@dataclass(frozen=True, kw_only=True)
class LoadedCell:
    """A network, and what is needed to use it."""

    network: "nn.Module"  # in evaluation mode, on the CPU; images (b, 3, S, S) float32 -> logits (b, classes)
    config: CellConfig
    folder: Path

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes by their numbers; the numbers themselves where the data has no names."""
        return self.config.class_names or tuple(map(str, range(self.config.classes)))

    def preprocess(self, image: "Image") -> "Tensor":
        """An image of PIL's as the evaluation gave it to the network, (1, 3, S, S) float32: resized, cut and normalised in the same way."""
        from jobs.data.single_image import network_input

        return network_input(image, self.config.input.spec(), (self.config.input.mean, self.config.input.std))


def load_cell(path: Path | str, *, scan: str = "auto", plugin: Path | str | None = None, verify: bool = True) -> LoadedCell:
    """The network of a finished cell, pruned as it is.

    path: the cell's folder, a copy of it, or the model.safetensors in it.
    scan: the backend of the selective scan (`models.ssm.backends`); `reference` needs no kernel.
    plugin: the folder with the copy of the plug-in that the model is of, runs/<grid>/plugins/<sha256>. Its code is run.
    verify: False takes files whose content is not what the cell measured, such as weights that you trained further.
    Raises LoadError.
    """
    folder = folder_of(Path(path).expanduser())
    config = config_of(folder)
    check_files(folder, config, verify)
    load_plugin(folder, config, plugin)
    return LoadedCell(network=network_of(folder, config, scan), config=config, folder=folder)


def folder_of(path: Path) -> Path:
    """The folder of a cell, which has weights in it."""
    folder = path.parent if path.name == WEIGHTS else path
    if not folder.is_dir():
        raise LoadError(f"there is no folder {folder}: name the folder of a cell, runs/<grid>/cells/<id>, or a copy of it")
    if not (folder / WEIGHTS).exists():
        inside = sorted(entry.name for entry in folder.iterdir())[:8]
        held = f"it holds {', '.join(inside)}" if inside else "it is empty"
        raise LoadError(
            f"{folder} has no {WEIGHTS}, so it is not the folder of a finished cell ({held}): name runs/<grid>/cells/<id>, or a copy of it"
        )
    return folder


def config_of(folder: Path) -> CellConfig:
    """The config of a cell; of cells that are older than config.json, that which follows from the record."""
    try:
        return read_config(folder)
    except ConfigError as error:
        raise LoadError(str(error)) from error
    except FileNotFoundError:
        pass
    if not (folder / RECORD).exists():
        raise LoadError(f"{folder} has neither {CONFIG} nor {RECORD}, which say what network it is: copy one of them from the cell's folder too")
    try:
        return config_of_record(folder)
    except (RecordError, ValueError, KeyError) as error:
        raise LoadError(f"{folder} has no {CONFIG}, and its {RECORD} does not help: {error}") from error


def config_of_record(folder: Path) -> CellConfig:
    """The config that follows from a record and the saved weights; the names of the classes are not known."""
    from jobs.train.evaluation import classes_of

    record = read_record(folder / RECORD)
    cell = Cell.from_json(record.spec)
    classes = classes_of(cell.model, image_size(cell.data), folder / WEIGHTS)
    config = cell_config(cell, record, folder, classes=classes, names=None)
    files = config.files | ({WEIGHTS: record.weights_sha256} if record.weights_sha256 else {})
    return config.model_copy(update={"files": files})


def check_files(folder: Path, config: CellConfig, verify: bool) -> None:
    """Raises LoadError for a file that the network needs and that is missing, or is another than the cell's."""
    for name in (WEIGHTS, STRUCTURE):
        path, wanted = folder / name, config.files.get(name)
        if wanted is None:
            if path.exists():
                raise LoadError(f"{path} is not of this cell, whose network lost no part: remove it")
        elif not path.exists():
            raise LoadError(f"{path} is missing: it says which parts of the network are gone; copy it from the cell's folder too")
        elif verify and (content := sha256_of(path)) != wanted:
            mended = "copy it again, or say load_cell(..., verify=False) if you changed it"
            raise LoadError(f"{path} is not the file that the cell measured (SHA-256 {content[:12]}, recorded {wanted[:12]}): {mended}")


def load_plugin(folder: Path, config: CellConfig, plugin: Path | str | None) -> None:
    """Adds the rows of the plug-in that the model is of, if the caller named its copy; LoadError if they are not there."""
    model, wanted = config.model, config.model.plugin_sha256
    if plugin is not None and wanted is None:
        raise LoadError(f"{model.label} is a model of vssm-bench itself: leave out plugin")
    try:
        if plugin is not None and wanted is not None:
            load_copy(Path(plugin).expanduser(), wanted)
        model.spec()  # an installed plug-in loads itself when its model is looked up
        check_plugins({"model": model.model_dump(exclude_none=True)})
    except (PluginError, ValueError) as error:
        if wanted is None:
            raise LoadError(f"this version cannot build {model.label}: {error}") from error
        raise LoadError(f"{model.label} is of the plug-in {model.plugin}: {plugin_hint(folder, wanted)} ({error})") from error


def plugin_hint(folder: Path, sha256: str) -> str:
    """What to do about a plug-in that is not loaded: where its copy lies, if the cell still lies in its run folder."""
    copy = folder.absolute().parent.parent / PLUGINS / sha256[:DIGITS]
    where = str(copy) if copy.is_dir() else f"runs/<grid>/{PLUGINS}/{sha256[:DIGITS]}"
    lies = "its copy is" if copy.is_dir() else "the run folder that trained the cell has a copy,"
    return f"{lies} {where}; read that code, then say load_cell(..., plugin={where!r})"


def network_of(folder: Path, config: CellConfig, scan: str) -> "nn.Module":
    """The network with its weights, in evaluation mode on the CPU."""
    from safetensors import SafetensorError

    from jobs.train.evaluation import WeightsError, load_model

    try:
        return load_model(config.model.spec(), classes=config.classes, img_size=config.input.img_size, scan=scan, weights=folder / WEIGHTS)
    except (WeightsError, SafetensorError, KeyError) as error:
        raise LoadError(f"{folder / WEIGHTS} and {CONFIG} do not fit together; copy the whole folder of the cell again: {error}") from error
    except ValueError as error:
        raise LoadError(str(error)) from error
