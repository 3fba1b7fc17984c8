"""Plug-ins in a grid: their rows are used as ours are, and their mistakes have the grid's line and their own."""

import json
import re
import sys
from pathlib import Path

import pytest

from harness.grid.plugins import row_names
from harness.grid.yaml_source import Report, parse_yaml
from jobs.experiment.cell import Cell
from jobs.experiment.sources import SOURCES
from models.plugins.installed import installed_rows
from models.plugins.modules import forget_module
from models.registry import MODELS
from tests.support.grids import mistakes, read
from tests.support.plugins import GRID, METHOD, MODEL, SOURCE, own_tables, written  # noqa: F401

ROOT = Path(__file__).resolve().parents[3]
NAMES = "models: [vim_micro]\npruning: [dense]\nseeds: [0]\nname: g\n"


def test_rows_of_a_plug_in_make_cells_as_ours_do(folder: Path) -> None:
    written(folder, MODEL + METHOD + SOURCE)
    grid = read(GRID)
    assert [(cell.model.label, cell.pruning, cell.data.source) for cell in grid.cells] == [
        ("outside_net(width=4)", "dense", "grey"),
        ("outside_net(width=4)", "outside(strength=0.25)", "grey"),
    ]
    assert [loaded.plugin.name for loaded in grid.plugins] == ["plugin.py"]


def test_options_and_names_of_a_plug_in_have_typed_mistakes_with_lines(folder: Path) -> None:
    written(folder, MODEL + METHOD + SOURCE)
    wrong = GRID.replace("width: 4", "widht: 4").replace("strength: 0.25", "strength: lots").replace("source: grey", "source: gray")
    assert [line.partition("; valid")[0] for line in mistakes(wrong)] == [
        "grid.yaml:4: models[0].widht: unknown key; did you mean 'width'? valid: name, label, cluster, width",
        "grid.yaml:5: pruning[1].strength: expected a number, got text 'lots'",
        f"grid.yaml:6: data.source: unknown value 'gray'; did you mean 'grey'? valid: {', '.join(SOURCES)}",
    ]
    assert mistakes(GRID.replace("name: outside_net, width: 4", "name: outside_nett"))[0].startswith(
        "grid.yaml:4: models[0].name: unknown model 'outside_nett'; did you mean 'outside_net'?"
    )
    assert mistakes(GRID.replace("width: 4", "width: 65")) == ["grid.yaml:4: models[0]: width must be at most 64"]


def test_a_grid_has_its_own_plug_ins_and_no_others(folder: Path) -> None:
    written(folder, MODEL + METHOD + SOURCE)
    read(GRID)
    assert read(NAMES).plugins == () and "outside_net" not in MODELS and "grey" not in SOURCES


def test_ids_of_our_rows_do_not_change_beside_a_plug_in(folder: Path) -> None:
    written(folder, MODEL)
    assert [cell.id for cell in read(NAMES).cells] == [cell.id for cell in read(NAMES + "plugins: plugin.py\n").cells]


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        ("plugin.py", None),
        ("[]", None),
        ("", None),
        ("[plugin.py, 3]", "plugins[1]: expected the path of a Python file or of a package's folder, got 3"),
        ("{file: plugin.py}", "plugins: expected the path of a Python file or of a package's folder, got a mapping"),
        ("[plugin.py, ./plugin.py]", "plugins[1]: ./plugin.py is given twice; first in line 5"),
        ("[plugni.py]", "plugins[0]: there is no file FOLDER/plugni.py; did you mean 'plugin.py'?"),
        ("[https://example.org/plugin.py]", "plugins[0]: must be the path of a file here, got the address"),
        ("[plugin.py, other.py]", "plugins[1]: other.py:2: MODELS['outside_net']: the name is taken: plugin.py has a model 'outside_net'"),
        ("[plugin.py, copy.py]", "plugins[1]: copy.py has the same content as plugin.py; name one of them"),
        ("[broken.py]", "plugins[0]: broken.py:3: NameError: name 'x' is not defined"),
    ],
)
def test_what_stands_under_plugins_is_a_plug_in_or_a_mistake(folder: Path, plugins: str, message: str | None) -> None:
    written(folder, MODEL)
    written(folder, "from models.registry import MODELS as OURS\nMODELS = {'outside_net': OURS['vim_micro']}\n", "other.py")
    written(folder, "\n\nprint(x)\n", "broken.py")
    written(folder, MODEL, "copy.py")
    text = NAMES + f"plugins: {plugins}\n"
    if message is None:
        read(text)
    else:
        (line,) = mistakes(text)
        assert line.startswith(f"grid.yaml:5: {message}".replace("FOLDER", str(folder)))


def test_a_broken_plug_in_is_told_alone_for_all_else_depends_on_its_rows(folder: Path) -> None:
    written(folder, "x = \n")
    assert len(mistakes(GRID)) == 1


def test_a_method_of_a_plug_in_has_its_place_in_a_chain(folder: Path) -> None:
    written(folder, METHOD)
    chain = "pruning: [{chain: [outside, {method: magnitude, sparsity: 0.9}]}]\n"
    (cell,) = read(NAMES.replace("pruning: [dense]\n", chain) + "plugins: plugin.py\n").cells
    assert cell.pruning == "outside + magnitude(0.9)" and Cell.from_json(cell.to_json()) == cell
    assert "did you mean 'outside'?" in mistakes(NAMES.replace("pruning: [dense]\n", chain.replace("outside", "outsid")) + "plugins: plugin.py\n")[0]


def test_names_of_rows_are_those_of_entries_wherever_they_stand() -> None:
    text = "a: [x, {name: y, pretrained: file, se: {name: z}}, {zip: {name: [p, q], width: [1, 2]}}, [{name: r}, {name: [s]}]]"
    root = parse_yaml(text, Report("g"))
    assert root is not None and isinstance(root.value, dict)
    assert [node.value for node in row_names(root.value["a"], "name")] == ["x", "y", "z", "p", "q", "r", "s"]


def test_a_row_of_an_installed_package_is_used_by_its_name_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(folder, "Metadata-Version: 2.1\nName: outside-nets\nVersion: 1.2\n", "site/outside_nets-1.2.dist-info/METADATA")
    points = "[vssm_bench.models]\noutside_net = outside_pkg:NET\n[vssm_bench.data]\ngrey = outside_pkg:GREY\n"
    written(folder, points, "site/outside_nets-1.2.dist-info/entry_points.txt")
    written(folder, MODEL + SOURCE + 'NET = MODELS["outside_net"]\nGREY = SOURCES["grey"]\n', "site/outside_pkg/__init__.py")
    monkeypatch.syspath_prepend(folder / "site")
    installed_rows.cache_clear()
    try:
        text = NAMES.replace("vim_micro", "outside_net") + "data: {source: grey}\n"
        grid = read(text)
        assert [loaded.plugin.name for loaded in grid.plugins] == ["outside-nets 1.2"] and grid.cells[0].data.source == "grey"
        assert read(NAMES).plugins == ()
        assert "did you mean 'outside_net'?" in mistakes(NAMES.replace("vim_micro", "outside_nett"))[0]
        assert "did you mean 'grey'?" in mistakes(NAMES + "data: {source: gry}\n")[0]
        written(folder, "\nraise ValueError('no')\n", "site/outside_pkg/__init__.py")
        assert mistakes(text)[0] == "grid.yaml:1: models[0]: site/outside_pkg/__init__.py:2: ValueError: no".replace("models[0]", "models")
    finally:
        forget_module("outside_pkg")
        installed_rows.cache_clear()


def test_the_options_of_a_source_are_typed_and_decide_an_id(folder: Path) -> None:
    written(folder, MODEL + METHOD + SOURCE)
    text = GRID.replace("{source: grey}", "[{source: grey}, {source: grey, options: {light: 50}, val_fraction: 0.2}]")
    plain, darker = ({cell.id for cell in read(text).cells if cell.data.options.light == light} for light in (100, 50))
    assert len(plain) == len(darker) == 2 and not plain & darker
    several = read(GRID.replace("source: grey", "source: grey, options: [{}, {light: 50}]"))
    assert {cell.data.options.light for cell in several.cells} == {100, 50} and plain < {cell.id for cell in several.cells}
    same = read(GRID.replace("source: grey", "source: grey, options: {light: 100}"))
    assert {cell.id for cell in same.cells} == plain, "a default that is written out is the default"
    assert [Cell.from_json(json.loads(json.dumps(cell.to_json()))) for cell in same.cells] == list(same.cells)

    def mistake(options: str) -> str:
        (line,) = mistakes(GRID.replace("source: grey", f"source: grey, options: {options}"))
        return line

    assert mistake("{ligth: 5}").startswith("grid.yaml:6: data.options.ligth: unknown field; did you mean 'light'?")
    assert mistake("{light: 1.5}") == "grid.yaml:6: data.options.light: expected a whole number, got 1.5"
    assert mistake("{light: 201}") == "grid.yaml:6: data.options: light must be at most 200"
    assert mistake("bright") == "grid.yaml:6: data.options: expected a mapping, got text 'bright'"
    assert len(mistakes(GRID.replace("source: grey", "source: gray, options: {light: 5}"))) == 1, "options of a wrong source are left alone"
    assert mistakes(NAMES + "data: {source: digits, options: {light: 1}}\n") == ["grid.yaml:5: data.options: source digits has no options"]


MISTAKES = [  # on the page, in its sequence: the file, what is wrong in it
    ("my_models.py", "from models.typed import between\n", "\n"),
    ("my_models.py", '{"small_cnn": ModelEntry', '{"vim_tiny": ModelEntry'),
    ("my_methods.py", "@dataclass(frozen=True, kw_only=True)\n", "\n"),
]
# Python 3.14 looks at annotations when they are asked for.
LATER = ("my_models.py:14: NameError", "my_models.py:44: MODELS['small_cnn']: SmallCNNConfig: its annotations cannot be read: NameError")


def test_the_mistakes_on_the_page_are_told_as_it_says(folder: Path) -> None:
    page = (ROOT / "docs/plugins.md").read_text()
    (shown,) = re.findall(r"^```\n(grid\.yaml:.*?)^```", page, re.S | re.M)
    plugins = dict(re.findall(r'^```python\n(?=""")(?="""(my_\w+\.py))(.*?)^```', page, re.S | re.M))
    grid = re.findall(r"^```yaml\n(.*?)^```", page, re.S | re.M)[0]
    lines = []
    for file, right, wrong in MISTAKES:
        for name, text in plugins.items():
            written(folder, text.replace(right, wrong) if name == file else text, name)
        lines += mistakes(grid)
    assert lines == (shown if sys.version_info < (3, 14) else shown.replace(*LATER)).splitlines()
