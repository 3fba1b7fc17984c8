"""What a launch writes to the run folder before it starts jobs, and the records there that do not belong to its plan."""

import sys
from collections.abc import Sequence

from harness.grid.read import Grid
from harness.plan.stages import StageGraph
from jobs.experiment.files import json_text, write_json, write_text, written_aside
from jobs.experiment.identity import result_settings
from jobs.experiment.index import RunIndex, cell_entry, stage_entry, write_index
from jobs.experiment.job import PlannedCell
from jobs.experiment.records import RecordError
from jobs.experiment.run_folder import CODE, CODE_DIFF, RunFolder
from jobs.worker.code_diff import code_diff
from jobs.worker.environment import code_version


def save_launch(grid: Grid, graph: StageGraph, run: RunFolder) -> None:
    """Writes the grid as launched, its plan, the index of the run folder, and the version of the code."""
    write_text(run.grid_path, grid.source)
    cells = {cell.id: {"stages": list(graph.paths[cell.id]), **cell.to_json()} for cell in grid.cells}
    write_text(run.plan_path, json_text({"grid": grid.name, "cells": cells}))  # in one line: indenting takes 10,000 cells 2 s
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
            aside.write_bytes(code_diff())
    else:  # that of a previous launch is not this one's
        (run.path / CODE_DIFF).unlink(missing_ok=True)


def warn_of_stale_records(run: RunFolder, cells: Sequence[PlannedCell]) -> None:
    """Warns of records that this grid would not produce today: those of cells that it no longer has, those made under other defaults, those that
    cannot be read.

    A cell keeps its id when only a default has changed: defaults are not part of the id.
    """
    ids = {planned.cell.id for planned in cells}
    others = sum(path.parent.name not in ids for path in run.record_paths())
    if others:
        held = f"{others} cells that are not in this grid, from a previous grid named {run.path.name}"
        print(f"warning: {run.path} also holds {held}; they stay in its leaderboard", file=sys.stderr)
    for planned in cells:
        try:
            record = run.record(planned.cell.id)
        except RecordError as error:
            print(f"warning: cell {planned.cell.id}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        if record is not None and result_settings(record.spec) != result_settings(planned.cell.to_json()):
            remedy = f"to run it again, remove {run.record_path(planned.cell.id)}"
            print(f"warning: cell {record.id} was run under other default settings; {remedy}", file=sys.stderr)
