"""SLURM as its commands tell of it. tests/slurm/test_doctor.py asks a real one."""

from dataclasses import replace

import pytest

from harness.health import scheduler
from harness.health.finding import Finding
from jobs.cluster.slurm_limits import Partition
from jobs.experiment.specs import ClusterSpec
from tests.support.fake_slurm import FakeSlurm

SLURM = ClusterSpec(kind="slurm")
CONFIG = (
    "ClusterName             = alps",
    "AccountingStorageType   = accounting_storage/slurmdbd",
    "JobRequeue              = 1",
    "KillWait                = 30 sec",
    "MaxArraySize            = 1001",
    "PreemptMode             = OFF",
    "TaskPlugin              = task/affinity,task/cgroup",
)


def told(slurm: FakeSlurm, *changes: str, cluster: ClusterSpec = SLURM) -> dict[str, Finding]:
    """The findings by topic, under a configuration in which lines were changed."""
    names = {line.split()[0] for line in changes}
    slurm.says("scontrol", *(line for line in CONFIG if line.split()[0] not in names), *changes)
    return {finding.topic: finding for finding in scheduler.scheduler(cluster)}


@pytest.fixture(autouse=True)
def answers(slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm.says("sinfo", "slurm 24.11.5")
    monkeypatch.setattr(scheduler, "partitions", dict)
    monkeypatch.setattr(scheduler, "free_jobs", lambda: 7)
    monkeypatch.setattr(scheduler, "slurm_problems", lambda cluster: [])


def test_what_a_run_relies_on_is_told(slurm: FakeSlurm) -> None:
    findings = told(slurm)
    assert {topic for topic, finding in findings.items() if finding.state != "ok"} == {"partitions"}, "there are none"
    assert findings["slurm"].text == "SLURM 24.11.5, cluster alps"
    assert findings["queue"].text == "arrays of up to 1001 tasks; 7 more jobs of yours fit"
    assert findings["profile"].text.startswith("SLURM would take its jobs: 1 node x 1 rank x 1 CPU")


@pytest.mark.parametrize(
    ("line", "topic"),
    [
        ("AccountingStorageType = accounting_storage/none", "accounting"),
        ("AccountingStorageType = (null)", "accounting"),
        ("JobRequeue = 0", "requeue"),
        ("TaskPlugin = task/none", "limits of a job"),
        ("TaskPlugin = (null)", "limits of a job"),
    ],
)
def test_what_is_missing_is_a_warning(slurm: FakeSlurm, line: str, topic: str) -> None:
    assert told(slurm, line)[topic].state == "warning"


def test_a_partition_that_never_takes_the_jobs_is_told_where_another_does(slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    main = Partition(name="main", default=True, up=True, nodes=4, minutes=None, cpus=2, memory_mb=5000, gpus=2)
    known = {"main": main, "short": replace(main, name="short", minutes=30)}
    monkeypatch.setattr(scheduler, "partitions", lambda: known)
    both = replace(SLURM, timeout_min=60, slurm={"partition": "short, main"})
    found = list(scheduler.queue(both))
    assert [finding.state for finding in found] == ["warning", "ok"]
    assert found[0].text == "partition short never takes its jobs: it has 30 minutes of 60"
    assert [finding.state for finding in scheduler.queue(replace(both, timeout_min=20))] == ["ok"]


def test_the_resources_of_an_entry_are_told_with_its_place(slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "slurm_problems", lambda cluster: ["cluster.nodes: 9 nodes asked for"] if cluster.nodes == 9 else [])
    wide = scheduler.entries([("grid.yaml:6: models[1]", replace(SLURM, nodes=9)), ("grid.yaml:7: models[2]", SLURM)])
    told = [(finding.state, finding.topic, finding.text[:54], finding.remedy) for finding in wide]
    assert told[0] == ("error", "entry", "grid.yaml:6: models[1]: cluster.nodes: 9 nodes asked f", "correct the entry") and told[1][0] == "ok"


def test_preemption_is_no_fault(slurm: FakeSlurm) -> None:
    assert "resume from their last checkpoint" in told(slurm, "PreemptMode = REQUEUE")["preemption"].text


def test_a_full_queue_an_old_version_and_a_refused_profile(slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm.says("sinfo", "slurm 19.05.2")
    monkeypatch.setattr(scheduler, "free_jobs", lambda: 0)
    monkeypatch.setattr(scheduler, "slurm_problems", lambda cluster: ["cluster.partition: no partition 'gpu'"])
    findings = told(slurm)
    assert (findings["slurm"].state, findings["queue"].state, findings["profile"].state) == ("warning", "warning", "error")
    assert "profile" not in told(slurm, cluster=ClusterSpec())


def test_a_silent_controller_is_an_error_only_where_it_is_needed(slurm: FakeSlurm) -> None:
    slurm.fails("scontrol", "scontrol: fatal: Could not establish a configuration source")
    assert [finding.state for finding in scheduler.scheduler(SLURM)] == ["error"]
    assert [finding.state for finding in scheduler.scheduler(ClusterSpec())] == ["warning"]


def test_a_machine_without_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "available", lambda: False)
    assert [finding.state for finding in scheduler.scheduler(SLURM)] == ["error"]
    assert [finding.state for finding in scheduler.scheduler(ClusterSpec())] == ["ok"]
