"""CSV files: what a spreadsheet makes of them, and what we read back."""

import codecs
import csv
import random
from pathlib import Path

import pytest

from analysis.csv_files import guarded, is_formula, read_csv, unguarded, write_csv, written
from analysis.leaderboard import publish
from tests.support.records import fake_environment, fake_record, fake_run

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "'=1", "''=1", '"=1"', "\u00a0=1", "\ufeff=1", "\uff1d1+1", "-", "=", "- a"]
TEXTS = ["dense", "magnitude 90%", "a=b", "it's", "'quoted'", "", " ", "vim-tiny", "1-2", "'", "x\u2212y"]
NUMBERS = ["-5", "+5", "-0.5", "-1e-3", "-.5", "+12.25E+4", "-20%"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_a_spreadsheet_could_run_is_marked_as_text(text: str) -> None:
    assert guarded(text) == "'" + text and unguarded(guarded(text)) == text


def test_a_formula_in_what_some_spreadsheets_take_for_the_next_column_is_marked_too() -> None:
    """Where a comma is the sign of decimals, a semicolon separates columns, and no quotation mark hides it within one."""
    assert guarded("vim;=1+1; -a;b=2;-5") == "vim;'=1+1;' -a;b=2;-5"
    assert unguarded(guarded("=a;'=b;;")) == "=a;'=b;;"


@pytest.mark.parametrize("text", [*TEXTS, *NUMBERS])
def test_other_texts_and_numbers_stay(text: str) -> None:
    assert guarded(text) == text == unguarded(text)


def test_every_text_is_read_back() -> None:
    signs, choose = "='\"+-@ a1.;", random.Random(0)
    texts = {"".join(choose.choices(signs, k=length)) for length in range(7) for _ in range(300)}
    assert [text for text in texts if unguarded(guarded(text)) != text] == []
    assert not any(is_formula(part) and part[:1] != "'" for text in texts for part in guarded(text).split(";"))


@pytest.mark.parametrize(
    ("value", "text"), [(-7.0, "-7"), (-3, "-3"), (float("-inf"), "-inf"), (True, "true"), (None, ""), (-1.23456789012, "-1.2345679")]
)
def test_numbers_are_written_as_numbers(value: float | None, text: str) -> None:
    assert written(value) == text


def test_control_characters_become_visible() -> None:
    assert written("a\nb\x1b[31m\tc\x00") == r"a\nb\x1b[31m\tc\x00" and written("\t=1") == r"\t=1"


def test_every_table_of_a_run_is_free_of_formulas_and_has_a_line_for_each_row(tmp_path: Path) -> None:
    evil = '=HYPERLINK("http://127.0.0.1/","a")\n\x1b[2J'
    machine = fake_environment(host=evil, cpu="+cpu", loader="@loader", scan="-scan", commit="=commit")
    records = [
        fake_record(97.0 - seed, model=model, pruning=method, seed=seed, environment=machine, notes=["=note"])
        for model in (evil, "@other")
        for seed in (0, 1)
        for method in ("@x", "+y", "=z")
    ]
    results = tmp_path / "-results.csv"
    results.write_text("model,top1\n=1+1,-3.5\n")
    run = fake_run(tmp_path / "run", records)
    published = publish([run], run, beside=results)
    tables = [path for path in published.files if path.suffix == ".csv"]
    assert {path.stem for path in tables} == {"leaderboard", "cells", "coverage", "pareto", "comparisons", "scores", "beside"}
    for path in tables:
        with path.open(newline="") as file:
            lines = list(csv.reader(file))
        assert [cell for line in lines for cell in line if is_formula(cell) and not cell.startswith("'")] == []
        assert len(lines) == len(path.read_text().splitlines()) > 1
    rows = read_csv(run / "leaderboard.csv")
    assert {row["model"] for row in rows} == {evil.replace("\n", r"\n").replace("\x1b", r"\x1b"), "@other"}
    assert {row["pruning"] for row in rows} == {"@x", "+y", "=z"}
    assert "-3.5" in (run / "beside.csv").read_text()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("rank,model\n1,é\n", encoding=encoding)
    assert read_csv(path) == [{"rank": "1", "model": "é"}]


def test_short_and_long_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(codecs.BOM_UTF8 + b"a,b\r\n1\r\n1,2,3\r\n")
    assert read_csv(path) == [{"a": "1", "b": ""}, {"a": "1", "b": "2"}]


def test_an_unknown_column_is_empty(tmp_path: Path) -> None:
    assert write_csv(tmp_path / "a.csv", ["a", "b"], [{"b": 1}]).read_text() == "a,b\n,1\n"
