"""Text for people: control characters, narrow terminals, encodings."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from jobs.experiment.output import FittedTable, encodable, lost_output, printable, replace_unencodable, tells_lost_output

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é ± 漢 dense", "é ± 漢 dense"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x07\x9b", r"\x1b[2J\x07\x9b"),
        ("\u2028\u202e", r"\u2028\u202e"),
        ("\udcff", r"\udcff"),
        (r"a\b", r"a\b"),
    ],
)
def test_control_characters_are_spelled(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_line_breaks_stay_where_they_are_wanted() -> None:
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize("buffering", [1, -1])
def test_an_output_that_is_full_is_told_from_another_full_file(monkeypatch: pytest.MonkeyPatch, buffering: int) -> None:
    """The error of a write names no file, whichever it was."""
    full = OSError(28, "No space left on device")
    assert lost_output(full) is None and lost_output(OSError(28, "No space left on device", "/runs/plan.json")) is None
    with monkeypatch.context() as patch:
        stream = open("/dev/full", "w", buffering=buffering)
        patch.setattr(sys, "stdout", stream)
        with pytest.raises(OSError) as written:
            print("text", flush=True)
        told = lost_output(written.value)
        print("goes nowhere", flush=True)
        sys.stdout.close()
    with pytest.raises(OSError):  # what it still holds cannot be written
        stream.close()
    assert told == "the output could not be written: No space left on device; free space where it goes, or send it elsewhere"


def test_a_command_whose_output_is_full_says_so_and_ends_with_its_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    @tells_lost_output(7)
    def main(text: str, fault: str = "") -> int:
        print(text)
        if fault:
            raise OSError(28, "No space left on device", fault)
        return 0

    assert main("text") == 0
    with pytest.raises(OSError, match="record.json"):
        main("text", fault="record.json")
    stream = open("/dev/full", "w")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main("text") == 7
        sys.stdout.close()
    with pytest.raises(OSError):  # what it still holds cannot be written
        stream.close()
    assert capsys.readouterr().err.startswith("the output could not be written: No space left on device;")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_are_no_error_and_no_files_are_written_to_in_their_place(tmp_path: Path, closed: tuple[int, ...]) -> None:
    code = (
        "import os, sys; from jobs.experiment.output import replace_unencodable; replace_unencodable(); file = open('file', 'w');"
        "print('out', sys.stdout.isatty(), flush=True); print('err', file=sys.stderr, flush=True); os.write(1, b'raw'); file.write('content')"
    )
    shell = f'exec {sys.executable} -c "$1" {" ".join(f"{number}>&-" for number in closed)}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", shell, "bash", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "content"
    assert done.stdout == ("" if 1 in closed else "out False\nraw") and done.stderr == ("" if 2 in closed else "err\n")


def written_to(encoding: str, text: str, monkeypatch: pytest.MonkeyPatch, errors: str = "strict") -> bytes:
    """What stdout of that encoding gets."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors=errors))
    replace_unencodable()
    print(text, end="", flush=True)
    return raw.getvalue()


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_what_ascii_lacks_is_written_in_plain_signs(errors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert written_to("ascii", "97.0±0.5 × 2 – é…", monkeypatch, errors) == rb"97.0+-0.5 x 2 - \xe9..."


def test_what_an_encoding_has_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written_to("latin-1", "±é漢", monkeypatch) == "±é".encode("latin-1") + rb"\u6f22"
    assert written_to("utf-8", "±é\udcff", monkeypatch) == "±é".encode() + rb"\udcff"


def test_a_stream_without_an_encoding_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    replace_unencodable()
    assert encodable("±") == "+-"


def shown_at(width: int, table: FittedTable) -> list[str]:
    """The lines of a table in a terminal of that width."""
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def small_table(label: str) -> FittedTable:
    """A table with a row."""
    table = Table(box=None, title="a title", caption="a caption")
    for heading in ("name", "top-1", "n"):
        table.add_column(heading)
    table.add_row(label, "97.00", "")
    return FittedTable(table=table)


def test_a_table_that_fits_is_a_table() -> None:
    lines = shown_at(40, small_table("dense"))
    assert [line.split() for line in lines[1:3]] == [["name", "top-1", "n"], ["dense", "97.00"]]


def test_a_table_that_does_not_fit_has_a_paragraph_for_each_row() -> None:
    assert shown_at(17, small_table("a_long_label")) == ["a title", "a_long_label", "top-1 97.00", "a caption"]


def test_a_long_name_is_folded_and_the_table_stays() -> None:
    lines = shown_at(40, small_table("a" * 60))
    assert lines[1].split() == ["name", "top-1", "n"] and sum(line.count("a" * 10) for line in lines) >= 2


@pytest.mark.parametrize(
    "command", ["harness", "harness.launch", "harness.status", "harness.logs", "harness.cancel", "harness.reproduce", "analysis"]
)
def test_every_command_prints_whatever_stdout_can_encode(command: str) -> None:
    """Each is asked for its help after a print of a sign that ASCII lacks was put before what it prints."""
    code = (
        f"import argparse, runpy, sys; sys.argv = [{command!r}, '--help']\n"
        "argparse.ArgumentParser.print_help = lambda self, file=None: print('\\u00b1 help')\n"
        "import harness.__main__; harness.__main__.overview = lambda: '\\u00b1 help'\n"
        f"name = {command!r}; module = __import__('importlib').import_module(name if '.' in name else name + '.__main__')\n"
        "module.main(['--help'])"
    )
    environment = {"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "+- help\n" and "Traceback" not in done.stderr, done.stderr
