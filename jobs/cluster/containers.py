"""Job lines for a container: pyxis' options of srun, or apptainer's command, and what of a batch script serves the tasks inside.

The batch script itself runs on its node as ever, with `restart.sh` and the profile's `setup`. Its srun starts the tasks inside the image.

pyxis      (NVIDIA's plugin of SLURM) joins each task to a container that enroot made: signals and exit codes are the task's own.
apptainer  stays as a parent of its task; without a terminal it passes on every signal, and it ends as its task ends.

Both let the variables of a job through, but for those that the image sets itself, and give the image's own PATH. So what a profile sets is set again
inside, by `env`. SLURM's commands are not in an image: `outside.sh` has them run by the batch script.
"""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.experiment.containers import is_file
from jobs.experiment.specs import ClusterSpec, ContainerSpec

OUTSIDE = Path(__file__).with_name("outside.sh")  # runs SLURM's commands for tasks that have none; the file tells how
SERVED = "VSSM_OUTSIDE"  # the variable by which tasks inside a container know where to leave their calls
PYTHON = "python3"  # the image's own, by its PATH
# Of the image's system: signals are held off until Python listens, a node's TMPDIR that is not mounted is forgotten, SLURM's commands are found, and
# variables of the profile replace the image's.
ENTER = 'trap "" USR2; [ -d "${TMPDIR:-/}" ] || unset TMPDIR; PATH="${VSSM_OUTSIDE:+$VSSM_OUTSIDE:}$PATH"; export PATH; exec env -u PYTHONHOME "$@"'
HOLDING_USR2 = ("sh", "-c", 'trap "" USR2; exec "$@"', "sh")  # outside, until apptainer passes signals on
GPUS_OF_ENROOT = (
    "NVIDIA_VISIBLE_DEVICES=all",
    "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
)  # what enroot's hook shows; cgroups keep the others away


def srun_options(container: ContainerSpec, folder: Path) -> list[str]:
    """What srun gets for a container. `folder`: where the tasks start, which must be mounted."""
    if container.runtime == "apptainer":
        return []
    mounts = [f"--container-mounts={','.join(container.mounts)}"] if container.mounts else []
    return [f"--container-image={container.image}", *mounts, f"--container-workdir={folder}", "--no-container-mount-home"]


def command_inside(container: ContainerSpec, words: Sequence[str], variables: Mapping[str, str], folder: Path, *, gpus: bool) -> list[str]:
    """The words that srun starts for a Python command inside. `words`: behind the image's Python. `variables`: set there, whatever the image says."""
    inside = ["sh", "-c", ENTER, "sh", *(f"{name}={value}" for name, value in variables.items()), PYTHON, *words]
    if container.runtime == "pyxis":
        return inside
    binds = [word for mount in container.mounts for word in ("--bind", mount)]
    options = ["--no-eval", "--no-mount", "home,cwd", *(["--nv"] if gpus else []), "--pwd", str(folder), *binds]
    return [*HOLDING_USR2, "apptainer", "exec", *options, container.image, *inside]


def task_command(cluster: ClusterSpec, container: ContainerSpec, folder: Path) -> str:
    """The shell command of each task of an array whose folder is `folder`."""
    words = ["-u", "-m", "jobs.cluster.start", str(folder)]
    return shlex.join(command_inside(container, words, inside_variables(cluster.environment), folder, gpus=cluster.promised_gpus))


def inside_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are set inside: the profile's, and no packages of a home folder beside the image's."""
    return {"PYTHONNOUSERSITE": "1", **{name: str(value) for name, value in environment.items()}}


def called_outside(words: Sequence[str], variables: Mapping[str, str], folder: str, limit_s: float) -> list[str]:
    """The words by which a task has its batch script run a command, in `folder` if it is there, for at most so many seconds.

    Where no container is around the task, the words as they are.
    """
    outside = os.environ.get(SERVED)
    if not outside:
        return [*words]
    start = ["sh", "-c", '[ ! -d "$0" ] || cd "$0"; exec "$@"', folder]
    return [f"{outside}/outside", "timeout", str(limit_s), *start, "env", *(f"{name}={value}" for name, value in variables.items()), *words]


def with_container(parameters: Mapping[str, Any], cluster: ClusterSpec, container: ContainerSpec, folder: Path) -> dict[str, Any]:
    """submitit's parameters of a job, with what its srun and its batch script need for a container."""
    srun = [*parameters["srun_args"], *srun_options(container, folder)]
    return {**parameters, "srun_args": srun, "setup": [*script_lines(cluster, container, folder), *parameters["setup"]]}


def script_lines(cluster: ClusterSpec, container: ContainerSpec, folder: Path) -> Iterable[str]:
    """Shell lines of the batch script: an image that has changed ends the job, GPUs for enroot, and SLURM's commands for the tasks."""
    if is_file(container) and Path(container.image).is_file():
        status = Path(container.image).stat()
        image, stamp = shlex.quote(container.image), f"{status.st_size}.{int(status.st_mtime)}"
        words = f'echo {image} "has changed since the launch, or is gone: launch again" >&2; exit 1'
        yield f'[ "$(stat -Lc %s.%Y {image})" = {stamp} ] || {{ {words}; }}'
    if container.runtime == "pyxis" and cluster.promised_gpus:
        for variable in GPUS_OF_ENROOT:
            name, _, value = variable.partition("=")
            yield f'export {name}="${{{name}:-{value}}}"'
    yield f"{SERVED}={shlex.quote(str(folder))}/outside-$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}"
    yield OUTSIDE.read_text(encoding="utf-8").rstrip()
