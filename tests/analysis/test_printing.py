"""The leaderboard in a terminal."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from analysis.__main__ import main
from analysis.printing import HEADINGS, counted, published_line, shown, spread, table
from analysis.statistics import summarize
from tests.support.records import fake_environment, fake_record, fake_run, rows_of


def test_boards_of_different_keys_are_printed_apart_and_say_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake_run(tmp_path, [fake_record(97.0), fake_record(96.0, model="b", environment=fake_environment(gpu="Example GPU"))])
    assert main([str(run)]) == 0
    out = capsys.readouterr().out
    assert "2 leaderboards: rows that differ in device are not ranked together" in out and "device Example GPU" in out


def test_a_long_value_that_differs_is_told_by_its_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = [fake_record(97.0, model=name, flops_convention=f"{'words ' * 20}{name}") for name in "ab"]
    assert main([str(fake_run(tmp_path, long))]) == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("leaderboard ")]
    assert len(set(titles)) == 2 and all("flops_convention #" in title for title in titles)


def test_a_flood_of_bad_files_is_counted_and_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake_run(tmp_path, [fake_record(97.0)])
    for i in range(30):
        (run / "cells" / f"bad{i:02}").mkdir()
        (run / "cells" / f"bad{i:02}" / "record.json").write_text("{")
    assert main([str(run)]) == 0
    out = capsys.readouterr().out
    assert out.count("torn, or not JSON") == 20 and "and 10 more" in out
    assert (run / "report.html").read_text().count("torn, or not JSON") == 30


def test_labels_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(fake_run(tmp_path, [fake_record(97.0, model="[red]vim[/red]")]))])
    assert "[red]vim[/red]" in capsys.readouterr().out


def test_no_control_character_reaches_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = "a\x1b[2J\nb\x07"
    record = fake_record(97.0, model=label, pruning=label, environment=fake_environment(cpu=label), collapsed=[label])
    conflict = fake_run(tmp_path / "b", [fake_record(96.0)])
    broken = conflict / "cells" / "evil\x1b[2J" / "record.json"
    broken.parent.mkdir()
    broken.write_text("{")
    assert main([str(fake_run(tmp_path / "a", [record])), str(conflict), "-o", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert r"a\x1b[2J\nb\x07" in out and r"evil\x1b[2J" in out and not set(out) & {"\x1b", "\x07"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert not set(page.split("<script>")[0]) & {"\x1b", "\x07"} and r"a\x1b[2J\nb\x07" in page


def test_a_narrow_terminal_gets_a_paragraph_for_each_row(tmp_path: Path) -> None:
    rows = rows_of(fake_record(97.0), fake_record(90.5, pruning="magnitude-0.5"))
    console = Console(file=io.StringIO(), width=40)
    console.print(table(rows[0].key, rows, ()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.rstrip() for line in text.splitlines()]
    assert "1~  vim_micro  dense" in lines and "2~  vim_micro  magnitude-0.5" in lines
    assert "top-1 % 90.50" in text and "vs dense -6.50" in " ".join(lines) and max(map(len, lines)) <= 40


@pytest.mark.parametrize(("value", "text"), [(999.4, "999"), (12_345, "12.3k"), (999_600, "1M"), (4.56e9, "4.56G"), (None, "")])
def test_large_numbers_are_told_in_three_digits(value: float | None, text: str) -> None:
    assert counted(value) == text


def test_collapsed_layers_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(fake_run(tmp_path, [fake_record(10.0, collapsed=["layers.0.mixer.x_proj.weight"])]))]) == 0
    assert "collapsed: vim_micro, dense: all weights are zero in layers.0.mixer.x_proj.weight" in capsys.readouterr().out


def test_a_row_is_shown_under_its_headings() -> None:
    dense, pruned = rows_of(*(fake_record(top1, seed=seed) for seed, top1 in enumerate((97.0, 96.0))), fake_record(90.5, pruning="magnitude-0.5"))
    assert dict(zip(HEADINGS, shown(dense), strict=True)) == {
        "#": "1~", "model": "vim_micro", "pruning": "dense", "top-1 %": "96.50±0.71", "n": "2", "vs dense": "", "sparse": "0%", "weights": "170k",
        "MACs": "12M", "img/s": "400",
    }  # fmt: skip
    assert shown(pruned)[3:7] == ("90.50", "1", "-6.50", "50%")


def test_a_row_without_a_result_shows_its_failures() -> None:
    (row,) = rows_of(fake_record(None, seed=0), fake_record(None, seed=1))
    assert shown(row)[:5] == ("", "vim_micro", "dense", "2 diverged", "0/2")


def test_a_single_seed_has_no_spread() -> None:
    assert (spread(None), spread(summarize([90.0])), spread(summarize([90.0, 92.0]))) == ("", "90.00", "91.00±1.41")


def test_an_official_checkpoint_has_a_line_with_published_measured_and_difference() -> None:
    official, pruned = rows_of(fake_record(76.04, published_top1=76.1), fake_record(75.0, pruning="magnitude-0.5"))
    assert published_line(official) == "vim_micro: published 76.1, measured 76.04, difference -0.06"
    assert published_line(pruned) is None
