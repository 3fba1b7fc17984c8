"""The command on a real, tiny run: honest, falsified, killed, and by the copy of another version's code."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from harness.verify import CODES, FAILED, INTERRUPTED, PASSED, USAGE, main, writable
from jobs.cluster.claims import claimed
from jobs.experiment.verification import verifications, verified_dir
from jobs.worker.code_copy import digest_of
from tests.support.forgeries import cells, edit
from tests.support.records import fake_record, fake_run

slow = pytest.mark.slow


@pytest.fixture
def runs(honest: Path, tmp_path: Path) -> Path:
    """A folder of runs with a copy of the honest run (tests/support/honest_run.py) that may be changed."""
    shutil.copytree(honest, tmp_path / "runs" / "honest")
    return tmp_path / "runs"


@slow
def test_an_honest_cell_passes_and_the_same_record_raised_by_three_points_fails(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = cells(runs / "honest", "magnitude")[0]
    assert main([cell.name[:8], "--runs", str(runs), "--by", "Ada"]) == PASSED
    shown = capsys.readouterr().out
    assert "hardware and data: the same" in shown and "pass: 1 of 1 run left the weights of the record, bit for bit" in shown
    (kept,) = verifications(runs / "honest")
    assert (kept.verdict, kept.by, kept.code_of_record, kept.differences) == ("pass", "Ada", True, [])
    names = {path.name for path in (runs / "honest" / "verified" / cell.name).iterdir()}
    assert len(names) == 2 and "lock" in names, "the runs themselves are removed"

    edit(cell, metrics__top1=lambda top1: top1 + 3)
    assert main([cell.name, "--runs", str(runs)]) == FAILED
    assert "the record has other numbers than they give" in " ".join(capsys.readouterr().out.split())
    assert sorted(kept.verdict for kept in verifications(runs / "honest")) == ["fail", "pass"]
    last = max(verifications(runs / "honest"), key=lambda kept: kept.verdict == "fail")
    assert last.by is None and "host" not in last.model_dump_json()


@slow
def test_accuracies_raised_in_a_record_whose_weights_are_changed_too_fail_by_the_test(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another machine's record, as it says: nothing has to be equal to the bit, and the row's spread decides."""
    for number, cell in enumerate(cells(runs / "honest", "dense")):
        edit(cell, metrics__top1=97.0 + number / 10, weights_sha256="0" * 64, environment__cpu="Other CPU (avx2)", environment__commit=None)
    assert main([cells(runs / "honest", "dense")[0].name, "--runs", str(runs)]) == FAILED
    shown = " ".join(capsys.readouterr().out.split())
    assert "worse by more than the margin of 1 point" in shown and "recorded seeds, mean 97.05" in shown and "Other CPU (avx2)" in shown


@slow
def test_a_killed_verification_by_the_kept_code_goes_on_where_it_was(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The copy kills its process, as kill -9 does, when the first stage has ended; the second time it finds that stage done."""
    cell = cells(runs / "honest", "magnitude")[0]
    code = runs / "honest" / "code"
    (copy,) = code.iterdir()
    job = copy / "jobs" / "worker" / "job.py"
    start = "        run_stage(run, spec, job.cluster, ranks)\n"
    assert job.read_text().count(start) == 1
    mark = f"        mark = Path({str(runs / 'killed')!r})\n"
    trap = "        if not mark.exists():\n            mark.touch()\n            os.kill(os.getpid(), 9)\n"
    job.write_text(job.read_text().replace(start, start + mark + trap))
    copy = copy.rename(code / digest_of(copy))
    edit(cell, environment__code=copy.name)

    assert main([cell.name, "--runs", str(runs)]) == USAGE
    assert "exit code -9 and left no record" in capfd.readouterr().err
    (folder,) = (runs / "honest" / "verified" / cell.name).glob("unfinished-*")
    assert len(list(folder.glob("stages/*/export"))) == 1
    assert main([cell.name, "--runs", str(runs)]) == PASSED
    shown = capfd.readouterr().out
    assert f"from its copy {copy}" in shown
    assert len(re.findall(r"^stage \w+: ", shown, re.M)) == 1, "the stage that was done did not run again"
    assert not folder.exists() and next(verifications(runs / "honest")).code_of_record


def test_what_cannot_be_verified_is_refused_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["abc", "--runs", str(tmp_path)]) == USAGE
    assert "launch a grid first" in capsys.readouterr().err


def test_of_two_verifications_of_a_cell_at_once_the_second_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = fake_record(97.0)
    run = fake_run(tmp_path / "a", [record])
    with claimed(verified_dir(run, record.id) / "lock"):
        assert main([record.id, "--runs", str(tmp_path)]) == USAGE
    assert f"process {os.getpid()} on " in (said := capsys.readouterr().err) and "is verifying this cell" in said


def test_a_folder_that_cannot_be_written_gives_way_to_a_temporary_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "verified").write_text("a file")
    other = writable(tmp_path / "verified" / "abc")
    assert other.is_dir() and tmp_path not in other.parents and str(other) in capsys.readouterr().out
    other.rmdir()


@pytest.mark.parametrize("option", [["--seeds", "0"], ["--seeds", "-1"], ["--margin", "0"], ["--margin", "nan"], ["--margin", "-1"], ["--code", "x"]])
def test_options_that_mean_nothing_are_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["abc", *option])
    assert refused.value.code == USAGE and option[0] in capsys.readouterr().err


def test_an_interrupted_verification_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.verify.find", interrupted)
    assert main(["abc", "--runs", str(tmp_path)]) == INTERRUPTED
    assert "the same command goes on" in capsys.readouterr().err


def test_each_verdict_has_its_exit_code() -> None:
    assert (CODES, USAGE, INTERRUPTED) == ({"pass": 0, "fail": 1, "drift": 3}, 2, 130)


@slow
def test_images_that_are_others_here_are_told_before_anything_trains(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = cells(runs / "honest", "dense")[0]
    edit(cell, environment__data_sha256="0" * 64)
    assert main([cell.name, "--runs", str(runs), "--code", "here"]) == USAGE
    captured = capsys.readouterr()
    assert "the images here are others" in captured.err and "stage " not in captured.out
    assert json.loads((cell / "record.json").read_bytes())["status"] == "done"
