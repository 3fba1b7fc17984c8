"""Imports go down only: analysis, harness, jobs, models; and within harness and jobs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {"models": {"models"}, "jobs": {"jobs", "models"}, "harness": {"harness", "jobs", "models"}, "analysis": {"analysis", "harness"}}
ORDER = {
    "jobs": ["specs", "files", "scheduling", "parallel", "data", "measure", "train"],
    "harness": ["records", "grid", "plan", "run", "state", "submit"],
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_its_own_floor_and_those_below(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imported(path)} & set(MAY_IMPORT)
    assert ours <= MAY_IMPORT[floor]


@pytest.mark.parametrize("path", [path for path in FILES if path.relative_to(ROOT).parts[0] in ORDER], ids=lambda path: str(path.relative_to(ROOT)))
def test_within_a_floor_too_imports_go_down(path: Path) -> None:
    floor, part = path.relative_to(ROOT).with_suffix("").parts[:2]
    below = [*ORDER[floor], part]  # what is not named stands on all the others
    ours = {name.split(".")[1] for name in imported(path) if name.startswith(f"{floor}.")}
    assert ours <= set(below[: below.index(part) + 1])


@pytest.mark.parametrize("path", sorted((ROOT / "analysis").rglob("*.py")), ids=lambda path: path.name)
def test_analysis_knows_the_harness_by_its_records_alone(path: Path) -> None:
    assert {name for name in imported(path) if name.startswith("harness")} <= {"harness.records"}


@pytest.mark.parametrize(
    "module",
    ["harness.records", "harness.grid.read", "harness.plan.stages", "analysis.__main__", "models.registry", "models.pruning.registry", "jobs.specs"],
)
def test_the_login_node_needs_no_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# harness' own looks first whether this is the right Python, with nothing but Python's own modules
FACES = [path for path in FILES if path.name == "__init__.py" and path != ROOT / "harness" / "__init__.py"]


@pytest.mark.parametrize("path", FACES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_face_holds_a_docstring_at_most(path: Path) -> None:
    assert all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


def test_the_face_of_the_commands_imports_nothing_that_may_be_missing() -> None:
    nodes = ast.walk(ast.parse((ROOT / "harness" / "__init__.py").read_text()))
    imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports == ["import sys", "from importlib.util import find_spec"]
