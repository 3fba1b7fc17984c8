"""The container of a profile: its runtime, its image and its mounts, as this machine has them."""

import shutil
import subprocess
from collections.abc import Iterator

from harness.health.finding import Finding, error, ok, warning
from harness.plan.containers import container_problems
from harness.text import counted
from jobs.experiment.specs import ClusterSpec, ContainerSpec

LIMIT_S = 30
OPTION = "--container-image"  # of srun, where pyxis is a part of it


def container(cluster: ClusterSpec) -> Iterator[Finding]:
    """What there is to say of a profile's container; nothing where it has none."""
    if cluster.container is None:
        return
    version = runtime_version(cluster.container)
    if version is None:
        remedy = "ask the cluster's support whether its nodes have it; `setup` may load its module there"
        yield warning("container", f"{cluster.container.runtime} is not on this machine", remedy)
    else:
        yield ok("container", version)
    problems = container_problems(cluster)
    yield from (error("container", problem, "correct the profile") for problem in problems)
    if not problems:
        yield ok("container", f"{cluster.container.image}, with {counted(len(cluster.container.mounts), 'mount')} beside those of a run")


def runtime_version(container: ContainerSpec) -> str | None:
    """The runtime of this machine in a few words; None where it has none."""
    if container.runtime == "apptainer":
        return answer("apptainer", "--version") if shutil.which("apptainer") else None
    has = shutil.which("srun") and OPTION in (answer("srun", "--help") or "")
    return "srun has pyxis" if has else None


def answer(*command: str) -> str | None:
    """What a command prints; None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
