"""Limits of real daemons: what a profile asks beyond them is known before anything is submitted, and what SLURM does not take now waits."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.submit.slurm import submit_arrays
from jobs.cluster.slurm_limits import free_jobs, slurm_problems
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec
from tests.slurm.conftest import Cluster
from tests.support.jobs import jobs_of, small_grid

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
FITS = ClusterSpec(kind="slurm", nodes=2, tasks_per_node=2, mem_gb=2, timeout_min=30, slurm={"partition": "main"})


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, None),
        ({"slurm": {}}, None),
        ({"slurm": {"partition": "man"}}, "no partition 'man'; did you mean 'main'? valid: main, high, short"),
        ({"nodes": 5}, "cluster.nodes: 5 nodes asked for; main up to 4; no partition has more"),
        ({"nodes": 3, "slurm": {"partition": "short"}}, "short up to 2; enough in main, high"),
        ({"timeout_min": 31, "slurm": {"partition": "short"}}, "cluster.timeout_min: 31 minutes asked for; short up to 30; enough in main, high"),
        ({"cpus_per_task": 2}, "cluster.tasks_per_node x cpus_per_task: 4 CPUs of a node asked for; main up to 2"),
        ({"mem_gb": 6}, "cluster.mem_gb: 6144 MB of a node asked for; main up to 5000"),
        ({"gpus_per_node": 3}, "cluster.gpus_per_node: 3 GPUs of a node asked for; main up to 2"),
        ({"slurm": {"partition": "main", "constraint": "a100"}}, "SLURM would refuse these jobs: allocation failure: Invalid feature specification"),
    ],
)
def test_what_slurm_cannot_give_is_known_beforehand(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, asked: dict[str, object], expected: str | None
) -> None:
    cluster.reach(monkeypatch)
    problems = slurm_problems(replace(FITS, **asked))  # type: ignore[arg-type]
    assert (problems == []) if expected is None else (len(problems) == 1 and expected in problems[0]), problems


def test_nodes_that_are_away_are_waited_for_and_no_reason_to_refuse(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.reach(monkeypatch)
    cluster.call("scontrol", "update", "NodeName=node[1-4]", "State=DRAIN", "Reason=maintenance")
    try:
        assert slurm_problems(FITS) == [], "sbatch would take it"
        assert "no partition 'man'" in slurm_problems(replace(FITS, slurm={"partition": "man"}))[0]
    finally:
        cluster.call("scontrol", "update", "NodeName=node[1-4]", "State=RESUME")


def test_jobs_beyond_what_a_user_may_submit_stay_open_and_parents_come_first(
    accounting_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounting_cluster.reach(monkeypatch)
    accounting_cluster.call("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=5")
    run = RunFolder(tmp_path / "run")
    jobs, _ = jobs_of(small_grid(tmp_path), run)
    later = ClusterSpec(kind="slurm", timeout_min=1, slurm={"additional_parameters": {"begin": "now+1hour"}})
    jobs = [replace(job, cluster=later) for job in jobs]
    try:
        lines = submit_arrays(later, run, jobs, {})
        assert len(jobs) == 8 and "3 jobs wait for room in SLURM's queue (it takes 5 more of yours now)" in lines[-1], lines
        assert list(accounting_cluster.jobs().values()).count("PENDING") == 5 and free_jobs() == 0
    finally:
        accounting_cluster.call("scancel", "--user=root")
