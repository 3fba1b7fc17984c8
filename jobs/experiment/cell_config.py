"""config.json of a cell's folder: what is needed to build its network again and to give it images, without a run folder. No torch.

It names neither hosts nor paths, so that a folder can be handed on. A field that a later version or another program has added is passed over; the
schema version says whether this version understands the rest.
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.experiment.cell import Cell
from jobs.experiment.files import sha256_of, well_formed
from jobs.experiment.ids import CellId
from jobs.experiment.records import Record
from jobs.experiment.run_folder import CONFIG, MASKS, STRUCTURE, WEIGHTS
from jobs.experiment.sources import SOURCES
from jobs.experiment.specs import PRETRAINED, DataSpec, ModelSpec, image_size
from models.registry import effective_options

SCHEMA: Final = 1
PROJECT: Final = "vssm-bench"


class ConfigError(ValueError):
    """A config.json cannot be used. The message names the file and the remedy."""


class Part(BaseModel):
    """A part of a config.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ModelPart(Part):
    """The network before its pruning."""

    name: str
    label: str
    options: dict[str, Any]  # all of them, those at their default too, but no file of weights
    plugin: str | None = None  # the plug-in that the model is of
    plugin_sha256: str | None = None

    def spec(self) -> ModelSpec:
        """The model. Raises ValueError for a name or an option that this version does not have."""
        return ModelSpec(name=self.name, label=self.label, options=effective_options(self.name, self.options))


class InputPart(Part):
    """How an image becomes the network's input, as the evaluation made it. The fields are those of a grid's `data`, but for mean and std."""

    img_size: int  # pixels
    interpolation: Literal["area", "bilinear", "bicubic"]
    eval_crop: float
    max_resolution: int | None
    mean: tuple[float, float, float]  # by channel, in units of white
    std: tuple[float, float, float]

    def spec(self) -> DataSpec:
        """Data settings that evaluate in this way."""
        return DataSpec(
            source="imagefolder",
            img_size=self.img_size,
            interpolation=self.interpolation,
            eval_crop=self.eval_crop,
            max_resolution=self.max_resolution,
        )


class CellConfig(Part):
    """The content of config.json."""

    schema_version: Literal[1] = SCHEMA
    library: str = PROJECT
    library_version: str | None  # None: it was not installed
    commit: str | None
    cell: CellId
    model: ModelPart
    pruning: str  # label
    seed: int
    input: InputPart
    classes: int
    class_names: tuple[str, ...] | None  # None: the source has none
    files: dict[str, str]  # the SHA-256 of each file of the network in the folder


def library_version() -> str | None:
    """The version of this package; None where it is not installed."""
    try:
        return version(PROJECT)
    except PackageNotFoundError:
        return None


def cell_config(cell: Cell, record: Record, folder: Path, *, classes: int, names: Sequence[str] | None) -> CellConfig:
    """The config of a finished cell whose files are in `folder`. `names`: of the classes, by their numbers."""
    model, data = cell.to_json()["model"], cell.data
    options = {name: value for name, value in model["options"].items() if name not in PRETRAINED}
    channels = SOURCES[data.source]
    present = [path for name in (WEIGHTS, MASKS, STRUCTURE) if (path := folder / name).exists()]
    return CellConfig(
        library_version=library_version(),
        commit=record.environment.commit,
        cell=record.id,
        model=ModelPart.model_validate({**model, "options": options}),
        pruning=record.pruning,
        seed=record.seed,
        input=InputPart(
            img_size=image_size(data),
            interpolation=data.interpolation,
            eval_crop=data.eval_crop,
            max_resolution=data.max_resolution,
            mean=channels.mean,
            std=channels.std,
        ),
        classes=classes,
        class_names=tuple(names) if names else None,
        files={path.name: sha256_of(path) for path in present},
    )


def read_config(folder: Path) -> CellConfig:
    """The config in a cell's folder. ConfigError if it cannot be read; FileNotFoundError if there is none."""
    path = folder / CONFIG
    try:
        return CellConfig.model_validate_json(well_formed(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        remedy = f"copy it again, or load it with the version of {PROJECT} that wrote it"
        raise ConfigError(f"{path} is no config of a cell that this version reads ({where}: {first['msg']}): {remedy}") from error
