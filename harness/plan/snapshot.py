"""What a launch keeps of itself in the run folder, and what that folder holds of other launches."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from harness.grid.read import Grid
from harness.plan.stages import StageGraph
from jobs.experiment.files import write_json, written_aside
from jobs.experiment.index import RunIndex, cell_entry, stage_entry, write_index
from jobs.experiment.job import PlannedCell
from jobs.experiment.run_folder import CODE, CODE_DIFF, GRID, PLAN, RunFolder
from jobs.worker.environment import code_version, git


def save_launch(grid: Grid, plan: StageGraph, run: RunFolder) -> None:
    """Keeps the grid as launched, what it expands to, and the code that runs it."""
    with written_aside(run.path / GRID) as aside:
        aside.write_text(grid.source)
    cells = {cell.id: {"stages": list(plan.paths[cell.id]), **cell.to_json()} for cell in grid.cells}
    with written_aside(run.path / PLAN) as aside:
        aside.write_text(json.dumps({"grid": grid.name, "cells": cells}))  # in one line: indenting takes 10,000 cells 2 s
    write_index(
        run,
        RunIndex(
            grid=grid.name,
            file=str(grid.path),
            cluster=grid.cluster.kind,
            stages={stage: stage_entry(spec) for stage, spec in plan.stages.items()},
            cells={cell.id: cell_entry(cell, plan.paths[cell.id]) for cell in grid.cells},
        ),
    )
    commit, dirty = code_version()
    write_json(run.path / CODE, {"commit": commit, "dirty": dirty})
    if dirty:
        with written_aside(run.path / CODE_DIFF) as aside:
            aside.write_text(git("diff", "HEAD") or "")


def warn_of_strangers(run: RunFolder, paths: Sequence[PlannedCell]) -> None:
    """Names what the run folder holds that this grid would not make today: cells of an earlier grid of its name, and cells of other defaults.

    The latter have the same id because they differ in a default alone.
    """
    ours = {path.cell.id for path in paths}
    others = sum(path.parent.name not in ours for path in run.path.glob("cells/*/record.json"))
    if others:
        what = f"{others} cells of an earlier grid called {run.path.name}"
        print(f"warning: {run.path} also holds {what}; they stay, and stand in its leaderboard", file=sys.stderr)
    for path in paths:
        record = run.record(path.cell.id)
        if record is not None and settings(record.spec) != settings(path.cell.to_json()):
            remedy = f"remove {run.record_path(record.id)} to run it again"
            print(f"warning: cell {record.id} was run when defaults were others; {remedy}", file=sys.stderr)


def settings(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides a result of a cell's JSON form: all but labels and the places of files."""
    data = {key: value for key, value in spec["data"].items() if key not in ("path", "test_path")}
    return spec["model"]["options"], spec["pruning"]["knobs"], data, spec["recipe"]
