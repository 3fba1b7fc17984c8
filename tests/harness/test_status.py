"""The status that a user sees."""

import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from harness.monitor.survey import survey
from harness.status import CODES, main
from jobs.experiment.run_folder import MICRO_BATCH
from jobs.recovery.nodes import blame
from models.closed_pipe import CLOSED_PIPE
from tests.support.fake_slurm import SILENT, FakeSlurm
from tests.support.runs import FakeRun

EARLY_END = """
import os, sys
read, write = os.pipe()
os.close(read)
os.dup2(write, 1)
from harness.status import main
sys.exit(main(["small", "--json"]))
"""


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The output of status, each run of spaces as one."""
    assert main(arguments) == 0
    return "\n".join(" ".join(line.split()) for line in capsys.readouterr().out.splitlines())


def test_every_state_has_its_number_and_stages_at_work_their_line(
    fake: FakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    one, two = fake.trunks
    fake.finish(one)
    done, failed, ran = fake.cells_of(one)
    fake.finish(done.stages[1])
    fake.record(done)
    fake.fail(failed.stages[1])
    fake.submit({"17_0": [ran.stages[1]], "17_1": [two]})
    slurm.queue(j17_0="RUNNING", j17_1="PENDING:Priority")
    fake.beat(ran.stages[1])
    text = printed(capsys)
    assert "small: 1 of 6 cells done (runs/small)" in text
    assert "done running queued blocked failed open\n1 1 3 0 1 0" in text
    assert f"{ran.stages[1]} vim_micro finetune magnitude(0.9) seed 0 1/4 0.500 100 1:15 17_0 node1" in text
    assert "2 of 8 stages done, 2.0 hours of training used; about" in text
    assert "1 cell, 1 stage: ValueError" in text and f"python -m harness.logs {failed.stages[1]}" in text and "python -m harness.launch" in text
    assert len(slurm.calls("squeue")) == 1 and not slurm.calls("sacct")


def test_excluded_nodes_and_smaller_batches_are_named(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    for attempt, since in {"17-0": "2026-01-01T00:00:00+00:00", "17-1": "2100-01-01T00:00:00+00:00"}.items():
        blame(fake.run, "node3", attempt, since, "lost")
    blame(fake.run, "node1", "18-0", "2026-01-01T00:00:00+00:00", "lost")
    folder = fake.run.stage_dir(fake.trunks[0])
    folder.mkdir(parents=True)
    (folder / MICRO_BATCH).write_text(json.dumps({"micro_batch_size": 8, "because": "no memory"}))
    text = printed(capsys)
    assert "nodes that failed: node1 (1), node3 (2); excluded for the rest of this grid: node3" in text
    assert "1 stage ran out of memory and went on with smaller micro-batches" in text


def test_while_slurm_is_silent_no_job_is_called_gone(
    fake: FakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    monkeypatch.setattr("harness.monitor.run_status.survey", partial(survey, patience_s=0.0, say=lambda text: None))
    fake.submit({"17": [fake.trunks[0]]})
    slurm.fails("squeue", SILENT)
    text = printed(capsys)
    assert "unknown" in text and "does not answer" in text and "nothing is lost" in text and "ENDED" not in text


def test_a_stage_without_progress_for_long_says_so(
    fake: FakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSlurm(tmp_path / "slurm", monkeypatch).queue(j17="RUNNING")
    fake.submit({"17": [fake.trunks[0]]})
    fake.beat(fake.trunks[0])
    heard = time.time() - 6000
    os.utime(fake.run.stage_dir(fake.trunks[0]) / "progress.json", (heard, heard))
    assert "no progress for 1:4" in printed(capsys)


def test_a_changed_grid_is_noted(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has changed" not in printed(capsys, "grid.yaml")
    fake.grid.path.write_text(fake.grid.source + "# more\n")
    assert "grid.yaml has changed since the launch" in printed(capsys, "grid.yaml")


@pytest.mark.parametrize("named", ["grid.yaml", "runs/small", "small", None])
def test_a_run_is_found_by_grid_folder_name_and_by_itself(fake: FakeRun, capsys: pytest.CaptureFixture[str], named: str | None) -> None:
    assert "small: 0 of 6 cells done" in printed(capsys, *([named] if named else []))


def test_without_a_grid_here_the_newest_run_is_shown(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    fake.grid.path.unlink()
    assert "small: 0 of 6 cells done" in printed(capsys)


def test_other_runs_are_named_in_a_line(fake: FakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(fake.run.path, tmp_path / "runs" / "later")
    os.utime(tmp_path / "runs" / "later" / "index.json", (2**31, 2**31))
    text = printed(capsys)
    assert "(runs/later)" in text and "other runs under runs: small; python -m harness.status <name> shows one" in text
    assert "other runs" not in printed(capsys, "small")


def test_a_name_that_fits_nothing_is_answered_with_the_nearest(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smal"]) == 2
    assert "did you mean 'small'?" in capsys.readouterr().err


def test_a_grid_that_was_never_launched_names_the_command_that_does(fake: FakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("name: other\n")
    assert main(["other.yaml"]) == 2
    assert "never launched" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["--runs", "empty", "--", "other.yaml"]) == 2


def test_watching_ends_when_nothing_is_under_way(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--watch"]) == 0
    assert "0 of 6 cells done" in capsys.readouterr().out


def test_open_cells_are_counted_with_the_command_that_resumes_them(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"6 cells are open: no job has them; resume with: python -m harness.launch {fake.grid.path}"
    assert printed(capsys).strip().endswith(command)
    fake.run.path.parent.rename("elsewhere")
    assert main(["--runs", "elsewhere"]) == 0
    assert " ".join(capsys.readouterr().out.split()).endswith(f"{command} --runs elsewhere")


def test_a_job_that_slurm_holds_is_shown_with_the_command_that_releases_it(
    fake: FakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSlurm(tmp_path / "slurm", monkeypatch).queue(j17_1="PENDING:launch failed requeued held")
    fake.submit({"17_1": [fake.trunks[0]]})
    assert "SLURM holds 1 job (launch failed requeued held); release with: scontrol release 17_1" in printed(capsys)


def test_a_script_gets_json_and_a_code_that_says_how_the_run_stands(
    fake: FakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code() -> int:
        result = main(["--json"])
        shown = json.loads(capsys.readouterr().out)
        assert CODES[shown["result"]] == result and shown["grid"] == "small"
        return result

    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    monkeypatch.setattr("harness.monitor.run_status.survey", partial(survey, patience_s=0.0, say=lambda text: None))
    assert code() == 4
    fake.submit({"17": [fake.trunks[0]]})
    slurm.queue(j17="PENDING:Priority")
    assert code() == 3
    slurm.fails("squeue", SILENT)
    assert code() == 5
    for path in fake.paths[1:]:
        fake.record(path)
    fake.fail(fake.paths[0].stages[0])
    assert code() == 1
    fake.run.failure_path(fake.paths[0].stages[0]).unlink()
    fake.record(fake.paths[0])
    assert code() == 0
    assert main(["none", "--json"]) == 2 and capsys.readouterr().out == ""
    with pytest.raises(SystemExit):
        main(["--json", "--watch"])


def test_a_reader_that_has_had_enough_is_no_full_disk(fake: FakeRun, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", EARLY_END], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == CLOSED_PIPE and done.stderr == ""
