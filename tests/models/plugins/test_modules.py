"""Plug-ins are imported from the bytes that were hashed, and their errors name a line."""

import io
import sys
import time
from pathlib import Path

import pytest

from models.plugins import modules
from models.plugins.content import PluginError, files_of
from models.plugins.modules import Source, import_plugin, line_in_plugin
from tests.support.plugins import written
from tests.support.waiting import PATIENCE_S

NAME = "plugin_of_a_test"


@pytest.fixture(autouse=True)
def forgotten():
    yield
    modules.forget_module(NAME)


def imported(path: Path):
    return import_plugin(NAME, Source(files=files_of(path), path=path))


def refusal(folder: Path, text: str, name: str = "plugin.py") -> str:
    with pytest.raises(PluginError) as refused:
        imported(written(folder, text, name))
    assert NAME not in sys.modules and NAME not in modules.SOURCES
    return str(refused.value).removeprefix(f"{folder}/")


def test_what_runs_is_what_was_read_even_if_the_file_changes_meanwhile(tmp_path: Path) -> None:
    folder = written(tmp_path, "def late():\n    from . import part\n    return part.VALUE\n", "mine/__init__.py").parent
    part = written(tmp_path, "VALUE = 1\n", "mine/part.py")
    module = imported(folder)
    part.write_text("VALUE = 2\n")
    assert module.late() == 1
    assert imported(folder).late() == 2, "another content is imported anew"


def test_a_module_of_equal_content_is_imported_once(tmp_path: Path) -> None:
    first = imported(written(tmp_path, "x = object()\n"))
    assert imported(written(tmp_path, "x = object()\n", "same.py")) is first


def test_no_bytecode_is_written_beside_a_plug_in(tmp_path: Path) -> None:
    imported(written(tmp_path, "x = 1\n"))
    assert [path.name for path in tmp_path.iterdir()] == ["plugin.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = (\n", "plugin.py:2: SyntaxError: '(' was never closed"),
        ("x = 1\n\nz = y\n", "plugin.py:3: NameError: name 'y' is not defined"),
        ("def f():\n    return 1 / 0\n\nf()\n", "plugin.py:2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", "plugin.py:2: SystemExit: the plug-in ends the program when it is imported; it should only define things"),
        ("raise KeyboardInterrupt\n", "plugin.py:1: interrupted while the plug-in was imported"),
        ("import no_such_package\n", "plugin.py:1: ModuleNotFoundError: No module named 'no_such_package'; it is not installed here"),
        ("import json\njson.loads('{')\n", "plugin.py:2: JSONDecodeError: Expecting property name"),
        ("raise ValueError\n", "plugin.py:1: ValueError: no message"),
    ],
)
def test_an_error_names_its_file_its_line_and_its_kind(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_a_file_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_bytes(b'x = "\xe9"\n')
    with pytest.raises(PluginError, match=r"plugin\.py:\d+: SyntaxError: .*(utf|UTF)-8"):
        imported(path)
    path.write_bytes(b'# coding: latin-1\nx = "\xe9"\n')
    assert imported(path).x == "é"


def test_an_error_in_a_package_names_the_file_within(tmp_path: Path) -> None:
    written(tmp_path, "\nx = y\n", "mine/part.py")
    with pytest.raises(PluginError, match=r"mine/part\.py:2: NameError"):
        imported(written(tmp_path, "from .part import x\n", "mine/__init__.py").parent)


def test_imports_of_own_files_in_the_wrong_way_have_a_remedy(tmp_path: Path) -> None:
    written(tmp_path, "x = 1\n", "mine/part.py")
    package = written(tmp_path, "from mine.part import x\n", "mine/__init__.py").parent
    with pytest.raises(PluginError, match=r"import relatively: from \. import"):
        imported(package)
    written(tmp_path, "import part\n", "mine/__init__.py")
    with pytest.raises(PluginError, match=r"import relatively: from \.part import"):
        imported(package)
    written(tmp_path, "x = 1\n", "beside.py")
    assert "put both files into a folder with __init__.py" in refusal(tmp_path, "import beside\n")


def test_what_a_plug_in_prints_is_no_part_of_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(written(tmp_path, "print('hello')\n"))
    assert capsys.readouterr() == ("", "hello\n")


def test_a_plug_in_that_hangs_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "SLOW_S", 0.05)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    loop = f"until = time.monotonic() + {PATIENCE_S}\nwhile not DONE() and time.monotonic() < until:\n    time.sleep(0.001)\n"
    path = written(tmp_path, f"import time\n{loop}")
    heard = lambda: f"{path}:4: still being imported" in sys.stderr.getvalue()  # type: ignore[attr-defined]  # noqa: E731
    monkeypatch.setattr("builtins.DONE", heard, raising=False)
    started = time.monotonic()
    imported(path)
    assert time.monotonic() - started < PATIENCE_S


def test_the_last_line_of_a_plug_in_on_the_way_of_an_error_is_known(tmp_path: Path) -> None:
    module = imported(written(tmp_path, "import json\n\ndef f():\n    json.loads('{')\n"))
    with pytest.raises(ValueError) as raised:
        module.f()
    assert line_in_plugin(raised.value) == f"{tmp_path / 'plugin.py'}:4"
    assert line_in_plugin(ValueError("of nobody")) is None


def test_a_package_knows_where_its_files_are(tmp_path: Path) -> None:
    written(tmp_path, "[1]", "mine/table.json")
    folder = written(tmp_path, "from pathlib import Path\nTABLE = Path(__file__).with_name('table.json').read_text()\n", "mine/__init__.py").parent
    module = imported(folder)
    assert module.TABLE == "[1]" and module.__path__ == [str(folder)]


def test_a_file_that_a_package_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("from .nets import MODELS\n")
    with pytest.raises(PluginError, match=r"__init__\.py:1: ModuleNotFoundError: .*; the plug-in has no nets\.py"):
        imported(tmp_path / "mine")
