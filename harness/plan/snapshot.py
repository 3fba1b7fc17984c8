"""What a launch writes to the run folder before it starts jobs, and the records there that do not belong to its plan."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.grid.read import Grid
from harness.plan.stages import StageGraph
from harness.text import counted
from jobs.experiment.cell import Cell
from jobs.experiment.files import json_text, write_json, write_text, written_aside
from jobs.experiment.identity import result_settings
from jobs.experiment.ids import CellId
from jobs.experiment.index import CellEntry, RunIndex, RunIndexError, cell_entry, read_index, stage_entry, write_index
from jobs.experiment.job import PlannedCell
from jobs.experiment.plugins import NAME, SHA256, digests_of
from jobs.experiment.records import RecordError
from jobs.experiment.run_folder import CODE, CODE_DIFF, RunFolder
from jobs.experiment.trials import StagePath
from jobs.worker.code_copy import code_id
from jobs.worker.code_diff import code_diff
from jobs.worker.environment import code_version
from models.plugins.loading import write_copy


def save_launch(grid: Grid, graph: StageGraph, run: RunFolder) -> None:
    """Writes the grid as launched, its plug-ins and its plan, the index of the run folder, and the version of the code."""
    save_plugins(grid, run)
    save_plan(grid, run, planned_specs(grid, graph), make_index(grid, graph))
    commit, dirty = code_version()
    write_json(run.path / CODE, {"commit": commit, "dirty": dirty, "code": code_id()})
    if dirty:
        with written_aside(run.path / CODE_DIFF) as aside:
            aside.write_bytes(code_diff())
    else:  # that of a previous launch is not this one's
        (run.path / CODE_DIFF).unlink(missing_ok=True)


def save_plugins(grid: Grid, run: RunFolder) -> None:
    """Writes a copy of each plug-in of the grid, from which its jobs load it."""
    for loaded in grid.plugins:
        write_copy(loaded, run.plugins_dir)


def edited_plugins(grid: Grid, run: RunFolder) -> list[str]:
    """Notes on the plug-ins whose content has changed since the latest launch, so that the cells that use them are new cells."""
    if not grid.plugins:
        return []
    before = {(part.get(NAME), part.get(SHA256)) for spec in saved_plan(run)[1].values() for part in spec.values() if isinstance(part, Mapping)}
    notes = []
    for plugin in [loaded.plugin for loaded in grid.plugins]:
        known = {sha256 for name, sha256 in before if name == plugin.name}
        if known and plugin.sha256 not in known:
            users = [cell.id for cell in grid.cells if plugin.sha256 in digests_of(cell.to_json())]
            change = f"it has changed since the previous launch, so its {counted(len(users), 'cell')} have new ids; records of its old content stay"
            notes.append(f"{plugin.name}: note: {change}")
    return notes


def cells_with_new_labels(grid: Grid, graph: StageGraph, run: RunFolder) -> frozenset[CellId]:
    """The cells of the grid whose labels are not those in the plan of the latest launch, or that it does not have."""
    index, planned = make_index(grid, graph), planned_specs(grid, graph)
    known, before = saved_plan(run)
    same = (cell for cell, entry in index.cells.items() if cell in known and cell in before)
    unchanged = {cell for cell in same if labels_of(planned[cell], index.cells[cell]) == labels_of(before[cell], known[cell])}
    return frozenset(index.cells.keys() - unchanged)


def refresh_labels(grid: Grid, graph: StageGraph, run: RunFolder) -> None:
    """Takes the grid's cells, with their labels, into the plan and the index of a run folder. For a launch that has nothing to run.

    Cells that a previous launch planned and this grid does not have stay in both, because their jobs may be running.
    """
    index, before = make_index(grid, graph), saved_plan(run)[1]
    try:
        known = read_index(run)
        index = replace(index, stages={**known.stages, **index.stages}, cells={**known.cells, **index.cells})
    except RunIndexError:
        pass
    save_plan(grid, run, {**before, **planned_specs(grid, graph)}, index)


def saved_plan(run: RunFolder) -> tuple[Mapping[CellId, CellEntry], Mapping[str, Any]]:
    """(the cells of the index, the specs in plan.json) of the latest launch; both are empty if either cannot be read."""
    try:
        specs: dict[str, Any] = json.loads(run.plan_path.read_bytes())["cells"]
        return read_index(run).cells, dict(specs)
    except (RunIndexError, OSError, ValueError, KeyError, TypeError):
        return {}, {}


def labels_of(spec: Mapping[str, Any], entry: CellEntry) -> tuple[object, object, str]:
    """The labels of a planned cell, and its title, which has the names of what has no label."""
    return spec["model"].get("label"), spec["pruning"].get("label"), entry.title


def planned_specs(grid: Grid, graph: StageGraph) -> dict[str, Any]:
    """The cells of plan.json: each with its stages and all settings, by id."""
    return {cell.id: {"stages": list(graph.paths[cell.id]), **cell.to_json()} for cell in grid.cells}


def make_index(grid: Grid, graph: StageGraph) -> RunIndex:
    """The index of a grid."""
    return RunIndex(
        grid=grid.name,
        file=str(grid.path),
        cluster=grid.cluster.kind,
        stages={stage: stage_entry(spec) for stage, spec in graph.stages.items()},
        cells={cell.id: cell_entry(cell, graph.paths[cell.id], paths_of(graph, cell.id)) for cell in grid.cells},
    )


def paths_of(graph: StageGraph, cell: CellId) -> tuple[StagePath, ...]:
    """The stages of each trial of a cell; none if it is not tuned."""
    return tuple(trial.stages for trial in graph.trials.get(cell, ()))


def save_plan(grid: Grid, run: RunFolder, cells: Mapping[str, Any], index: RunIndex) -> None:
    """Writes the grid as launched, its plan and its index."""
    write_text(run.grid_path, grid.source)
    write_text(run.plan_path, json_text({"grid": grid.name, "cells": cells}))  # in one line: indenting takes 10,000 cells 2 s
    write_index(run, index)


def warn_of_stale_records(run: RunFolder, cells: Sequence[PlannedCell], left_out: Iterable[Cell] = ()) -> None:
    """Warns of records that this grid would not produce today: those of cells that it no longer has, those made under other defaults, those that
    cannot be read.

    A cell keeps its id when only a default has changed: defaults are not part of the id. left_out: the cells of the grid that a budget leaves out.
    """
    ids = {planned.cell.id for planned in cells}.union(cell.id for cell in left_out)
    others = sum(path.parent.name not in ids for path in run.record_paths())
    if others:
        held = f"{counted(others, 'cell')} not in this grid, from a previous grid named {run.path.name}"
        print(f"warning: {run.path} also holds {held}; they stay in its leaderboard", file=sys.stderr)
    warn_of_new_ids(run, cells)
    for planned in cells:
        try:
            record = run.record(planned.cell.id)
        except RecordError as error:
            print(f"warning: cell {planned.cell.id}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        if record is not None and result_settings(record.spec) != result_settings(planned.cell.to_json()):
            remedy = f"to run it again, remove {run.record_path(planned.cell.id)}"
            print(f"warning: cell {record.id} was run under other default settings; {remedy}", file=sys.stderr)


def warn_of_new_ids(run: RunFolder, cells: Sequence[PlannedCell]) -> None:
    """Warns of records of version 0.1 whose ids hold the path of a pretrained file, if this grid has cells with such files."""
    ids = {planned.cell.id for planned in cells}
    if all(planned.cell.model.pretrained_sha256 is None for planned in cells):
        return
    by_path = sum(named_by_path(run, CellId(path.parent.name)) for path in run.record_paths() if path.parent.name not in ids)
    if by_path:
        held = f"{counted(by_path, 'cell')} with pretrained weights under ids of version 0.1, which held the file's path"
        print(f"warning: {run.path} has {held}; ids now hold its content, so these cells run again under new ids", file=sys.stderr)


def named_by_path(run: RunFolder, cell: CellId) -> bool:
    """True if the record of a cell can be read and names a pretrained file without a digest."""
    try:
        record = run.record(cell)
    except RecordError:
        return False
    model = record.spec.get("model") if record else None
    if not isinstance(model, Mapping) or not isinstance(model.get("options"), Mapping):
        return False
    return model["options"].get("pretrained") is not None and model.get("pretrained_sha256") is None
