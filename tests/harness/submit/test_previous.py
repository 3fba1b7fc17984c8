"""What a launch leaves to the jobs of previous launches, and what it does about those that have ended."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.monitor.survey import survey
from harness.plan.jobs import make_jobs
from harness.submit.previous import assign, previous_jobs
from jobs.cluster.slurm import SchedulerSilent
from jobs.experiment.files import write_json
from jobs.experiment.specs import ClusterSpec
from jobs.recovery.micro_batch import smaller
from jobs.recovery.nodes import around_bad_nodes, faults, left_out, notice
from tests.support.fake_slurm import SILENT, FakeSlurm
from tests.support.runs import FakeRun

SLURM = ClusterSpec(kind="slurm")


def test_stages_of_living_jobs_are_left_to_them(fake: FakeRun, slurm: FakeSlurm) -> None:
    first, second = fake.trunks
    fake.submit({"17_0": [first], **{f"18_{index}": [path.stages[1]] for index, path in enumerate(fake.cells_of(first)[:2])}})
    slurm.queue(j17_0="RUNNING", j18_0="PENDING:Dependency", j18_1="PENDING:Dependency")
    previous = previous_jobs(fake.run, fake.plan, SLURM)
    assert set(previous.living) == {first, *(path.stages[1] for path in fake.cells_of(first)[:2])}
    assignment = assign(fake.run, fake.paths, previous)
    assert assignment.own == tuple(fake.cells_of(second))
    assert assignment.elsewhere == tuple(fake.cells_of(first)[:2]) and assignment.dependent == tuple(fake.cells_of(first)[2:])
    text = "\n".join(assignment.messages(previous.living, queued=True))
    assert "with jobs of a previous launch, which SLURM still has (17_0, 18_0, 18_1): 2 cells, not submitted again" in text
    assert "1 cell, queued behind them" in text and "1 cell, launch again" in "\n".join(assignment.messages(previous.living, queued=False))


def test_a_cell_that_a_living_job_does_not_know_is_measured_by_this_launch(fake: FakeRun, slurm: FakeSlurm) -> None:
    known, new = fake.cells_of(fake.trunks[0])[:2]
    fake.submit({"17": [*known.stages, *new.stages]})
    slurm.queue(j17="RUNNING")
    previous = previous_jobs(fake.run, fake.plan, SLURM)
    assignment = assign(fake.run, [known, new], replace(previous, cells=previous.cells - {new.cell.id}))
    assert assignment.elsewhere == (known,) and assignment.dependent == (new,)
    (job,) = make_jobs(fake.grid, fake.plan, fake.run, assignment.dependent, held=previous.living)
    assert [spec.id for spec in job.stages] == [new.stages[-1]] and job.cells == (new,)


def test_a_stage_that_failed_in_a_living_job_is_not_that_jobs_any_more(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17": fake.trunks})
    slurm.queue(j17="RUNNING")
    fake.fail(fake.trunks[0])
    assert set(previous_jobs(fake.run, fake.plan, SLURM).living) == {fake.trunks[1]}


def test_a_job_that_has_ended_gives_its_stages_back(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17": [fake.trunks[0]]})
    slurm.queue(j17="CANCELLED")
    assert not previous_jobs(fake.run, fake.plan, SLURM).living


def test_while_slurm_is_silent_nothing_is_launched(fake: FakeRun, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.submit({"17": [fake.trunks[0]]})
    slurm.fails("squeue", SILENT)
    monkeypatch.setattr(
        "harness.submit.previous.survey", lambda run, launching: survey(run, launching=launching, patience_s=0.0, say=lambda text: None)
    )
    with pytest.raises(SchedulerSilent):
        previous_jobs(fake.run, fake.plan, SLURM)


def test_a_job_that_slurm_killed_for_its_memory_is_halved_once(fake: FakeRun, slurm: FakeSlurm) -> None:
    stage = fake.trunks[0]
    fake.submit({"17": [stage]})
    slurm.queue(j17="OUT_OF_MEMORY")
    first = previous_jobs(fake.run, fake.plan, SLURM)
    assert "micro-batches of 32 images" in first.messages[0] and smaller(fake.run.stage_dir(stage)) == 32
    assert previous_jobs(fake.run, fake.plan, SLURM).messages == () and smaller(fake.run.stage_dir(stage)) == 32
    fake.submit({"18": [stage]})
    slurm.queue(j17="OUT_OF_MEMORY", j18="OUT_OF_MEMORY")
    previous_jobs(fake.run, fake.plan, SLURM)
    assert smaller(fake.run.stage_dir(stage)) == 16


def test_a_job_without_memory_for_one_image_has_failed(fake: FakeRun, slurm: FakeSlurm) -> None:
    stage = fake.trunks[0]
    fake.submit({"17": [stage]})
    write_json(fake.run.stage_dir(stage) / "micro_batch.json", {"micro_batch_size": 1, "because": "SLURM job 16: OUT_OF_MEMORY"})
    slurm.queue(j17="OUT_OF_MEMORY")
    assert "has failed" in previous_jobs(fake.run, fake.plan, SLURM).messages[0]
    failure = fake.run.failure(stage)
    assert failure is not None and failure.kind == "OutOfMemory" and "one image" in failure.message


NODE = "NodeName={} State={} BootTime=2020-01-01T00:00:00 SlurmdStartTime={}"


LONG_AGO, LATER = "2026-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"


def attempt(fake: FakeRun, job: str, restarts: int = 0, started: str = LONG_AGO) -> Path:
    """A stage whose last attempt was this job's, on node1 and node2."""
    folder = fake.run.stage_dir(fake.trunks[0])
    write_json(folder / "stage.json", {"job": job, "restarts": restarts, "nodes": "node[1-2]", "started": started})
    return folder


def test_of_a_lost_jobs_nodes_the_one_that_is_down_is_blamed(fake: FakeRun, slurm: FakeSlurm) -> None:
    slurm.says("scontrol", NODE.format("node1", "MIXED", "2025-01-01T00:00:00"), NODE.format("node2", "DOWN*+NOT_RESPONDING", "2025-01-01T00:00:00"))
    assert notice(fake.run, attempt(fake, "17_0"), SLURM) == ["node2"] and faults(fake.run) == {"node2": 1}
    assert notice(fake.run, attempt(fake, "17_0"), SLURM) == ["node2"] and faults(fake.run) == {"node2": 1}, "one attempt counts once"


def test_a_node_whose_slurmd_came_back_after_the_job_began_is_blamed(fake: FakeRun, slurm: FakeSlurm) -> None:
    slurm.says("scontrol", NODE.format("node1", "IDLE", "2026-01-02T00:00:00"), NODE.format("node2", "IDLE", "2025-01-01T00:00:00"))
    assert notice(fake.run, attempt(fake, "17_0"), SLURM) == ["node1"]


def test_a_preempted_job_blames_no_node(fake: FakeRun, slurm: FakeSlurm) -> None:
    slurm.says("scontrol", NODE.format("node1", "MIXED", "2025-01-01T00:00:00"), NODE.format("node2", "IDLE", "None"))
    assert notice(fake.run, attempt(fake, "17_0"), SLURM) == [] and faults(fake.run) == {}


def test_a_node_that_fails_twice_is_left_out_of_what_waits_and_of_what_comes(
    fake: FakeRun, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.submit({"17_0": [fake.trunks[0]], "18": [fake.trunks[1]]})
    slurm.says("scontrol", NODE.format("node2", "DOWN", "None"))
    notice(fake.run, attempt(fake, "17_0", restarts=0), SLURM)
    assert left_out(fake.run) == () and around_bad_nodes(fake.run, SLURM) == SLURM
    notice(fake.run, attempt(fake, "18"), SLURM)
    assert faults(fake.run) == {"node2": 1}, "both jobs went with the node at once"
    notice(fake.run, attempt(fake, "17_0", restarts=1, started=LATER), SLURM)
    assert left_out(fake.run) == ("node2",)
    assert [call for call in slurm.calls("scontrol") if call.startswith("update")] == [
        "update JobId=17 ExcNodeList=node2",
        "update JobId=18 ExcNodeList=node2",
    ]
    kept = replace(SLURM, slurm={"exclude": "node9", "partition": "main"})
    assert around_bad_nodes(fake.run, kept).slurm == {"exclude": "node9,node2", "partition": "main"}
    assert "left out, having failed 2 times or more: node2" in capsys.readouterr().out
