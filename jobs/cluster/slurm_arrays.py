"""SLURM job arrays: submitit's scripts, pickles and requeueing, with task ids, dependencies and patience of ours."""

import re
import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from jobs.cluster.slurm import SchedulerError, ask
from jobs.cluster.submitit_jobs import OnNode
from jobs.experiment.specs import ClusterSpec

ENDLESS = 1_000_000  # how often submitit may queue a job again that ran into its time limit; OnNode ends one that makes no headway
SIGNAL_S = 90  # from USR2 to the time limit
# A node that comes back gets its job again, if it has the room, and orders to kill what was left of it there. Those by job are obeyed within seconds,
# whatever has begun since: so a later attempt waits. They may end its script, for whose job SLURM knows of no end, or take a node from the job, whose srun
# would wait for that for ever: then the job goes back into the queue, but for every tenth restart, so that a squeue of another mind cannot keep it there.
# Orders by step, which slurmctld repeats for minutes, name the number of the earlier attempt's step: so restart k leaves k mod 5 numbers to steps that do
# nothing. squeue takes the bare id of an array's last task for the whole array.
AGAIN = """if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} job=${job:-$SLURM_JOB_ID}
    back() { [ $((SLURM_RESTART_COUNT % 10)) -eq 0 ] || { echo "$1: back into the queue"; scontrol requeue "$job" && sleep 60; }; }
    trap '[ "$(squeue --noheader --states=all --format=%T --jobs="$job")" != RUNNING ] || back "an order to end an earlier attempt"; exit 143' TERM
    sleep 5 & wait $!
    nodes=$(squeue --noheader --format=%D --jobs="$job")
    if [ "${nodes:-$SLURM_JOB_NUM_NODES}" -lt "$SLURM_JOB_NUM_NODES" ]; then back "SLURM has left this job $nodes of its $SLURM_JOB_NUM_NODES nodes"; fi
    for _ in $(seq $((SLURM_RESTART_COUNT % 5))); do srun -N 1 -n 1 true; done
    trap - TERM
fi"""
# A node whose slurmd died has tasks that no srun holds any more. One that is still there when slurmd is back makes SLURM kill all that has the number of
# the job, a new attempt's script too: so the tasks on its node end with the script.
TOGETHER = """export VSSM_ATTEMPT=$SLURM_JOB_ID.$(date +%s%N)
together() { grep -lzsxF "VSSM_ATTEMPT=$VSSM_ATTEMPT" /proc/[0-9]*/environ | xargs -r grep -lzsxF "SLURMD_NODENAME=$SLURMD_NODENAME" | cut -d/ -f3; }
trap 'kill -9 $(together) 2>/dev/null' EXIT"""
# A signal that comes before submitit listens to it would kill the job; what a process ignores, the program that it becomes ignores too.
IGNORING_USR2 = """sh -c 'trap "" USR2; exec "$0" "$@"'"""


def submit_array(
    cluster: ClusterSpec,
    folder: Path,
    function: Callable[[Any], None],
    arguments: Mapping[int, Any],
    *,
    name: str,
    after: str = "",
    at_a_time: int = 0,
    headway: Callable[[Any], object] | None = None,
) -> dict[int, str]:
    """Job ids by task id: one array, or for one argument a plain job. `folder` must be its own: submitit trusts results of an earlier job.

    after: SLURM's dependency, such as 'aftercorr:17'; a job whose dependency can never hold leaves the queue. at_a_time: jobs of the array, 0: all.
    headway: see OnNode. Raises SchedulerError with SLURM's words when it refuses, SchedulerSilent when it does not answer.
    """
    timeouts = cluster.slurm.get("max_num_timeout", ENDLESS)
    script = folder / "submission.sh"
    script.write_text(submission(cluster, folder, list(arguments), name=name, after=after, at_a_time=at_a_time))
    limit_s = 60 * cluster.timeout_min - cluster.slurm.get("signal_delay_s", SIGNAL_S)
    for task, argument in arguments.items():
        call = OnNode(function=function, argument=argument, headway=headway, limit_s=limit_s)
        dump(call, folder / f"task-{task}.pkl", cluster.timeout_min, timeouts)
    job = job_id(ask("sbatch", str(script)))
    names = {task: f"{job}_{task}" if len(arguments) > 1 else job for task in arguments}
    for task, named in names.items():
        (folder / f"task-{task}.pkl").rename(folder / f"{named}_submitted.pkl")
    return names


def dump(call: OnNode, path: Path, timeout_min: int, timeouts: int) -> None:
    """Writes what submitit runs on the node."""
    from submitit.core.utils import DelayedSubmission

    delayed = DelayedSubmission(call)
    delayed.set_timeout(timeout_min, timeouts)
    delayed.dump(path)


def submission(cluster: ClusterSpec, folder: Path, tasks: Collection[int], *, name: str, after: str = "", at_a_time: int = 0) -> str:
    """The script that sbatch takes."""
    from submitit.slurm.slurm import _make_sbatch_string

    parameters = slurm_parameters(cluster, name, after)
    parameters.pop("max_num_timeout", None)
    if len(tasks) > 1:
        parameters["map_count"] = len(tasks)
        parameters["additional_parameters"] = {"array": ranges(tasks) + (f"%{at_a_time}" if at_a_time else ""), **parameters["additional_parameters"]}
    command = f"{IGNORING_USR2} {shlex.quote(sys.executable)} -u -m jobs.cluster.start {shlex.quote(str(folder.resolve()))}"
    return str(_make_sbatch_string(command=command, folder=folder.resolve(), **parameters))


def slurm_parameters(cluster: ClusterSpec, name: str, after: str = "") -> dict[str, Any]:
    """submitit's SLURM parameters for a cluster: what the profile says, with the defaults that jobs of several ranks need."""
    given = {key.removeprefix("slurm_"): value for key, value in cluster.slurm.items()}
    waits = ",".join(one for one in (after, given.pop("dependency", "")) if one)
    # A rank that dies ends the job: without the first the others wait for their collective. srun no longer takes the second from sbatch, since 22.05.
    srun = ["--kill-on-bad-exit=1", f"--cpus-per-task={cluster.cpus_per_task}", *given.pop("srun_args", ())]
    more = {"requeue": True, **({"dependency": waits, "kill-on-invalid-dep": "yes"} if waits else {}), **given.pop("additional_parameters", {})}
    exports = [f"export {key}={shlex.quote(str(value))}" for key, value in cluster.environment.items()]
    parameters: dict[str, Any] = {
        "job_name": name,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "time": cluster.timeout_min,
        "signal_delay_s": SIGNAL_S,
        "stderr_to_stdout": True,
        "use_srun": True,
        "srun_args": srun,
        "additional_parameters": more,
        "setup": [*exports, AGAIN, TOGETHER, *cluster.setup],  # an order may come at once, and modules take their time
        # submitit forces --wckey=submitit unless told otherwise, and some clusters reject it
        "wckey": None,
        **given,
    }
    if cluster.gpus_per_node:
        parameters["gpus_per_node"] = cluster.gpus_per_node
    if cluster.mem_gb:
        parameters["mem"] = f"{round(1024 * cluster.mem_gb)}MB"
    return parameters


def job_id(answer: str) -> str:
    """The id in what sbatch says."""
    found = re.search(r"Submitted batch job (\d+)", answer)
    if found is None:
        raise SchedulerError(f"sbatch gave no job id: {answer.strip()!r}")
    return found[1]


def ranges(tasks: Collection[int]) -> str:
    """Task ids in SLURM's short form, such as '0-4,7'."""
    ordered = sorted(tasks)
    gaps = [0, *(place for place, (one, other) in enumerate(pairwise(ordered), 1) if other - one > 1), len(ordered)]
    runs = [ordered[first:last] for first, last in pairwise(gaps)]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
