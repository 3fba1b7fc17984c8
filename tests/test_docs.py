"""README and the pages of docs/ show what is there: links, paths, names, commands, tables and samples."""

import ast
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from harness.grid.read import GridError, read_grid
from harness.plan.preflight import model_problems
from harness.schemas.__main__ import SCHEMAS
from harness.schemas.__main__ import text as schema_text
from jobs.experiment import run_folder
from jobs.experiment.sources import SOURCES
from jobs.experiment.specs import ClusterSpec, DataSpec, RecipeSpec
from models import configs, registry
from models.__main__ import entries, row
from models.pruning.base import Budget, NetworkView
from models.pruning.knobs import Gradual, Scoped
from models.pruning.registry import METHODS
from models.pruning.scope import DENSE_BY_DEFAULT, GROUPS
from models.pruning.units import KINDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("[!.]*/README.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md"]
SAMPLES = {"models/pruning/relative.py", "models/tiny_cnn.py", "__init__.py", "my_models.py", "my_methods.py", "my_data.py"}  # that a reader writes
FLOORS = "analysis|benchmarks|harness|jobs|models"
PATH = re.compile(rf"(?<![\w/.~-])((?:{FLOORS}|docs|slurm|tests|\.ci)/[\w./-]*|\w[\w./-]*\.(?:py|sh|yaml|cff|cfg)\b)")
COMMAND = re.compile(r"python -m ([\w.]+)([^`\n|#;&]*)")
FAMILIES = {
    "Vim": configs.VimConfig,
    "MambaVision": configs.MambaVisionConfig,
    "VMamba": configs.VMambaConfig,
    "VSSD": configs.VSSDConfig,
    "ViT": configs.ViTConfig,
    "MambaOut": configs.MambaOutConfig,
}
all_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text(name: str) -> str:
    """A page."""
    return (ROOT / name).read_text()


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text(name), re.S | re.M)


def section(name: str, heading: str) -> str:
    """A page's part under a heading."""
    return text(name).partition(f"# {heading}\n")[2].partition("\n## ")[0]


def rows(part: str) -> dict[str, list[str]]:
    """The lines of a part's tables by their first cell, which is code."""
    cells = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in part.splitlines() if line.startswith("| `"))
    return {first.strip("`"): rest for first, *rest in cells}


def value(code: str) -> Any:
    """The value that a table shows as YAML in backticks."""
    return yaml.safe_load(code.strip("`"))


def default(field: Any) -> Any:
    """A field's default as YAML has it."""
    given = field.default if field.default_factory is MISSING else field.default_factory()
    return list(given) if isinstance(given, tuple) else given


# Every page


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        linked = (page.parent / file) if file else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@all_pages
def test_every_file_of_the_repository_that_it_names_is_there(page: Path) -> None:
    named = {path.rstrip(".") for path in PATH.findall(page.read_text())} - SAMPLES
    assert [path for path in sorted(named) if not (ROOT / path).exists() and not (page.parent / path).exists()] == []


@all_pages
def test_every_module_and_name_is_there(page: Path) -> None:
    named = set(re.findall(rf"`((?:{FLOORS})(?:\.\w+)+)", page.read_text()))
    assert [name for name in sorted(named) if not resolves(name)] == []


def resolves(name: str) -> bool:
    """True for a module, and for an attribute of a module."""
    module, _, attribute = name.rpartition(".")
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return resolves(module) and hasattr(import_module(module), attribute)


@all_pages
def test_every_command_exists_and_takes_its_flags(page: Path) -> None:
    for module, arguments in COMMAND.findall(page.read_text()):
        spec = find_spec(module)
        assert spec is not None, module
        assert spec.submodule_search_locations is None or find_spec(f"{module}.__main__"), module
        if re.match(FLOORS, module):
            flags = re.findall(r"(?<=\s)--?[a-zA-Z][\w-]*", arguments)
            assert [flag for flag in flags if flag not in help_of(module)] == [], module


@cache
def help_of(module: str) -> frozenset[str]:
    """The flags that a command knows."""
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", done.stdout))


@all_pages
def test_every_make_target_is_in_the_makefile(page: Path) -> None:
    named = set(re.findall(r"(?:`|^|=1 )make ([a-z]+)", page.read_text(), re.M))
    assert named <= set(re.findall(r"^([a-z]+):", text("Makefile"), re.M))


def test_the_patterns_of_these_tests_find_what_the_pages_have() -> None:
    """A page in another style would leave the tests above with nothing to look at."""
    pages = "\n".join(page.read_text() for page in PAGES)
    assert len(COMMAND.findall(pages)) == pages.count("python -m ") > 20
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", pages)
    assert len(links) + len(re.findall(r"\]\(https?:", pages)) == pages.count("](") and len(links) > 20
    assert {"harness/", "jobs/", "models/", "grid.yaml"} <= {path.rstrip(".") for path in PATH.findall(pages)}
    assert "jobs.experiment" in re.findall(rf"`((?:{FLOORS})(?:\.\w+)+)", pages)
    assert len(set(re.findall(r"(?:`|^|=1 )make ([a-z]+)", pages, re.M))) > 3


# README


def test_the_grid_is_the_quickstart() -> None:
    assert f"```yaml\n{text('grid.yaml').strip()}\n```" in text("README.md")
    assert f"This grid has {len(read_grid(ROOT / 'grid.yaml').cells)} cells" in text("README.md")


def test_the_readme_is_a_front_page_that_leads_to_every_other_page() -> None:
    assert len(text("README.md").splitlines()) <= 140
    assert [page.name for page in ROOT.glob("docs/*.md") if f"](docs/{page.name})" not in text("README.md")] == []


# docs/grid.md


def test_the_grids_on_the_page_are_what_it_says_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good, sources, sized, wrong, unreachable = (written(grid) for grid in blocks("docs/grid.md", "yaml"))
    start = "name: sources\nmodels: [vim_tiny]\npruning: [dense]\nseeds: [0]\n"
    whole = written(start + sources().read_text())
    assert [cell.data.source for cell in read_grid(whole()).cells] == ["imagefolder", "huggingface", "webdataset"]
    assert sum(choice.resources is not None for choice in read_grid(sized()).choices) == 2
    mistakes, problem = re.findall(r"^```\n(grid\.yaml:.*?)^```", text("docs/grid.md"), re.S | re.M)
    assert f"This grid has {len(read_grid(good()).cells)} cells" in text("docs/grid.md")
    with pytest.raises(GridError) as refused:
        read_grid(wrong())
    same_but_for_the_end(mistakes, str(refused.value).splitlines())
    grid = read_grid(unreachable())
    same_but_for_the_end(problem, model_problems(grid, grid.cells))


def written(grid: str) -> typing.Callable[[], Path]:
    """Writes a grid to grid.yaml when it is called."""

    def write() -> Path:
        Path("grid.yaml").write_text(grid)
        return Path("grid.yaml")

    return write


def same_but_for_the_end(shown: str, printed: list[str]) -> None:
    """Holds when every line that a page shows is printed; `...` on the page stands for the rest of a line."""
    lines = shown.splitlines()
    assert len(lines) == len(printed)
    for line, whole in zip(lines, printed, strict=True):
        assert whole.startswith(line.removesuffix("...")) if line.endswith("...") else whole == line


@pytest.mark.parametrize(("heading", "spec"), [("Data", DataSpec), ("Recipe", RecipeSpec), ("Cluster", ClusterSpec)])
def test_every_key_of_a_grid_has_its_line_and_its_default(heading: str, spec: type) -> None:
    table = rows(section("docs/grid.md", heading)).items()
    shown = {key: value(rest[0]) for key, rest in table if len(rest) == 2 and key.partition("`")[0] not in SOURCES}
    assert shown == {field.name: default(field) for field in fields(spec)}


def test_every_source_has_its_line_and_its_size() -> None:
    lines = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (\d+) \|", section("docs/grid.md", "Data"), re.M)
    assert {source: int(size) for names, size in lines for source in re.findall(r"\w+", names)} == {
        name: row.img_size for name, row in SOURCES.items()
    }


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_say_what_the_types_and_the_pages_say(name: str) -> None:
    assert text(f"harness/schemas/{name}") == schema_text(name), "run `python -m harness.schemas --write`, and commit its files"


# docs/models.md


def test_every_model_and_variant_has_its_line() -> None:
    named = re.findall(r"^\| (\S+) \| \d+ \| [\d,]+ \|", text("docs/models.md"), re.M)
    assert named == [registry.model_label(name, options) for name, options in entries()]


def test_the_lines_of_small_models_are_what_python_m_models_prints() -> None:
    small = [row(name, options) for name, options in entries() if name == "vim_micro"]
    assert len(small) > 3 and all(line in text("docs/models.md") for line in small)


def variants_of(config: type) -> dict[str, type]:
    """The options of a family that are dataclasses themselves."""
    hints = typing.get_type_hints(config).items()
    return {name: part for name, hint in hints for part in typing.get_args(hint) if is_dataclass(part)}


def test_every_option_has_its_line_and_its_defaults() -> None:
    found: dict[str, dict[str, Any]] = {family: {} for family in FAMILIES}
    for line in re.findall(r"^\| `(\w+)` \| ([A-Za-z, ]+) \| ((?:`[^`:]+`(?:, )?)+) \|", section("docs/models.md", "Options"), re.M):
        option, families, shown = line[0], line[1].split(", "), [value(code) for code in re.findall(r"`[^`]+`", line[2])]
        for family, given in zip(families, shown if len(shown) > 1 else shown * len(families), strict=True):
            found[family][option] = given
    plain = {family: [field for field in fields(config) if field.name not in variants_of(config)] for family, config in FAMILIES.items()}
    assert found == {family: {field.name: default(field) for field in options} for family, options in plain.items()}


def test_every_variant_has_its_line_and_the_defaults_of_its_knobs() -> None:
    found: dict[str, dict[str, Any]] = {family: {} for family in FAMILIES}
    for variant, families, knobs in re.findall(r"^\| `(\w+)` \| ([A-Za-z, ]+) \| ((?:`\w+: [^`]+`(?:, )?)+) \|", text("docs/models.md"), re.M):
        for family in families.split(", "):
            found[family][variant] = {key: given for code in re.findall(r"`[^`]+`", knobs) for key, given in value(code).items()}
    parts = {family: variants_of(config) for family, config in FAMILIES.items()}
    assert found == {family: {name: {f.name: default(f) for f in fields(part)} for name, part in named.items()} for family, named in parts.items()}


def test_every_variant_is_taken_or_refused_by_every_family_as_the_table_says() -> None:
    shown = {variant: cells for variant, cells in rows(section("docs/models.md", "Options")).items() if len(cells) == len(FAMILIES)}
    taken = {name for config in FAMILIES.values() for name in variants_of(config)} | {"scan"}
    assert shown == {name: [config.refused.get(name, "yes") for config in FAMILIES.values()] for name in shown} and shown.keys() == taken


def test_the_model_works_as_it_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    options, network, entry = blocks("docs/models.md", "python")
    made = {name: ModuleType(name) for name in ("tiny_cnn_options", "models.tiny_cnn")}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    vars(made["tiny_cnn_options"]).update({name: part for name, part in vars(configs).items() if not name.startswith("__")})
    exec(options, vars(made["tiny_cnn_options"]))
    exec(network, vars(made["models.tiny_cnn"]))
    monkeypatch.setattr(registry, "MODELS", dict(registry.MODELS))
    exec(entry, {**vars(registry), "nn": torch.nn, "TinyCNNConfig": made["tiny_cnn_options"].TinyCNNConfig})
    assert registry.create_model("tiny_cnn", 10, width=8)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert registry.model_label("tiny_cnn", {"width": 8}) == "tiny_cnn(width=8)"


# docs/pruning.md


def test_every_method_has_its_line_with_its_knobs_and_their_defaults() -> None:
    table = rows(section("docs/pruning.md", "Pruning methods"))
    assert set(table) == set(METHODS)
    for name, method in METHODS.items():
        shared = {"sparsity", "scope", *(field.name for field in fields(Gradual if issubclass(method, Gradual) else Scoped))}
        expected = {field.name: field for field in fields(method) if field.name not in shared}
        shown = dict(re.findall(r"`(\w+)(: [^`]+)?`", table[name][-1]))
        assert expected.keys() <= shown.keys(), name
        for knob, field in expected.items():
            required = field.default is MISSING and field.default_factory is MISSING
            assert (shown[knob] == "" and f"`{knob}` (required)" in table[name][-1]) if required else value(shown[knob][2:]) == default(field), knob


def test_gradual_knobs_have_their_defaults() -> None:
    shown = {knob: value(rest[0]) for knob, rest in rows(section("docs/pruning.md", "Gradual knobs")).items()}
    own = {field.name: field.default for field in fields(Gradual) if field.name in inspect.get_annotations(Gradual)}
    assert shown == own


def test_every_group_and_kind_of_unit_is_there() -> None:
    shared = section("docs/pruning.md", "Shared knobs")
    assert [name for name in (*GROUPS, *KINDS) if f"`{name}`" not in shared] == []
    assert f"| {', '.join(f'`{name}`' for name in DENSE_BY_DEFAULT)} | dense unless you name them |" in shared


def test_the_pruning_method_works_as_it_is_printed() -> None:
    block = re.search(r'```python\n("""models/pruning/relative.py""".*?)```', text("docs/pruning.md"), re.S)
    assert block and block[1].count("\n") < 40
    module: dict[str, object] = {"__name__": "relative"}
    exec(block[1], module)
    method = module["Relative"](sparsity=0.5)  # type: ignore[operator]
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([10.0, 20.0])}
    read = weights.__getitem__
    network = NetworkView(names=("a", "b"), read_weight=read, read_gradient=read, input_norms={}.get, apply=lambda masks: None)
    method.begin(network)
    assert {name: mask.tolist() for name, mask in network.masks.items()} == {"a": [False, True], "b": [False, True]}
    assert [stage.name for stage in method.stages(Budget(epochs=1, finetune_epochs=1))] == ["train", "finetune"]


# docs/architecture.md


def path_to_the_step() -> list[str]:
    """The files from launch to the training step, in the page's order."""
    return re.findall(r"^\d+\. `([\w/.]+)`", section("docs/architecture.md", "From launch to the training step"), re.M)


def test_the_path_from_launch_to_the_training_step_is_short_and_true() -> None:
    path = path_to_the_step()
    assert 2 < len(path) <= 12
    assert path[0] == "harness/launch.py"
    for index, file in enumerate(path[1:], 1):
        assert any(file in imports(above) for above in path[:index]), f"no file above {file} imports it"


def imports(file: str) -> set[str]:
    """The files that a file imports, at its top or inside a function."""
    return {name.replace(".", "/") + ".py" for name in modules(ast.parse(text(file)))}


def modules(tree: ast.AST) -> Iterator[str]:
    """The names of modules that a file may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("floor", ["jobs", "harness", "models"])
def test_every_room_has_its_line(floor: str) -> None:
    table = section("docs/architecture.md", "Floors").partition(f"| room of `{floor}/` |")[2].partition("\n\n")[0]
    assert {name.rstrip("/") for name in rows(table)} == {path.parent.name for path in (ROOT / floor).glob("*/__init__.py")}


def test_every_name_of_a_run_folder_is_on_the_page() -> None:
    names = [name for key, name in vars(run_folder).items() if key.isupper() and isinstance(name, str)]
    assert len(names) > 20
    assert [name for name in names if not re.search(rf"(?<![\w.]){re.escape(name)}(?![\w])", section("docs/architecture.md", "On disk"))] == []


# docs/glossary.md, releases


def test_the_glossary_is_short_and_sorted() -> None:
    words = re.findall(r"^\| ([a-z][\w -]*) \| (.+) \|$", text("docs/glossary.md"), re.M)[1:]  # but for the head of the table
    assert 20 < len(words) <= 45
    assert [word for word, _ in words] == sorted({word for word, _ in words})
    assert [word for word, meaning in words if len(re.findall(r"\. ", meaning)) > 1] == []


def test_all_places_that_state_the_version_agree() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    releases = re.findall(r"^## \[(\d[\d.]*)\] - (\S+)$", text("CHANGELOG.md"), re.M)
    citation = yaml.safe_load(text("CITATION.cff"))
    assert (citation["version"], citation["date-released"]) == releases[0]
    assert setup["metadata"]["version"] == releases[0][0]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys() and citation["cff-version"] == "1.2.0"
