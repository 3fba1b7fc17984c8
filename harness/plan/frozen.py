"""What a launch keeps of itself in the run folder, and what that folder holds of other launches."""

import errno
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.grid.read import Grid
from harness.plan.environment import code_version, git
from harness.plan.forest import write_forest
from harness.plan.orders import CellPath
from harness.plan.stages import Plan
from harness.records import RunFolder
from jobs.files import write_json, written_aside


def freeze(grid: Grid, plan: Plan, run: RunFolder) -> None:
    """Keeps the grid as launched, what it expands to, and the code that runs it."""
    with written_aside(run.path / "grid.yaml") as aside:
        aside.write_text(grid.source)
    cells = {cell.id: {"stages": list(plan.paths[cell.id]), **cell.to_json()} for cell in grid.cells}
    with written_aside(run.path / "plan.json") as aside:
        aside.write_text(json.dumps({"grid": grid.name, "cells": cells}))  # in one line: indenting takes 10,000 cells 2 s
    write_forest(run, grid, plan)
    commit, dirty = code_version()
    write_json(run.path / "code.json", {"commit": commit, "dirty": dirty})
    if dirty:
        with written_aside(run.path / "code.diff") as aside:
            aside.write_text(git("diff", "HEAD") or "")


def warn_of_strangers(run: RunFolder, paths: Sequence[CellPath]) -> None:
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


def unwritable(error: OSError, run: Path) -> str:
    """Why a run folder cannot be written, and what helps; the end of the sentence is left to the caller."""
    path = Path(error.filename or run)
    if error.errno not in (errno.EACCES, errno.EPERM):
        return f"cannot write {path}: {error.strerror}; free space there"
    denied = next((one for one in (path, *path.parents) if one.exists()), path)
    try:
        owner = denied.owner()
    except (KeyError, OSError):
        owner = "another user"
    remedy = f"ask them to say: chmod -R g+w {run}, and umask 002 before they launch"
    return f"cannot write {path}: {error.strerror}. {denied} belongs to {owner}; {remedy}"
