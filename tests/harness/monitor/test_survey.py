"""The state of every cell, from files and the queue."""

import os
import socket
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from harness.monitor import survey as module
from harness.monitor.survey import survey
from jobs.cluster.claims import claimed
from jobs.experiment.run_folder import REPLAY_TODO
from tests.support.fake_slurm import SILENT, FakeSlurm
from tests.support.runs import FakeRun, elsewhere


def counts(fake: FakeRun) -> dict[str, int]:
    """Cells by state."""
    return dict(Counter(survey(fake.run, patience_s=0.0, say=lambda text: None).states.values()))


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


def test_of_a_pack_of_stages_only_the_one_under_way_runs(fake: FakeRun, slurm: FakeSlurm) -> None:
    trunk = fake.trunks[0]
    paths = fake.cells_of(trunk)
    fake.finish(trunk)
    fake.submit({"17": [trunk, *(path.stages[1] for path in paths)]})
    slurm.queue(j17="RUNNING")
    found = survey(fake.run)
    assert [found.states[path.cell.id] for path in paths] == ["running", "queued", "queued"]


def test_a_stage_that_failed_in_a_pack_is_not_the_one_under_way(fake: FakeRun, slurm: FakeSlurm) -> None:
    trunk = fake.trunks[0]
    first, second, _ = fake.cells_of(trunk)
    fake.finish(trunk)
    fake.fail(first.stages[1])
    fake.submit({"17": [first.stages[1], second.stages[1]]})
    slurm.queue(j17="RUNNING")
    found = survey(fake.run)
    assert found.states[first.cell.id] == "failed" and found.states[second.cell.id] == "running"


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
