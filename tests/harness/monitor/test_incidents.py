"""Failures as people see them."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.monitor.incidents import Incident, grouped, incident_of, incidents, location_of, nodes_of, remedy
from harness.monitor.survey import survey
from jobs.experiment.ids import StageId
from jobs.experiment.records import Failure
from tests.support.fake_slurm import FakeSlurm
from tests.support.runs import FakeRun

ROOT = Path(__file__).resolve().parents[3]


def test_the_location_of_a_failure_is_in_our_code_even_when_a_library_raised_it() -> None:
    code = "from models.registry import create_model\ncreate_model('vim_micro', 'ten', 32)"
    traceback = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False).stderr
    assert "site-packages/torch" in traceback
    location = location_of(traceback)
    assert location.startswith("models/") and " in " in location and "site-packages" not in location


@pytest.mark.parametrize(
    ("files", "location"),
    [
        (
            ("/home/a/jobs/vssm-bench/harness/launch.py", "/home/a/jobs/vssm-bench/jobs/train/stage.py", "/usr/lib/python3.11/json/decoder.py"),
            "jobs/train/stage.py",
        ),
        (("/opt/venv/site-packages/torchvision/models/vit.py", "/usr/lib/python3.11/json/decoder.py"), "json/decoder.py"),
        (("/work/jobs/worker/job.py", "/work/runs/g/plugins/0123456789ab/mine/net.py", "/venv/site-packages/torch/nn/linear.py"), "mine/net.py"),
        ((), ""),
    ],
)
def test_the_location_is_found_in_another_checkout_too(files: tuple[str, ...], location: str) -> None:
    traceback = "".join(f'  File "{file}", line 7, in f\n' for file in files)
    assert location_of(traceback) == (f"{location}:7 in f" if location else "")


def test_failures_of_one_exception_and_location_are_one_group_the_largest_first() -> None:
    frame = f'  File "{ROOT}/jobs/data/prepare.py", line {{}}, in prepare\nValueError: no'
    here, there = frame.format(10), frame.format(20)
    failures = [Failure(kind="ValueError", message=str(n), stage=f"s{n}", traceback=here if n else there, host=f"node{n % 2}") for n in range(4)]
    first, second = grouped(incident_of(failure, cells=2) for failure in failures)
    assert (first.location, first.cells, len(first.incidents)) == ("jobs/data/prepare.py:10 in prepare", 6, 3)
    assert (second.location, second.cells) == ("jobs/data/prepare.py:20 in prepare", 2)
    assert first.policy == "never" and first.incidents[0].excerpt[-1] == "ValueError: no"
    assert remedy(first, "python -m harness.launch grid.yaml").endswith("python -m harness.launch grid.yaml --retry-failed")


def test_a_job_that_slurm_ended_is_an_incident_of_the_stage_that_it_was_at(fake: FakeRun, slurm: FakeSlurm) -> None:
    first, second = fake.trunks
    folder = fake.submit({"17_0": [first, fake.cells_of(first)[0].stages[1]], "17_1": [second]})
    slurm.queue(j17_0="OUT_OF_MEMORY", j17_1="FAILED")
    fake.log(
        folder,
        "17_1",
        "Starting with a\nCANCELLED AT x DUE TO TIME LIMIT\nStarting with b\nepoch 1\nslurmstepd: error: Detected 2 oom_kill events in StepId=17.1\n",
    )
    seen = incidents(fake.run, survey(fake.run))
    assert {(incident.kind, incident.policy, incident.stage, incident.cells) for incident in seen} == {
        ("OUT_OF_MEMORY", "halve", first, 3),
        ("OUT_OF_MEMORY", "halve", second, 3),
    }


def test_without_accounts_the_log_has_the_reason_and_without_a_log_none_is_claimed(fake: FakeRun, slurm: FakeSlurm) -> None:
    first, second = fake.trunks
    folder = fake.submit({"17": [first], "18": [second]})
    slurm.fails("squeue", "slurm_load_jobs error: Invalid job id specified")
    slurm.fails("sacct", "Slurm accounting storage is disabled")
    fake.log(folder, "17", "slurmstepd: error: *** JOB 17 ON node1 CANCELLED AT 2026 DUE TO TIME LIMIT ***\n")
    assert {incident.stage: (incident.kind, incident.policy) for incident in incidents(fake.run, survey(fake.run))} == {
        first: ("TIMEOUT", "again"),
        second: ("ENDED", "again"),
    }


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "ENDED"])
def test_of_several_ranks_the_log_of_the_rank_that_ran_out_of_memory_counts(fake: FakeRun, slurm: FakeSlurm, state: str) -> None:
    folder = fake.submit({"17": [fake.trunks[0]]})
    slurm.queue(j17=state)
    fake.log(folder, "17", "slurmstepd-node3: error: *** STEP 17.0 ON node3 CANCELLED AT 2026-11-22T21:38:51 ***\n", rank=0)
    decisive = fake.log(folder, "17", "slurmstepd-node4: error: StepId=17.0 exceeded memory limit (550857728 > 314572800), being killed\n", rank=1)
    (incident,) = incidents(fake.run, survey(fake.run))
    assert (incident.kind, incident.policy, incident.log) == ("OUT_OF_MEMORY", "halve", decisive)
    assert "exceeded memory limit" in incident.excerpt[0]


def test_a_torn_failure_is_named(fake: FakeRun) -> None:
    fake.run.stage_dir(fake.trunks[0]).mkdir(parents=True)
    (fake.run.stage_dir(fake.trunks[0]) / "failure.json").write_text('{"kind": ')
    (incident,) = incidents(fake.run, survey(fake.run))
    assert incident.kind == "torn file" and "failure.json" in incident.excerpt[0] and incident.policy == "never"


def test_a_torn_record_behind_stages_that_are_all_well_is_told_with_its_remedy(fake: FakeRun) -> None:
    first, second, third = fake.cells_of(fake.trunks[0])
    for stage in dict.fromkeys((*first.stages, *second.stages, *third.stages)):
        fake.finish(stage)
    for cell in (first, second, third):
        fake.record(cell)
    fake.run.record_path(first.cell.id).write_text('{"id": ')
    fake.run.record_path(second.cell.id).write_text("")
    surveyed = survey(fake.run)
    assert [surveyed.states[path.cell.id] for path in (first, second, third)] == ["failed", "failed", "done"]
    found = incidents(fake.run, surveyed)
    assert [incident.kind for incident in found] == ["torn file"] * 2 and [incident.stage for incident in found] == [
        first.stages[-1],
        second.stages[-1],
    ]
    assert str(fake.run.record_path(first.cell.id)) in found[0].excerpt[0] and "remove it to run its part again" in found[0].excerpt[0]
    (group,) = grouped(found)
    assert group.cells == 2 and remedy(group, "LAUNCH").endswith("LAUNCH --retry-failed")
    fake.record(first)
    assert survey(fake.run).states[first.cell.id] == "done", "a record that is written again is read again"


def test_a_local_job_that_ended_is_no_incident(fake: FakeRun) -> None:
    fake.submit({"another-host:4711": [fake.trunks[0]]})
    assert incidents(fake.run, survey(fake.run)) == []


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ("halve", "retried with half the micro-batch and the same global batch: LAUNCH"),
        ("elsewhere", "retried on other nodes: LAUNCH"),
        ("again", "resume from the last checkpoint: LAUNCH"),
        ("never", "not retried automatically; fix the cause, then: LAUNCH --retry-failed"),
    ],
)
def test_every_policy_has_its_remedy(policy: str, text: str) -> None:
    (group,) = grouped([Incident(kind="x", location="", policy=policy, stage=StageId("s"), cells=1)])  # type: ignore[arg-type]
    assert remedy(group, "LAUNCH").endswith(text)


def test_nodes_are_counted_the_most_frequent_first_and_four_at_most() -> None:
    nodes = ["node3", "node1", "node3", "", "node2", "node4", "node5"]
    named = [Incident(kind="x", location="", policy="never", stage=StageId("s"), cells=1, node=node) for node in nodes]
    assert nodes_of(named) == "node3 (2), node1 (1), node2 (1), node4 (1)" and nodes_of([]) == ""


@pytest.mark.parametrize(
    ("state", "policy"),
    [
        ("OUT_OF_MEMORY", "halve"),
        ("NODE_FAIL", "elsewhere"),
        ("BOOT_FAIL", "elsewhere"),
        ("TIMEOUT", "again"),
        ("DEADLINE", "again"),
        ("PREEMPTED", "again"),
        ("CANCELLED", "again"),
        ("FAILED", "again"),
        ("A_STATE_OF_A_LATER_SLURM", "again"),
    ],
)
def test_every_state_in_which_slurm_ends_a_job_leads_to_its_policy(fake: FakeRun, slurm: FakeSlurm, state: str, policy: str) -> None:
    fake.submit({"17": [fake.trunks[0]]})
    slurm.queue(j17=state)
    assert {incident.policy for incident in incidents(fake.run, survey(fake.run))} == {policy}
