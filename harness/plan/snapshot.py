"""What a launch writes to the run folder before it starts jobs, and the records there that do not belong to its plan."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from harness.grid.read import Grid
from harness.plan.stages import StageGraph
from jobs.experiment.files import write_json, written_aside
from jobs.experiment.identity import result_settings
from jobs.experiment.ids import CellId
from jobs.experiment.index import RunIndex, cell_entry, stage_entry, write_index
from jobs.experiment.job import PlannedCell
from jobs.experiment.run_folder import CODE, CODE_DIFF, RunFolder
from jobs.worker.environment import code_version, git


def save_launch(grid: Grid, graph: StageGraph, run: RunFolder) -> None:
    """Writes the grid as launched, its plan, the index of the run folder, and the version of the code."""
    with written_aside(run.grid_path) as aside:
        aside.write_text(grid.source)
    cells = {cell.id: {"stages": list(graph.paths[cell.id]), **cell.to_json()} for cell in grid.cells}
    with written_aside(run.plan_path) as aside:
        aside.write_text(json.dumps({"grid": grid.name, "cells": cells}))  # in one line: indenting takes 10,000 cells 2 s
    write_index(
        run,
        RunIndex(
            grid=grid.name,
            file=str(grid.path),
            cluster=grid.cluster.kind,
            stages={stage: stage_entry(spec) for stage, spec in graph.stages.items()},
            cells={cell.id: cell_entry(cell, graph.paths[cell.id]) for cell in grid.cells},
        ),
    )
    commit, dirty = code_version()
    write_json(run.path / CODE, {"commit": commit, "dirty": dirty})
    if dirty:
        with written_aside(run.path / CODE_DIFF) as aside:
            aside.write_text(git("diff", "HEAD") or "")


def warn_of_stale_records(run: RunFolder, cells: Sequence[PlannedCell]) -> None:
    """Warns of records that this grid would not produce today: those of cells that it no longer has, and those made under other defaults.

    A cell keeps its id when only a default has changed: defaults are not part of the id.
    """
    ids = {planned.cell.id for planned in cells}
    others = sum(path.parent.name not in ids for path in run.record_paths())
    if others:
        held = f"{others} cells that are not in this grid, from a previous grid named {run.path.name}"
        print(f"warning: {run.path} also holds {held}; they stay in its leaderboard", file=sys.stderr)
    warn_of_new_ids(run, cells)
    for planned in cells:
        record = run.record(planned.cell.id)
        if record is not None and result_settings(record.spec) != result_settings(planned.cell.to_json()):
            remedy = f"to run it again, remove {run.record_path(planned.cell.id)}"
            print(f"warning: cell {record.id} was run under other default settings; {remedy}", file=sys.stderr)


def warn_of_new_ids(run: RunFolder, cells: Sequence[PlannedCell]) -> None:
    """Warns of records of version 0.1 whose ids hold the path of a pretrained file, if this grid has cells with such files."""
    ids = {planned.cell.id for planned in cells}
    if all(planned.cell.model.pretrained_sha256 is None for planned in cells):
        return
    others = [record for path in run.record_paths() if path.parent.name not in ids and (record := run.record(CellId(path.parent.name)))]
    by_path = sum(named_by_path(record.spec) for record in others)
    if by_path:
        held = f"{by_path} cells with pretrained weights under ids of version 0.1, which held the file's path"
        print(f"warning: {run.path} has {held}; ids now hold its content, so these cells run again under new ids", file=sys.stderr)


def named_by_path(spec: Mapping[str, Any]) -> bool:
    """True if a cell's JSON form names a pretrained file without a digest."""
    model = spec.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("options"), Mapping):
        return False
    return model["options"].get("pretrained") is not None and model.get("pretrained_sha256") is None
