"""The state of every cell, from files and the queue."""

import json
import os
import socket
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.monitor import survey as module
from harness.monitor.survey import cell_state, cell_states, is_over, record_status, survey
from jobs.cluster.claims import claimed
from jobs.experiment.ids import CellId, StageId
from jobs.experiment.run_folder import REPLAY_TODO, RunFolder
from tests.support.fake_slurm import SILENT, FakeSlurm
from tests.support.runs import FakeRun, elsewhere


def counts(fake: FakeRun) -> dict[str, int]:
    """Cells by state."""
    return dict(Counter(survey(fake.run, patience_s=0.0, say=lambda text: None).states.values()))


TRAIN, TUNE = StageId("train"), StageId("tune")
DONE, FAILED = frozenset({"stage.json", "export"}), frozenset({"stage.json", "failure.json"})


@pytest.mark.parametrize(
    ("train", "tune", "record", "state"),
    [
        (frozenset(), frozenset(), None, "open"),
        (DONE, frozenset({"stage.json", "progress.json"}), None, "open"),
        (DONE, DONE, None, "open"),
        (DONE, DONE, "done", "done"),
        (FAILED, frozenset(), None, "blocked"),
        (FAILED, frozenset(), "failed", "failed"),
        (DONE, FAILED, None, "failed"),
        (DONE, FAILED | DONE, None, "failed"),
        (DONE, FAILED | DONE, "done", "done"),
    ],
)
def test_the_files_of_its_stages_and_its_record_decide_the_state_of_a_cell(
    train: frozenset[str], tune: frozenset[str], record: Any, state: str
) -> None:
    assert cell_state((TRAIN, TUNE), {TRAIN: train, TUNE: tune}, record) == state
    if not train:
        assert cell_state((TRAIN, TUNE), {}, record) == state, "no folder is an empty folder"


def test_without_a_launch_and_its_index_every_cell_is_open(tmp_path: Path) -> None:
    assert cell_states(RunFolder(tmp_path / "nothing"), {CellId("cell"): (TRAIN, TUNE)}) == {"cell": "open"}


def test_with_files_alone_and_with_jobs_the_same_cells_are_done_failed_and_blocked(fake: FakeRun, slurm: FakeSlurm) -> None:
    first, second, third = fake.cells_of(fake.trunks[0])
    fake.finish(fake.trunks[0])
    fake.finish(first.stages[1])
    fake.record(first)
    fake.fail(second.stages[1])
    fake.fail(fake.trunks[1])
    fake.submit({"17": [third.stages[1]]})
    slurm.queue(j17="RUNNING")
    by_files = cell_states(fake.run, {path.cell.id: path.stages for path in fake.paths})
    assert Counter(by_files.values()) == {"done": 1, "failed": 1, "blocked": 3, "open": 1}
    surveyed = survey(fake.run).states
    assert surveyed == {**by_files, third.cell.id: "running"}


def test_a_record_says_how_its_cell_ended(fake: FakeRun) -> None:
    path = fake.paths[0]
    assert record_status(fake.run, path.cell.id) is None
    fake.record(path)
    record = fake.run.record_path(path.cell.id)
    assert record_status(fake.run, path.cell.id) == "done"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "metrics": {"train_loss": float("nan")}}))
    assert record_status(fake.run, path.cell.id) == "done", "NaN, which Python writes and JSON does not have"
    for text in (json.dumps({**content, "status": "failed"}), '{"id": "', '{"status": "lost"}', "[]"):
        record.write_text(text)
        assert record_status(fake.run, path.cell.id) == "failed"


def test_a_stage_is_over_when_it_failed_or_when_its_cells_are_recorded_too(fake: FakeRun) -> None:
    path = fake.paths[0]
    trunk, last = path.stages
    assert not is_over(fake.run, trunk)
    fake.finish(trunk)
    assert is_over(fake.run, trunk)
    fake.finish(last)
    assert is_over(fake.run, last) and not is_over(fake.run, last, [path.cell.id])
    fake.record(path)
    assert is_over(fake.run, last, [path.cell.id])
    (fake.run.stage_dir(trunk) / REPLAY_TODO).touch()
    assert not is_over(fake.run, trunk)
    fake.fail(trunk)
    assert is_over(fake.run, trunk)


def test_before_anything_runs_all_is_open_and_slurm_is_not_asked(fake: FakeRun, slurm: FakeSlurm) -> None:
    assert counts(fake) == {"open": 6} and not slurm.calls("squeue")


def test_a_recorded_cell_is_done(fake: FakeRun) -> None:
    path = fake.paths[0]
    for stage in path.stages:
        fake.finish(stage)
    fake.record(path)
    assert survey(fake.run).states[path.cell.id] == "done"


def test_cells_whose_trunk_runs_on_slurm_run_and_the_others_are_queued(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17_0": [fake.trunks[0]], "17_1": [fake.trunks[1]]})
    slurm.queue(j17_0="RUNNING", j17_1="PENDING:Resources")
    assert counts(fake) == {"running": 3, "queued": 3}


def test_of_a_jobs_stages_only_the_one_under_way_runs(fake: FakeRun, slurm: FakeSlurm) -> None:
    trunk = fake.trunks[0]
    paths = fake.cells_of(trunk)
    fake.finish(trunk)
    fake.submit({"17": [trunk, *(path.stages[1] for path in paths)]})
    slurm.queue(j17="RUNNING")
    surveyed = survey(fake.run)
    assert [surveyed.states[path.cell.id] for path in paths] == ["running", "queued", "queued"]


def test_a_stage_that_failed_in_a_job_is_not_the_one_under_way(fake: FakeRun, slurm: FakeSlurm) -> None:
    trunk = fake.trunks[0]
    first, second, _ = fake.cells_of(trunk)
    fake.finish(trunk)
    fake.fail(first.stages[1])
    fake.submit({"17": [first.stages[1], second.stages[1]]})
    slurm.queue(j17="RUNNING")
    surveyed = survey(fake.run)
    assert surveyed.states[first.cell.id] == "failed" and surveyed.states[second.cell.id] == "running"


def test_a_failed_trunk_blocks_what_has_no_record_of_it(fake: FakeRun) -> None:
    fake.fail(fake.trunks[0])
    assert counts(fake) == {"blocked": 3, "open": 3}


def test_a_cell_that_was_done_before_its_stage_failed_for_another_is_done(fake: FakeRun) -> None:
    path = fake.paths[0]
    fake.record(path)
    fake.fail(path.stages[-1])
    assert survey(fake.run).states[path.cell.id] == "done"


def test_a_job_that_slurm_has_queued_again_after_its_node_was_lost_keeps_its_cells(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17_0": [fake.trunks[0]]})
    slurm.queue(j17_0="PENDING:BeginTime")
    slurm.says("sacct", "17_0|NODE_FAIL|60|node2")
    assert counts(fake) == {"queued": 3, "open": 3}


def test_a_living_job_counts_before_a_later_one_that_ended(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17": [fake.trunks[0]]})
    fake.submit({"18": [fake.trunks[0]]})
    slurm.queue(j17="RUNNING", j18="CANCELLED")
    assert counts(fake) == {"running": 3, "open": 3}


def test_while_slurm_is_silent_its_jobs_are_unknown_and_what_is_done_is_done(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17_0": [fake.trunks[0]]})
    slurm.fails("squeue", SILENT)
    assert counts(fake) == {"unknown": 3, "open": 3}


def test_a_local_job_runs_while_its_process_works_in_its_folder(fake: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.submit({f"{socket.gethostname()}:{os.getpid()}": [fake.trunks[0]]})
    assert counts(fake) == {"open": 6}, "this process is not that job's: the number was given again"
    monkeypatch.setattr(module, "works_for", lambda pid, folder: pid == os.getpid())
    assert counts(fake) == {"running": 3, "open": 3}


def test_a_job_of_another_machine_lives_while_its_stage_is_heard_of(fake: FakeRun) -> None:
    fake.submit({elsewhere(): [fake.trunks[0]]})
    assert counts(fake) == {"open": 6}
    fake.beat(fake.trunks[0])
    assert counts(fake) == {"running": 3, "open": 3}
    os.utime(fake.run.stage_dir(fake.trunks[0]) / "progress.json", (1, 1))
    assert counts(fake) == {"open": 6}


def test_during_a_launch_what_is_open_is_queued(fake: FakeRun) -> None:
    with claimed(fake.run.path / "launch.lock"):
        assert counts(fake) == {"queued": 6}


def test_a_finished_stage_that_is_asked_for_another_step_is_not_finished(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.finish(fake.trunks[0])
    (fake.run.stage_dir(fake.trunks[0]) / REPLAY_TODO).touch()
    fake.submit({"17": [fake.trunks[0]]})
    slurm.queue(j17="RUNNING")
    assert counts(fake) == {"running": 3, "open": 3}


def test_what_ended_while_slurm_kept_one_waiting_is_seen(fake: FakeRun, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake.paths[0]
    fake.submit({"17": list(path.stages)})
    slurm.queue(j17="COMPLETED")
    answer, clock = module.queue_state, iter((0.0, 60.0))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def late_answer(*asked: Any, **options: Any) -> Any:
        for stage in path.stages:
            fake.finish(stage)
        fake.record(path)
        return answer(*asked, **options)

    monkeypatch.setattr(module, "queue_state", late_answer)
    assert survey(fake.run).states[path.cell.id] == "done"


def test_a_cancelled_cells_own_stages_are_dropped_and_shared_ones_are_not(fake: FakeRun) -> None:
    first = fake.cells_of(fake.trunks[0])[0]
    (fake.run.path / "cancelled").mkdir()
    (fake.run.path / "cancelled" / first.cell.id).touch()
    assert survey(fake.run).dropped == {first.stages[1]}


def test_a_retry_that_is_killed_halfway_leaves_no_failed_cell_that_looks_done(fake: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake.paths[0]
    fake.fail(path.stages[1])
    failure = fake.run.failure(path.stages[1])
    record = fake.run.record_path(path.cell.id)
    fake.record(path)
    record.write_text(json.dumps({**json.loads(record.read_text()), "status": "failed", "failure": failure and failure.model_dump()}))
    unlink = Path.unlink

    def killed(file: Path, missing_ok: bool = False) -> None:
        unlink(file, missing_ok=missing_ok)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        fake.run.forget_failures(path.stages, [path.cell.id])
    assert survey(fake.run).states[path.cell.id] in ("failed", "open")


def test_cells_with_failed_records_behind_a_failed_trunk_have_failed_and_the_others_are_blocked(fake: FakeRun) -> None:
    trunk = fake.trunks[0]
    first, second, third = fake.cells_of(trunk)
    fake.fail(trunk)
    for path in (first, second):
        fake.record(path)
        record = fake.run.record_path(path.cell.id)
        record.write_text(json.dumps({**json.loads(record.read_text()), "status": "failed"}))
    states = survey(fake.run).states
    assert [states[path.cell.id] for path in (first, second, third)] == ["failed", "failed", "blocked"]
    assert counts(fake) == {"failed": 2, "blocked": 1, "open": 3}
