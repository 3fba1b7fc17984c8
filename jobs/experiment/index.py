"""The index of a run folder: its stages and cells as the latest launch planned them, for status, logs and cancel.

It is read in milliseconds, without torch and without the models.

index.json     {"grid": name, "file": grid.yaml, "cluster": local | slurm | debug,
                "stages": {id: [kind, seed, epochs(, tuned values)]}, "cells": {id: [title, [stage, ...](, [[stage of a trial, ...], ...])]}}
forest.json    the index of version 0.1, which is still read: {"kind": local | slurm | debug, "stages": {id: [title, epochs]}, ...}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.experiment.files import json_text, parsed, written_aside
from jobs.experiment.ids import CellId, StageId
from jobs.experiment.output import printable
from jobs.experiment.run_folder import INDEX, INDEX_OF_0_1, RUNS, RunFolder
from jobs.experiment.trials import StagePath, required

if TYPE_CHECKING:  # they import the models, which a reader of an index does not need
    from jobs.experiment.cell import Cell
    from jobs.experiment.specs import StageSpec


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """A stage in the words of the grid."""

    kind: str  # 'vim_micro  train': the model and the stage's name; stages of one kind take equally long
    seed: int | None  # None: `kind` contains it, as in an index of version 0.1
    epochs: int
    tuned: str = ""  # the values of a trial, in words

    @property
    def title(self) -> str:
        """'vim_micro  train  seed 0'; of a trial 'vim_micro  train  lr 0.002  seed 0'."""
        named = f"{self.kind}  {self.tuned}" if self.tuned else self.kind
        return named if self.seed is None else f"{named}  seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class CellEntry:
    """A cell in the words of the grid, and its path."""

    title: str  # 'vim_micro  magnitude(0.9)  seed 0'
    stages: tuple[StageId, ...]  # first stage first
    trials: tuple[StagePath, ...] = ()  # of a tuned cell: the stages of each trial

    @property
    def required(self) -> tuple[StageId, ...]:
        """The stages without which the cell has no result."""
        return required(self.stages, self.trials)


@dataclass(frozen=True, kw_only=True)
class RunIndex:
    """Stages and cells by id."""

    grid: str
    file: str  # the grid's path as the user gave it to launch
    cluster: str  # kind: local, slurm, debug
    stages: Mapping[StageId, StageEntry]
    cells: Mapping[CellId, CellEntry]

    def launch_command(self, run: RunFolder) -> str:
        """The command that resumes this run."""
        return f"python -m harness.launch {self.file}" + ("" if run.path.parent == RUNS else f" --runs {run.path.parent}")


class RunIndexError(ValueError):
    """A run folder has no index that can be read; the message says what to do."""


def stage_entry(spec: "StageSpec") -> StageEntry:
    """The entry of a stage."""
    from models.pruning.registry import method_label

    method = f" {method_label(spec.stage.method)}" if spec.stage.method else ""
    return StageEntry(kind=f"{spec.model.label}  {spec.stage.name}{method}", seed=spec.seed, epochs=spec.stage.epochs, tuned=spec.tuned)


def cell_entry(cell: "Cell", stages: tuple[StageId, ...], trials: tuple[StagePath, ...] = ()) -> CellEntry:
    """The entry of a cell with its path of stages."""
    return CellEntry(title=f"{cell.model.label}  {cell.pruning}  seed {cell.seed}", stages=stages, trials=trials)


def write_index(run: RunFolder, index: RunIndex) -> None:
    """Writes the index whole or not at all, in one line: indentation takes seconds for 10,000 cells."""
    content = {
        "grid": index.grid,
        "file": index.file,
        "cluster": index.cluster,
        "stages": {name: [stage.kind, stage.seed, stage.epochs, *([stage.tuned] if stage.tuned else [])] for name, stage in index.stages.items()},
        "cells": {name: [cell.title, cell.stages, *([cell.trials] if cell.trials else [])] for name, cell in index.cells.items()},
    }
    with written_aside(run.path / INDEX) as aside:
        aside.write_text(json_text(content), encoding="utf-8")


def read_index(run: RunFolder) -> RunIndex:
    """The index that the latest launch left. Raises RunIndexError."""
    path = run.index_path()
    if path is None:
        raise RunIndexError(f"{run.path} has no {INDEX}: no grid was launched there. Launch one with: python -m harness.launch <grid.yaml>")
    try:
        content = parsed(path.read_bytes())
        return _of_0_1(content) if path.name == INDEX_OF_0_1 else _index(content)
    except OSError as error:
        raise RunIndexError(f"{path} cannot be read ({error.strerror}): make it readable, or launch the grid again to write it anew.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunIndexError(f"{path} is damaged ({error!r}). Launch the grid again to write it anew.") from error


def _index(content: Mapping[str, Any]) -> RunIndex:
    stages = {
        name: StageEntry(kind=printable(kind), seed=seed, epochs=epochs, tuned="".join(map(printable, tuned)))
        for name, (kind, seed, epochs, *tuned) in content["stages"].items()
    }
    return RunIndex(grid=content["grid"], file=content["file"], cluster=content["cluster"], stages=stages, cells=_cells(content))


def _of_0_1(content: Mapping[str, Any]) -> RunIndex:
    stages = {name: StageEntry(kind=printable(title), seed=None, epochs=epochs) for name, (title, epochs) in content["stages"].items()}
    return RunIndex(grid=content["grid"], file=content["file"], cluster=content["kind"], stages=stages, cells=_cells(content))


def _cells(content: Mapping[str, Any]) -> dict[CellId, CellEntry]:
    return {
        name: CellEntry(title=printable(title), stages=tuple(stages), trials=tuple(tuple(path) for paths in trials for path in paths))
        for name, (title, stages, *trials) in content["cells"].items()
    }
