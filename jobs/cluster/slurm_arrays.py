"""SLURM job arrays: submitit's scripts, pickles and requeueing, with our own task ids, dependencies and patience."""

import re
import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from jobs.cluster.containers import task_command, with_container
from jobs.cluster.slurm import SchedulerError, ask
from jobs.cluster.submitit_jobs import ResumableCall
from jobs.cluster.surroundings import sbatch_options
from jobs.experiment.ids import JobId
from jobs.experiment.specs import ClusterSpec

ENDLESS = 1_000_000  # how often submitit may queue a job again that reaches its time limit; ResumableCall ends a job that makes no progress
SIGNAL_S = 90  # from USR2 to the time limit, at most
SIGNAL_FRACTION = 1 / 4  # of the time limit, at most: a job of a minute or two has other things to do than to end
RESTART = Path(__file__).with_name("restart.sh")  # what an attempt at a job does before and after everything else; the file tells why
# A signal that comes before submitit listens to it would kill the job. What a process ignores, the program that replaces it ignores too.
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
    progress: Callable[[Any], object] | None = None,
) -> dict[int, JobId]:
    """Job ids by task: those of one array, or of a plain job if there is one argument. `arguments`: of the function, by task.

    folder: of this submission alone, since submitit trusts results of an earlier job. after: SLURM's dependency, such as 'aftercorr:17'; a job whose
    dependency can never hold leaves the queue. at_a_time: how many jobs of the array may run at the same time, 0: all. progress: see ResumableCall.
    Raises SchedulerError with SLURM's message if it refuses, and SchedulerSilent if it does not answer.
    """
    timeouts = cluster.slurm.get("max_num_timeout", ENDLESS)
    script = folder / "submission.sh"
    text = submission(cluster, folder, list(arguments), name=name, after=after, at_a_time=at_a_time)
    script.write_text(text, encoding="utf-8", errors="surrogateescape")
    limit_s = 60 * cluster.timeout_min - signal_s(cluster)
    for task, argument in arguments.items():
        call = ResumableCall(function=function, argument=argument, progress=progress, limit_s=limit_s)
        dump(call, folder / f"task-{task}.pkl", cluster.timeout_min, timeouts)
    number = job_number(ask("sbatch", *sbatch_options(stated(cluster)), str(script)))
    ids = {task: JobId(number=number, task=task if len(arguments) > 1 else None) for task in arguments}
    for task, job in ids.items():
        (folder / f"task-{task}.pkl").rename(folder / f"{job}_submitted.pkl")
    return ids


def signal_s(cluster: ClusterSpec) -> int:
    """Seconds before the time limit at which SLURM tells a job to leave: those of the profile, else 90, or less for a job of a few minutes."""
    return int(cluster.slurm.get("signal_delay_s", min(SIGNAL_S, 60 * cluster.timeout_min * SIGNAL_FRACTION)))


def dump(call: ResumableCall, path: Path, timeout_min: int, timeouts: int) -> None:
    """Writes the call that submitit makes on the node."""
    from submitit.core.utils import DelayedSubmission

    delayed = DelayedSubmission(call)
    delayed.set_timeout(timeout_min, timeouts)
    delayed.dump(path)


def submission(cluster: ClusterSpec, folder: Path, tasks: Collection[int], *, name: str, after: str = "", at_a_time: int = 0) -> str:
    """The script for sbatch."""
    from submitit.slurm.slurm import _make_sbatch_string

    parameters = slurm_parameters(cluster, name, after)
    parameters.pop("max_num_timeout", None)
    if len(tasks) > 1:
        parameters["map_count"] = len(tasks)
        parameters["additional_parameters"] = {"array": ranges(tasks) + (f"%{at_a_time}" if at_a_time else ""), **parameters["additional_parameters"]}
    command = f"{IGNORING_USR2} {shlex.quote(sys.executable)} -u -m jobs.cluster.start {shlex.quote(str(folder.resolve()))}"
    if cluster.container:
        command = task_command(cluster, cluster.container, folder.resolve())
        parameters = with_container(parameters, cluster, cluster.container, folder.resolve())
    return str(_make_sbatch_string(command=command, folder=folder.resolve(), **parameters))


def slurm_parameters(cluster: ClusterSpec, name: str, after: str = "") -> dict[str, Any]:
    """submitit's SLURM parameters for a cluster: those of the profile, and the defaults that jobs of several ranks need."""
    given = {key.removeprefix("slurm_"): value for key, value in cluster.slurm.items()}
    waits = ",".join(filter(None, (after, given.pop("dependency", ""))))
    # --kill-on-bad-exit: a rank that dies ends the job, whose other ranks would wait for it in a collective.
    # --cpus-per-task: since SLURM 22.05, srun no longer takes it from sbatch.
    srun = ["--kill-on-bad-exit=1", f"--cpus-per-task={cluster.cpus_per_task}", *given.pop("srun_args", ())]
    more = {"requeue": True, **({"dependency": waits, "kill-on-invalid-dep": "yes"} if waits else {}), **given.pop("additional_parameters", {})}
    exports = [f"export {key}={shlex.quote(str(value))}" for key, value in cluster.environment.items()]
    parameters: dict[str, Any] = {
        "job_name": name,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "time": cluster.timeout_min,
        "signal_delay_s": signal_s(cluster),
        "stderr_to_stdout": True,
        "use_srun": True,
        "srun_args": srun,
        "additional_parameters": more,
        "setup": [
            *exports,
            RESTART.read_text(encoding="utf-8").rstrip(),
            *cluster.setup,
        ],  # before the profile's lines, which may take their time: kills come at once
        "wckey": None,  # by default submitit sends --wckey=submitit, which some clusters reject
        **given,
    }
    if cluster.gpus_per_node:
        parameters["gpus_per_node"] = cluster.gpus_per_node
    if cluster.mem_gb:
        parameters["mem"] = f"{round(1024 * cluster.mem_gb)}MB"
    return parameters


def stated(cluster: ClusterSpec) -> dict[str, object]:
    """The options of sbatch that a cluster's profile gives, by SLURM's names."""
    given = {key.removeprefix("slurm_"): value for key, value in cluster.slurm.items()}
    return {**given, **given.get("additional_parameters", {})}


def job_number(answer: str) -> int:
    """The number of the submitted job in sbatch's answer."""
    match = re.search(r"Submitted batch job (\d+)", answer)
    if match is None:
        raise SchedulerError(f"sbatch gave no job id: {answer.strip()!r}")
    return int(match[1])


def ranges(tasks: Collection[int]) -> str:
    """Task ids in SLURM's short form, such as '0-4,7'."""
    ordered = sorted(tasks)
    gaps = [0, *(index for index, (before, after) in enumerate(pairwise(ordered), 1) if after - before > 1), len(ordered)]
    runs = [ordered[first:last] for first, last in pairwise(gaps)]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
