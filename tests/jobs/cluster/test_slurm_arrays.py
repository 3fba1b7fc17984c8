"""The script that sbatch gets, and how a later attempt at a job begins and ends under it."""

import os
import pickle
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.grid.read import read_grid
from jobs.cluster.slurm import SchedulerError
from jobs.cluster.slurm_arrays import ENDLESS, RESTART, job_number, ranges, submission, submit_array
from jobs.experiment.ids import JobId
from jobs.experiment.specs import ClusterSpec
from tests.support.fake_slurm import FakeSlurm
from tests.support.waiting import wait_until


def cluster_of(tmp_path: Path, cluster: str) -> ClusterSpec:
    """The cluster of a grid that says so."""
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"name: t\nrecipe: {{batch_size: 64}}\nmodels: [vim_micro]\npruning: [dense]\nseeds: 1\ncluster: {cluster}\n")
    return read_grid(grid).cluster


def sbatch(tmp_path: Path, cluster: ClusterSpec, after: str = "") -> str:
    """The submission file that is made of a cluster."""
    return submission(cluster, tmp_path, [0], name="t", after=after)


def test_a_job_whose_parent_has_failed_leaves_the_queue(tmp_path: Path) -> None:
    text = sbatch(tmp_path, cluster_of(tmp_path, "{kind: slurm, partition: p, dependency: 'after:7'}"), after="aftercorr:12")
    assert "#SBATCH --dependency=aftercorr:12,after:7\n" in text and "#SBATCH --kill-on-invalid-dep=yes" in text


def test_variables_are_exported_before_the_restart_script_and_the_setup_lines(tmp_path: Path) -> None:
    text = sbatch(tmp_path, cluster_of(tmp_path, "{kind: slurm, environment: {A: '1 2', B: x}, setup: [module load cuda]}"))
    assert f"export A='1 2'\nexport B=x\n{RESTART.read_text()}module load cuda\n" in text


def test_arguments_of_srun_are_added_to_ours(tmp_path: Path) -> None:
    text = sbatch(tmp_path, cluster_of(tmp_path, "{kind: slurm, cpus_per_task: 4, srun_args: [--mpi=none]}"))
    assert "--kill-on-bad-exit=1 --cpus-per-task=4 --mpi=none" in text


def test_submitits_names_come_with_and_without_their_prefix(tmp_path: Path) -> None:
    text = sbatch(tmp_path, cluster_of(tmp_path, "{kind: slurm, slurm_partition: p, qos: long, additional_parameters: {reservation: r}}"))
    assert "#SBATCH --partition=p" in text and "#SBATCH --qos=long" in text and "#SBATCH --reservation=r" in text


@pytest.mark.parametrize(("minutes", "seconds"), [(1, 15), (5, 75), (10, 90), (1440, 90)])
def test_a_short_job_is_told_to_leave_in_its_last_quarter(tmp_path: Path, slurm: FakeSlurm, minutes: int, seconds: int) -> None:
    cluster = ClusterSpec(kind="slurm", timeout_min=minutes)
    assert f"#SBATCH --signal=USR2@{seconds}\n" in sbatch(tmp_path, cluster)
    slurm.says("sbatch", "Submitted batch job 20")
    submit_array(cluster, tmp_path, print, {0: None}, name="t")
    call = pickle.loads((tmp_path / "20_submitted.pkl").read_bytes()).function
    assert call.limit_s == 60 * minutes - seconds > 0
    assert "--signal=USR2@30" in sbatch(tmp_path, replace(cluster, slurm={"signal_delay_s": 30})), "a profile's own counts"


class Queue:
    """SLURM as submitit sees it in rank 0 of a job: it queues the job again each time."""

    global_rank = 0

    def __init__(self) -> None:
        self.left: list[int] = []

    def _requeue(self, countdown: int) -> None:
        self.left.append(countdown)


def test_a_job_of_ten_minutes_is_queued_again_each_time_although_submitit_counts_every_signal(
    tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """submitit takes every signal for the end of the time where the limit is ten minutes or less."""
    from submitit.core.job_environment import SignalHandler
    from submitit.core.utils import DelayedSubmission, JobPaths

    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    slurm.says("sbatch", "Submitted batch job 20")
    submit_array(ClusterSpec(kind="slurm", timeout_min=10), tmp_path, print, {0: None}, name="t")
    queue, paths = Queue(), JobPaths(tmp_path, job_id="20")
    for _ in range(3):
        handler = SignalHandler(queue, paths, DelayedSubmission.load(paths.submitted_pickle))  # type: ignore[arg-type]
        assert handler.has_timed_out()
        with pytest.raises(SystemExit):
            handler.checkpoint_and_try_requeue(10)
    assert queue.left == [ENDLESS - 1, ENDLESS - 2, ENDLESS - 3]


def test_an_array_has_the_tasks_it_is_given_and_its_own_limit(tmp_path: Path) -> None:
    text = submission(ClusterSpec(kind="slurm"), tmp_path, [3, 0, 1, 7], name="t", at_a_time=2)
    assert "#SBATCH --array=0-1,3,7%2" in text and f"--output={tmp_path}/%A_%a_0_log.out" in text


def test_task_ids_are_shortened_and_none_is_lost() -> None:
    assert ranges([0]) == "0" and ranges(range(5)) == "0-4" and ranges([9, 0, 1, 5, 6, 7]) == "0-1,5-7,9"


@pytest.mark.parametrize("tasks", [[0], [3], [0, 1, 5]])
def test_each_task_gets_the_id_under_which_submitit_looks_for_its_call(tmp_path: Path, slurm: FakeSlurm, tasks: list[int]) -> None:
    slurm.says("sbatch", "Submitted batch job 17")
    arguments = {task: f"argument {task}" for task in tasks}
    ids = submit_array(ClusterSpec(kind="slurm"), tmp_path, print, arguments, name="t")
    assert ids == {task: JobId(number=17, task=task if len(tasks) > 1 else None) for task in tasks}
    calls = {task: pickle.loads((tmp_path / f"{job}_submitted.pkl").read_bytes()).function for task, job in ids.items()}
    assert {task: call.argument for task, call in calls.items()} == arguments and not list(tmp_path.glob("task-*"))


def test_an_answer_without_a_job_id_is_an_error() -> None:
    assert job_number("sbatch: a note\nSubmitted batch job 17\n") == 17
    with pytest.raises(SchedulerError, match="no job id: 'come back later'"):
        job_number("come back later\n")


ARRAY = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
LOOK, STEP, BACK = "squeue --noheader --format=%D --jobs=17", "srun -N 1 -n 1 true", ["scontrol requeue 17", "sleep 60"]


@pytest.mark.parametrize(
    ("restarts", "nodes", "more", "asked"),
    [
        (0, "1", {}, []),
        (1, "2", {}, ["sleep 5", LOOK, STEP]),
        (2, "2", {}, ["sleep 5", LOOK, STEP, STEP]),
        (6, "", {}, ["sleep 5", LOOK, STEP]),  # slurmctld does not answer
        (1, "1", {}, ["sleep 5", LOOK, *BACK, STEP]),  # SLURM ends it while it sleeps
        (10, "1", {}, ["sleep 5", LOOK]),
        (1, "2\n2\n1", {}, ["sleep 5", LOOK, STEP]),
        (1, "1", ARRAY, [line.replace("17", "12_3") for line in ["sleep 5", LOOK, *BACK, STEP]]),
    ],
)
def test_a_later_attempt_waits_keeps_its_nodes_and_takes_a_step_number_of_its_own(
    tmp_path: Path, restarts: int, nodes: str, more: dict[str, str], asked: list[str]
) -> None:
    assert restarted(tmp_path, {"squeue": f"printf '{nodes}'"}, SLURM_RESTART_COUNT=str(restarts), **more) == (0, asked)


@pytest.mark.parametrize(("state", "asked"), [("RUNNING", BACK), ("CANCELLED", [])])
def test_a_kill_that_was_meant_for_a_previous_attempt_sends_a_later_attempt_back_into_the_queue(tmp_path: Path, state: str, asked: list[str]) -> None:
    answers = {"squeue": f"echo {state}", "sleep": f"[ -e {tmp_path}/ended ] || {{ touch {tmp_path}/ended; kill -TERM $PPID; }}"}
    look = "squeue --noheader --states=all --format=%T --jobs=17"
    assert restarted(tmp_path, answers, SLURM_RESTART_COUNT="1") == (143, ["sleep 5", look, *asked])


def restarted(tmp_path: Path, answers: dict[str, str], **environment: str) -> tuple[int, list[str]]:
    """Exit code of the restart script, and the commands that it calls. `answers`: what some commands do, as shell lines."""
    for name in ("sleep", "srun", "scontrol", "squeue"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} $* >>{tmp_path}/asked\n{answers.get(name, '')}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "asked").touch()
    job = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "2", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", RESTART.read_text()], env=os.environ | job | environment, check=False)
    return done.returncode, (tmp_path / "asked").read_text().splitlines()


def test_what_an_attempt_began_on_its_node_ends_with_its_script_and_no_more(tmp_path: Path) -> None:
    begin = "setsid sleep 1200 >/dev/null & echo $!; until grep -qz VSSM_ATTEMPT= /proc/$!/environ; do :; done; exit 7"
    node = {"SLURMD_NODENAME": "node1"}
    other = subprocess.Popen(["sleep", "1200"], env=os.environ | node | {"VSSM_ATTEMPT": "17.1"})
    environment = os.environ | node | {"SLURM_JOB_ID": "17"}
    try:
        script = subprocess.run(["bash", "-c", f"{RESTART.read_text()}\n{begin}"], env=environment, stdout=subprocess.PIPE, text=True, check=False)
        assert script.returncode == 7 and other.poll() is None
        wait_until(lambda: not Path(f"/proc/{script.stdout.strip()}/exe").exists(), "it to end")  # init may leave a zombie
    finally:
        other.kill()
        other.wait()
