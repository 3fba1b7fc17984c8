"""The forest of a run folder as it was launched, in the few words that status, logs and cancel need: read in milliseconds, without torch.

forest.json    {"grid": name, "file": grid.yaml, "kind": local | slurm | debug,
                "stages": {id: [title, epochs]}, "cells": {id: [title, [stage, ...]]}}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.records import RUNS, RunFolder
from jobs.files import written_aside
from jobs.specs import StageSpec
from models.pruning.registry import method_label

if TYPE_CHECKING:
    from harness.grid.read import Cell, Grid
    from harness.plan.stages import Plan

FILE = "forest.json"


@dataclass(frozen=True, kw_only=True)
class Forest:
    """Stages and cells by id."""

    grid: str
    file: str  # the grid's file as it was given to launch
    launch: str  # the command that goes on with it
    kind: str  # of its cluster: local, slurm, debug
    stages: Mapping[str, tuple[str, int]]  # title, epochs
    cells: Mapping[str, tuple[str, tuple[str, ...]]]  # title, stages that lead to it, first one first


class ForestError(ValueError):
    """There is no forest to read; the message says what to do."""


def stage_title(spec: StageSpec) -> str:
    """A stage in the words of the grid: 'vim_micro  train  seed 0'."""
    method = f" {method_label(spec.stage.method)}" if spec.stage.method else ""
    return f"{spec.model.label}  {spec.stage.name}{method}  seed {spec.seed}"


def cell_title(cell: "Cell") -> str:
    """A cell in the words of the grid: 'vim_micro  magnitude(0.9)  seed 0'."""
    return f"{cell.model.label}  {cell.pruning}  seed {cell.seed}"


def write_forest(run: RunFolder, grid: "Grid", plan: "Plan") -> None:
    """Keeps what a grid expands to."""
    told = {
        "grid": grid.name,
        "file": str(grid.path),
        "kind": grid.cluster.kind,
        "stages": {spec.id: [stage_title(spec), spec.stage.epochs] for spec in plan.stages.values()},
        "cells": {cell.id: [cell_title(cell), plan.paths[cell.id]] for cell in grid.cells},
    }
    with written_aside(run.path / FILE) as aside:
        aside.write_text(json.dumps(told))


def read_forest(run: RunFolder) -> Forest:
    """What the latest launch of a run folder expanded to. Raises ForestError."""
    path = run.path / FILE
    try:
        told = json.loads(path.read_bytes())
        stages = {stage: (title, epochs) for stage, (title, epochs) in told["stages"].items()}
        cells = {cell: (title, tuple(path)) for cell, (title, path) in told["cells"].items()}
        launch = f"python -m harness.launch {told['file']}" + ("" if run.path.parent == RUNS else f" --runs {run.path.parent}")
        return Forest(grid=told["grid"], file=told["file"], launch=launch, kind=told["kind"], stages=stages, cells=cells)
    except FileNotFoundError:
        raise ForestError(f"{run.path} holds no {FILE}: nothing was launched there; python -m harness.launch <grid.yaml> does") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ForestError(f"{path} is not what a launch writes ({error!r}); launch the grid again, which writes it anew") from error
