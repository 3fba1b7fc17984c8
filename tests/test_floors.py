"""Imports go down only: analysis, harness, jobs, models; and from room to room within harness and jobs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {"models": {"models"}, "jobs": {"jobs", "models"}, "harness": {"harness", "jobs", "models"}, "analysis": {"analysis", "jobs"}}
ORDER = {
    "jobs": ["experiment", "cluster", "recovery", "parallel", "data", "measure", "train", "worker"],
    "harness": ["text", "grid", "schemas", "plan", "monitor", "submit", "cost", "review", "health", "load"],
}
FILES = [path for floor in MAY_IMPORT for path in sorted((ROOT / floor).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at the top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def test_a_file_imports_its_own_floor_and_those_below() -> None:
    for path in FILES:
        floor = path.relative_to(ROOT).parts[0]
        ours = {name.split(".")[0] for name in imported(path)} & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[floor], path


def test_within_a_floor_too_imports_go_down() -> None:
    for path in FILES:
        floor, part = path.relative_to(ROOT).with_suffix("").parts[:2]
        if floor in ORDER:
            below = [*ORDER[floor], part]  # commands stand on all the rooms
            ours = {name.split(".")[1] for name in imported(path) if name.startswith(f"{floor}.")}
            assert ours <= set(below[: below.index(part) + 1]), path


@pytest.mark.parametrize("floor", ORDER)
def test_every_room_of_a_floor_has_its_rank(floor: str) -> None:
    rooms = {path.parent.name for path in (ROOT / floor).glob("*/__init__.py")}
    assert rooms <= set(ORDER[floor])


def test_analysis_knows_of_a_run_what_its_folder_holds_and_no_more() -> None:
    for path in (ROOT / "analysis").rglob("*.py"):
        assert {name.rpartition(".")[0] for name in imported(path) if name.startswith("jobs")} <= {"jobs.experiment"}, path


@pytest.mark.parametrize(
    "module",
    [
        "jobs.experiment.records",
        "jobs.experiment.specs",
        "jobs.experiment.index",
        "jobs.experiment.run_folder",
        "harness.grid.read",
        "harness.plan.stages",
        "harness.status",
        "analysis.__main__",
        "models.registry",
        "models.pruning.registry",
    ],
)
def test_the_login_node_needs_no_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# harness' own looks first whether this is the right Python, with nothing but Python's own modules
FACES = [path for path in FILES if path.name == "__init__.py" and path != ROOT / "harness" / "__init__.py"]


def test_a_package_face_holds_a_docstring_at_most() -> None:
    for path in FACES:
        assert all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body), path


def test_the_face_of_the_commands_imports_nothing_that_may_be_missing() -> None:
    nodes = ast.walk(ast.parse((ROOT / "harness" / "__init__.py").read_text()))
    imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports == ["import sys", "from importlib.util import find_spec"]
