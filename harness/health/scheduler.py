"""SLURM: its version, its limits, and what of it a run relies on."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from harness.health.finding import Finding, error, ok, warning
from harness.text import counted, shortened
from jobs.cluster.slurm import SchedulerError, ask, available
from jobs.cluster.slurm_limits import Partition, asked_of, free_jobs, lacking, named_partitions, partitions, slurm_problems
from jobs.experiment.specs import ClusterSpec

PATIENCE_S = 20.0
OLDEST = (20, 11)  # whose words are understood; 22.05 and 24.11 are in the tests
NAMED = 8


def scheduler(cluster: ClusterSpec) -> Iterator[Finding]:
    """What SLURM has, and what it would refuse of the profile."""
    if not available():
        if cluster.kind == "slurm":
            yield error("slurm", "its commands are not on this machine", "run this on a login node, or load SLURM's module")
        else:
            yield ok("slurm", "none here; jobs run on this machine")
        return
    try:
        settings = configuration()
        yield from about(settings)
        yield from rooms(settings, partitions())
        yield from queue(cluster)
    except SchedulerError as failed:
        state = error if cluster.kind == "slurm" else warning
        yield state("slurm", str(failed).splitlines()[-1], "ask again when its controller answers; scontrol ping says")


def configuration() -> dict[str, str]:
    """slurm.conf as the controller has it."""
    lines = ask("scontrol", "show", "config", patience_s=PATIENCE_S).splitlines()
    return {key.strip(): value.strip() for key, mark, value in (line.partition("=") for line in lines) if mark}


def about(settings: dict[str, str]) -> Iterator[Finding]:
    """Version, accounting, requeueing, preemption and limits on a job's memory."""
    version = ask("sinfo", "--version", patience_s=PATIENCE_S).split()[-1]
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    name = f"SLURM {version}, cluster {settings.get('ClusterName', '?')}"
    yield ok("slurm", name) if numbers >= OLDEST else warning("slurm", name, "older than any that was tested; try a grid of one cell first")
    if settings.get("AccountingStorageType", "none").endswith(("none", "(null)")):  # before SLURM 23, and since
        yield warning("accounting", "SLURM keeps no accounts", "nothing to do: states of ended jobs come from the run folder")
    else:
        yield ok("accounting", settings["AccountingStorageType"])
    if settings.get("JobRequeue", "1") == "0":
        yield warning(
            "requeue", "jobs are not queued again unless they ask (JobRequeue=0); ours ask", "launch again if a site rule forbids even that"
        )
    else:
        yield ok("requeue", "jobs that lose their node are queued again")
    preemption = settings.get("PreemptMode", "OFF")
    grace = settings.get("KillWait", "30 sec")
    yield ok("preemption", "none" if preemption == "OFF" else f"{preemption}: stages resume from their last checkpoint; {grace} between the signals")
    constrained = "cgroup" in settings.get("TaskPlugin", "")
    yield (
        ok("limits of a job", "cgroups hold a job to its CPUs and memory")
        if constrained
        else warning("limits of a job", "no cgroups: jobs can take each other's CPUs and memory", "ask for exclusive: true to publish speeds")
    )


def rooms(settings: dict[str, str], known: dict[str, Partition]) -> Iterator[Finding]:
    """Partitions, and how many jobs fit into the queue."""
    lines = [
        f"{each.name}{'*' if each.default else ''} {counted(each.nodes, 'node')} x {each.cpus} CPUs"
        + (f" x {each.gpus} GPUs" if each.gpus else "")
        + (f" up to {each.minutes} min" if each.minutes else "")
        + ("" if each.up else " (down)")
        for each in known.values()
    ]
    yield ok("partitions", shortened(lines, NAMED)) if lines else error("partitions", "there are none", "ask the cluster's support")
    free = free_jobs()
    size = f"arrays of up to {settings.get('MaxArraySize', '1001')} tasks; " + (f"{free} more jobs of yours fit" if free is not None else "no limit")
    yield ok("queue", size) if free is None or free > 0 else warning("queue", size, "wait: a launch submits what fits, and the next one the rest")


def entries(sizes: Iterable[tuple[str, ClusterSpec]]) -> Iterator[Finding]:
    """What SLURM would refuse of the resources of a grid's entries. `sizes`: the cluster that each makes of the profile, and where it stands."""
    for where, cluster in sizes:
        for finding in queue(cluster):
            yield replace(finding, topic="entry", text=f"{where}: {finding.text}", remedy=finding.remedy.replace("profile", "entry"))


def queue(cluster: ClusterSpec) -> Iterator[Finding]:
    """What SLURM would refuse of a profile."""
    if cluster.kind != "slurm":
        return
    problems = slurm_problems(cluster)
    for problem in problems:
        yield error("profile", problem, "correct the profile")
    names = named_partitions(cluster)
    known = partitions() if len(names) > 1 and not problems else {}
    for name in names if known else ():
        if lack := lacking(known[name], asked_of(cluster)):
            yield warning(
                "profile", f"partition {name} never takes its jobs: it has {lack}", "nothing to do, for another partition takes them; or leave it out"
            )
    if not problems:
        size = f"{counted(cluster.nodes, 'node')} x {counted(cluster.tasks_per_node, 'rank')} x {counted(cluster.cpus_per_task, 'CPU')}"
        yield ok("profile", f"SLURM would take its jobs: {size}, {counted(cluster.gpus_per_node, 'GPU')} a node, {cluster.timeout_min} min")
