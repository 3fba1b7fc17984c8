"""Arrays, dependencies and rendezvous against the real daemons, with jobs that only note that they ran."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.cluster.slurm import SchedulerError
from jobs.cluster.slurm_arrays import submit_array
from jobs.experiment.ids import JobId
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec
from tests.slurm import job_functions
from tests.slurm.conftest import Cluster, processes
from tests.support.jobs import jobs_of, small_grid
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
SMALL = ClusterSpec(kind="slurm", timeout_min=10, mem_gb=0.5, slurm={"partition": "main"})
WIDE = replace(SMALL, nodes=2, mem_gb=2)


@pytest.fixture
def submit(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[int, JobId]]]:
    """Submits arrays of jobs, by task, each array in a folder of its own. Jobs that are left at the end are cancelled."""
    cluster.reach(monkeypatch)
    monkeypatch.setenv("PYTHONPATH", cluster.environment["PYTHONPATH"])
    submitted: list[JobId] = []

    def submit(
        arguments: dict[int, Any], *, spec: ClusterSpec = SMALL, function: Callable[[Any], None] = job_functions.note_run, **more: Any
    ) -> dict[int, JobId]:
        folder = tmp_path / f"jobs-{len(submitted)}"
        folder.mkdir()
        ids = submit_array(spec, folder, function, arguments, name="test", **more)
        submitted.append(ids[min(ids)].array)
        return ids

    yield submit
    if submitted:
        cluster.call("scancel", *submitted)


def test_each_job_waits_for_its_own_parent_and_for_no_other(cluster: Cluster, submit: Callable[..., dict[int, JobId]], tmp_path: Path) -> None:
    def named(name: str, **more: Any) -> dict[str, Any]:
        return {"folder": str(tmp_path), "name": name, **more}

    parents = submit({0: named("a"), 1: named("b", fails=True), 5: named("c", until="go")})
    array = parents[0].array
    children = submit({0: named("a1"), 1: named("b1"), 5: named("c1")}, after=f"aftercorr:{array}")
    only = submit({0: named("c2"), 1: named("c3")}, after=f"afterok:{parents[5]}")
    alone = submit({5: named("b2")}, after=f"afterok:{parents[1]}")
    wait_until((tmp_path / "a1.end").exists, "the child of a parent that ended well, while another parent runs")
    wait_until(
        lambda: cluster.jobs()[str(children[1])] == cluster.jobs()[str(alone[5])] == "CANCELLED",
        "the children of the failed parent to leave the queue",
    )
    wait_until((tmp_path / "c.starts").exists, "the last parent to start")
    cluster.call("scontrol", "requeue", parents[5])
    wait_until(lambda: len((tmp_path / "c.starts").read_text().splitlines()) == 2, "the requeued parent to start again")
    assert not list(tmp_path.glob("c?.starts")), "children wait for a parent that was requeued"
    (tmp_path / "go").touch()
    wait_until(lambda: {cluster.jobs()[str(job)] for job in (children[5], only[0], only[1])} == {"COMPLETED"}, "its children to end")
    assert not list(tmp_path.glob("b?.starts"))


def test_an_array_may_be_as_large_as_slurm_says_and_no_larger(cluster: Cluster, submit: Callable[..., dict[int, JobId]]) -> None:
    largest = int(cluster.call("scontrol", "show", "config").partition("MaxArraySize")[2].split()[1])
    later = replace(SMALL, slurm={"partition": "main", "additional_parameters": {"begin": "now+1hour"}})
    array = submit(dict.fromkeys(range(largest), {}), spec=later)[0].array
    assert len([job for job in cluster.jobs() if job.startswith(f"{array}_")]) == largest == 1001
    with pytest.raises(SchedulerError, match="Invalid job array specification"):
        submit(dict.fromkeys(range(largest + 1), {}), spec=later)


def test_two_jobs_of_several_nodes_that_share_all_of_them_meet_apart(
    cluster: Cluster, submit: Callable[..., dict[int, JobId]], tmp_path: Path
) -> None:
    spec = replace(WIDE, gpus_per_node=1, slurm={"partition": "main", "nodelist": "node[1-2]"})
    argument = {"folder": str(tmp_path), "until": "go", "cpus": 1}
    ids = submit({0: argument | {"name": "a"}, 1: argument | {"name": "b"}}, spec=spec, function=job_functions.meet)
    wait_until(lambda: len(list(tmp_path.glob("?-?.json"))) == 4, "all ranks of both jobs to meet")
    (tmp_path / "go").touch()
    wait_until(lambda: {cluster.jobs()[str(job)] for job in ids.values()} == {"COMPLETED"}, "both jobs to end")
    given = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("?-?.json")}
    assert {name: variables["SLURMD_NODENAME"] for name, variables in given.items()} == {
        "a-0": "node1",
        "a-1": "node2",
        "b-0": "node1",
        "b-1": "node2",
    }
    assert all(variables["WORLD_SIZE"] == "2" and variables["LOCAL_RANK"] == "0" for variables in given.values())
    assert len({variables["MASTER_ADDR"] for variables in given.values()}) == 1
    assert given["a-0"]["MASTER_PORT"] == given["a-1"]["MASTER_PORT"] != given["b-0"]["MASTER_PORT"] == given["b-1"]["MASTER_PORT"]
    assert {given["a-0"]["CUDA_VISIBLE_DEVICES"], given["b-0"]["CUDA_VISIBLE_DEVICES"]} == {"0", "1"}, "as SLURM assigned them"
    assert not list(tmp_path.glob("jobs-0/*.meeting"))


def test_a_rank_that_fails_ends_its_stage_at_once_with_its_own_error_and_the_jobs_other_stages_go_on(
    cluster: Cluster, submit: Callable[..., dict[int, JobId]], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    jobs, cells = jobs_of(small_grid(tmp_path), run)
    failing, well = (job.stages[0] for job in jobs if job.stages[0].parent is None)
    job = replace(jobs[0], run=str(run.path), cluster=WIDE, stages=(failing, well), cells=cells)
    ids = submit({0: job}, spec=WIDE, function=job_functions.fail_in_one_rank)
    wait_until(lambda: run.failure(failing.id), "the error, although the other rank waits in a collective")
    wait_until(lambda: cluster.jobs()[str(ids[0])] == "COMPLETED", "the job to go on with its other stage")
    failure = run.failure(failing.id)
    assert failure is not None and failure.host == "node2"
    assert (failure.kind, failure.message) == ("ValueError", "the second rank was the first to fail")
    assert run.done(well.id) and not run.done(failing.id)


def ignores_usr2(job: str) -> bool:
    """True once the task of a job ignores USR2, which is its first act: until then, a few milliseconds after its begin, a signal would kill it."""
    for folder in processes(job, "SLURM_STEP_ID=0"):
        with suppress(OSError):  # it has ended
            ignored = (folder / "status").read_text().partition("SigIgn:")[2].split()[0]
            if int(ignored, 16) >> (signal.SIGUSR2 - 1) & 1:
                return True
    return False


def test_a_signal_before_the_job_listens_does_not_kill_it(cluster: Cluster, submit: Callable[..., dict[int, JobId]], tmp_path: Path) -> None:
    job = str(submit({0: {"folder": str(tmp_path), "name": "a", "until": "go"}})[0])
    wait_until(lambda: ignores_usr2(job), "the task to start")

    def started_despite_signals() -> bool:
        subprocess.run(["scancel", "--signal=USR2", job], capture_output=True, check=False)
        assert cluster.jobs()[job] != "FAILED"
        return (tmp_path / "a.starts").exists()

    wait_until(started_despite_signals, "the job to listen")
    (tmp_path / "go").touch()
    wait_until(lambda: cluster.jobs()[job] == "COMPLETED", "the job to end well")
