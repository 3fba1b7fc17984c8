"""A module's tests are where its path says."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("harness", "jobs", "analysis", "models")


def has_code(path: Path) -> bool:
    """True for a module that defines a function, or a class with methods: data alone needs no test of its own."""
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(ast.parse(path.read_text())))


MODULES = [
    path.relative_to(ROOT) for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py")) if path.name != "__init__.py" and has_code(path)
]


def test_a_module_has_its_tests() -> None:
    names = {module: {"__main__": "main"}.get(module.stem, module.stem) for module in MODULES}
    assert not [module for module, name in names.items() if not (ROOT / "tests" / module.parent / f"test_{name}.py").exists()]


def test_the_tests_of_a_module_that_is_gone_are_gone() -> None:
    stray = [
        test
        for floor in FLOORS
        for test in (ROOT / "tests" / floor).rglob("test_*.py")
        if not {test.stem.removeprefix("test_"), "__main__" if test.stem == "test_main" else ""}
        & {module.stem for module in (ROOT / test.relative_to(ROOT / "tests").parent).glob("*.py")}
    ]
    assert not stray
