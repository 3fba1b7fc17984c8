"""The code keeps to the words of docs/glossary.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = [path for floor in ("harness", "jobs", "analysis", "models") for path in sorted((ROOT / floor).rglob("*.py"))]
# Names that say nothing of what they name, or that meant something in this project alone.
PRIVATE = {"cases", "earlier", "forest", "found", "frozen", "one", "order", "orders", "pack", "packs", "place", "places", "told"}
IMAGE_ORDER = ("jobs/data", "jobs/train")  # the order of an epoch's images is one


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every identifier that a file defines, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def test_names_are_the_fields_words() -> None:
    used = []
    for path in FILES:
        file = path.relative_to(ROOT)
        forbidden = PRIVATE - {"order"} if file.as_posix().startswith(IMAGE_ORDER) else PRIVATE
        used += [f"{file}:{line}: {name}" for line, name in names(ast.parse(path.read_text())) if name.strip("_").lower() in forbidden]
    assert not used, "\n".join(used)


def test_files_are_called_by_them_too() -> None:
    assert not [path for path in FILES if path.stem in PRIVATE or path.parent.name in PRIVATE]


def test_every_file_can_be_read_in_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): count for path in ROOT.glob("*/**/*.py") if tracked(path) and (count := len(path.read_text().splitlines())) > 400
    }
    assert not long


def tracked(path: Path) -> bool:
    """True for the project's own files."""
    return path.relative_to(ROOT).parts[0] in ("harness", "jobs", "analysis", "models", "tests", "benchmarks")
