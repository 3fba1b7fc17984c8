"""What a launch leaves to the jobs of previous launches, and what it does about those that have ended."""

from dataclasses import replace

import pytest

from harness.monitor.survey import survey
from harness.plan.jobs import make_jobs
from harness.submit.previous import PreviousJobs, assign, previous_jobs
from jobs.cluster.slurm import SchedulerSilent
from jobs.experiment.files import write_json
from jobs.experiment.specs import ClusterSpec
from jobs.recovery.micro_batch import stored_micro_batch
from tests.support.fake_slurm import SILENT, FakeSlurm
from tests.support.runs import FakeRun

SLURM = ClusterSpec(kind="slurm")


def jobs_before(fake: FakeRun) -> PreviousJobs:
    """What a new launch finds, where all stages run on the profile as it is."""
    return previous_jobs(fake.run, fake.plan, SLURM, dict.fromkeys(fake.plan.stages, SLURM))


def test_stages_of_living_jobs_are_left_to_them(fake: FakeRun, slurm: FakeSlurm) -> None:
    first, second = fake.trunks
    fake.submit({"17_0": [first], **{f"18_{index}": [path.stages[1]] for index, path in enumerate(fake.cells_of(first)[:2])}})
    slurm.queue(j17_0="RUNNING", j18_0="PENDING:Dependency", j18_1="PENDING:Dependency")
    previous = jobs_before(fake)
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
    previous = jobs_before(fake)
    assignment = assign(fake.run, [known, new], replace(previous, cells=previous.cells - {new.cell.id}))
    assert assignment.elsewhere == (known,) and assignment.dependent == (new,)
    (job,) = make_jobs(fake.grid, fake.plan, fake.run, assignment.dependent, held=previous.living)
    assert [spec.id for spec in job.stages] == [new.stages[-1]] and job.cells == (new,)


def test_a_stage_that_failed_in_a_living_job_is_not_that_jobs_any_more(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17": fake.trunks})
    slurm.queue(j17="RUNNING")
    fake.fail(fake.trunks[0])
    assert set(jobs_before(fake).living) == {fake.trunks[1]}


def test_a_job_that_has_ended_gives_its_stages_back(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17": [fake.trunks[0]]})
    slurm.queue(j17="CANCELLED")
    assert not jobs_before(fake).living


def test_while_slurm_is_silent_nothing_is_launched(fake: FakeRun, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.submit({"17": [fake.trunks[0]]})
    slurm.fails("squeue", SILENT)
    monkeypatch.setattr(
        "harness.submit.previous.survey",
        lambda run, **options: survey(run, **options, patience_s=0.0, say=lambda text: None),
    )
    with pytest.raises(SchedulerSilent):
        jobs_before(fake)


def test_a_job_that_slurm_killed_for_its_memory_is_halved_once(fake: FakeRun, slurm: FakeSlurm) -> None:
    stage = fake.trunks[0]
    fake.submit({"17": [stage]})
    slurm.queue(j17="OUT_OF_MEMORY")
    first = jobs_before(fake)
    assert "micro-batches of 32 images" in first.messages[0] and stored_micro_batch(fake.run.stage_dir(stage)) == 32
    assert jobs_before(fake).messages == () and stored_micro_batch(fake.run.stage_dir(stage)) == 32
    fake.submit({"18": [stage]})
    slurm.queue(j17="OUT_OF_MEMORY", j18="OUT_OF_MEMORY")
    jobs_before(fake)
    assert stored_micro_batch(fake.run.stage_dir(stage)) == 16


def test_a_job_without_memory_for_one_image_has_failed(fake: FakeRun, slurm: FakeSlurm) -> None:
    stage = fake.trunks[0]
    fake.submit({"17": [stage]})
    write_json(fake.run.stage_dir(stage) / "micro_batch.json", {"micro_batch_size": 1, "because": "SLURM job 16: OUT_OF_MEMORY"})
    slurm.queue(j17="OUT_OF_MEMORY")
    assert "has failed" in jobs_before(fake).messages[0]
    failure = fake.run.failure(stage)
    assert failure is not None and failure.kind == "OutOfMemory" and "one image" in failure.message


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stages": 3}'])
def test_a_damaged_index_does_not_hide_the_jobs_that_live(fake: FakeRun, slurm: FakeSlurm, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    fake.submit({"17": [fake.trunks[0]]})
    slurm.queue(j17="RUNNING")
    (fake.run.path / "index.json").write_text(content)
    assert set(jobs_before(fake).living) == {fake.trunks[0]}
    assert "index.json is damaged" in capsys.readouterr().err
