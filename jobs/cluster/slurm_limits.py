"""SLURM's limits, and what a profile asks beyond them: known before anything is submitted."""

import getpass
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.cluster.slurm import SchedulerError, SchedulerSilent, ask
from jobs.cluster.slurm_arrays import stated, submission
from jobs.cluster.surroundings import sbatch_options
from jobs.experiment.specs import ClusterSpec
from models.text import valid_names

NOT_NOW = "Requested node configuration is not available"
UNAVAILABLE = re.compile(r"down|drain|fail|unk|maint|reboot|power|\*")  # states of nodes that take no job now


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition: its limits, and the largest CPU count, memory and GPU count of its nodes."""

    name: str
    default: bool
    up: bool
    nodes: int  # of one job
    minutes: int | None  # of one job; None: no limit
    cpus: int
    memory_mb: int
    gpus: int


Asked = tuple[int, str, Callable[[Partition], int | None]]


def slurm_problems(cluster: ClusterSpec) -> list[str]:
    """What SLURM would refuse of a profile, one sentence each: partition, size and time, with what the cluster has; else SLURM's own message."""
    try:
        return [*broken_limits(cluster, partitions())] or refused(cluster)
    except SchedulerSilent as error:
        return [f"cluster: {error}; launch again when it does"]
    except SchedulerError as error:
        return [f"cluster: {error}"]


def broken_limits(cluster: ClusterSpec, known: Mapping[str, Partition]) -> Iterable[str]:
    """One sentence for every unknown partition, and for every number of a profile that none of its partitions allows. `known`: partitions by name.

    Of several partitions, SLURM takes the one in which a job starts first, and passes over those that are too small for it.
    """
    names = named_partitions(cluster) or [name for name, partition in known.items() if partition.default]
    if not names:
        yield f"cluster.partition: missing, and this cluster has no default partition; valid: {', '.join(known)}"
    for name in names:
        if name not in known:
            yield f"cluster.partition: no partition '{name}'{valid_names(name, known)}"
        elif not known[name].up:
            yield f"cluster.partition: '{name}' is down; valid: {', '.join(partition.name for partition in known.values() if partition.up)}"
    chosen, asked, before = [known[name] for name in names if name in known], asked_of(cluster), 0
    for key, (wanted, unit, limit_of) in asked.items():
        limits = [limit_of(partition) for partition in chosen]
        if limits and all(limit is not None and wanted > limit for limit in limits):
            before += 1
            offered = ", ".join(f"{partition.name} up to {limit}" for partition, limit in zip(chosen, limits, strict=True))
            yield f"cluster.{key}: {wanted} {unit} asked for; {offered}{alternatives(known, chosen, wanted, limit_of)}"
    short = [(partition.name, lacking(partition, asked)) for partition in chosen]
    if not before and short and all(lack for _, lack in short):  # each number fits somewhere, and all of them nowhere
        yield f"cluster.partition: no one of them takes the whole job: {'; '.join(f'{name} has {lack}' for name, lack in short)}"


def named_partitions(cluster: ClusterSpec) -> list[str]:
    """The partitions that a profile names, of which SLURM takes one; empty if it leaves that to SLURM."""
    given = str(cluster.slurm.get("partition") or "")
    return [name.strip() for name in given.split(",")] if given else []


def asked_of(cluster: ClusterSpec) -> Mapping[str, Asked]:
    """The numbers that a job asks for, by the key of the profile: number, unit, and what a partition allows of it (None: any number)."""
    return {
        "nodes": (cluster.nodes, "nodes", lambda partition: partition.nodes),
        "timeout_min": (cluster.timeout_min, "minutes", lambda partition: partition.minutes),
        "tasks_per_node x cpus_per_task": (cluster.tasks_per_node * cluster.cpus_per_task, "CPUs of a node", lambda partition: partition.cpus),
        "mem_gb": (round(1024 * (cluster.mem_gb or 0)), "MB of a node", lambda partition: partition.memory_mb),
        "gpus_per_node": (cluster.gpus_per_node, "GPUs of a node", lambda partition: partition.gpus),
    }


def lacking(partition: Partition, asked: Mapping[str, Asked]) -> str:
    """What a partition has too little of, '30 minutes of 60'; empty if it takes the job."""
    limits = ((wanted, unit, limit_of(partition)) for wanted, unit, limit_of in asked.values())
    return ", ".join(f"{limit} {unit} of {wanted}" for wanted, unit, limit in limits if limit is not None and wanted > limit)


def alternatives(known: Mapping[str, Partition], chosen: Collection[Partition], wanted: int, limit_of: Callable[[Partition], int | None]) -> str:
    """The end of such a sentence: the other partitions that would do."""
    others = {partition.name: limit_of(partition) for partition in known.values() if partition not in chosen and partition.up}
    fits = [name for name, limit in others.items() if limit is None or wanted <= limit]
    return f"; enough in {', '.join(fits)}" if fits else "; no partition has more"


def refused(cluster: ClusterSpec) -> list[str]:
    """SLURM's answer to a test submission; empty if it would take the job.

    While nodes are down, drained, or silent after a restart of slurmctld, SLURM refuses the test, although it would take the job and let it wait.
    """
    with TemporaryDirectory() as folder:
        script = Path(folder) / "submission.sh"
        script.write_text(submission(cluster, Path(folder), [0], name="test"), encoding="utf-8", errors="surrogateescape")
        try:
            ask("sbatch", "--test-only", *sbatch_options(stated(cluster)), str(script))
        except SchedulerSilent:
            raise
        except SchedulerError as error:
            if NOT_NOW in str(error) and UNAVAILABLE.search(ask("sinfo", "--noheader", "--format=%T")):
                return []
            return [f"cluster: SLURM would refuse these jobs: {str(error).partition(': ')[2]}"]
    return []


def partitions() -> dict[str, Partition]:
    """All partitions by name, as slurmctld sees them now."""
    sizes: dict[str, list[tuple[int, int, int]]] = {}
    for text in ask("sinfo", "--noheader", "--Node", "--format=%R|%c|%m|%G").splitlines():
        name, cpus, memory, gres = text.split("|")
        sizes.setdefault(name, []).append((number(cpus), number(memory), gpus(gres)))
    by_name = {}
    for text in ask("scontrol", "show", "partition", "--oneliner").splitlines():
        fields = dict(word.split("=", 1) for word in text.split() if "=" in word)
        name, nodes = fields["PartitionName"], number(fields["TotalNodes"])
        largest = [max(column) for column in zip(*sizes.get(name, [(0, 0, 0)]), strict=True)]
        by_name[name] = Partition(
            name=name,
            default=fields["Default"] == "YES",
            up=fields["State"] == "UP",
            nodes=nodes if fields["MaxNodes"] == "UNLIMITED" else min(nodes, number(fields["MaxNodes"])),
            minutes=None if fields["MaxTime"] == "UNLIMITED" else minutes(fields["MaxTime"]),
            cpus=largest[0],
            memory_mb=largest[1],
            gpus=largest[2],
        )
    return by_name


def gpus(gres: str) -> int:
    """The GPUs of a node: 6 for 'gpu:a100:4(S:0-1),gpu:v100:2,other:1', 2 for 'gpu:2'."""
    return sum(int(count) for count in re.findall(r"gpu:(?:[^,:()]+:)?(\d+)", gres))


def number(text: str) -> int:
    """A number as SLURM writes it: '8', or '8+' for 8 and more."""
    return int(re.sub(r"\D.*", "", text) or 0)


def minutes(text: str) -> int:
    """SLURM's '1-02:30:00', '30:00' in minutes, rounded down."""
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, mins = parts[0] if len(parts) == 3 else 0, parts[-2]
    return 1440 * int(days or 0) + 60 * hours + mins


def max_array_size() -> int:
    """The most tasks of one array; they are numbered from 0. If arrays are switched off (0), 1: a plain job."""
    return max(1, int(configuration("MaxArraySize") or 1001))


def free_jobs(account: str | None = None) -> int | None:
    """How many more jobs this user may have in the queue now; None for no limit."""
    own = len(ask("squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i").splitlines())
    rooms = [limit - own for limit in submit_limits(account)]
    if max_jobs := configuration("MaxJobCount"):
        rooms.append(int(max_jobs) - len(ask("squeue", "--noheader", "--array", "--states=all", "--format=%i").splitlines()))
    return max(0, min(rooms)) if rooms else None


def submit_limits(account: str | None) -> list[int]:
    """MaxSubmitJobs of this user's associations on this cluster and of their QOS; empty if SLURM keeps no accounts."""
    where = ["where", f"user={getpass.getuser()}", f"cluster={configuration('ClusterName')}", *([f"account={account}"] if account else [])]
    try:
        associations = accounts("show", "assoc", *where, "format=MaxSubmitJobs,QOS")
        qos = accounts("show", "qos", "format=Name,MaxSubmitJobsPerUser")
    except SchedulerError:
        return []
    allowed = {name for _, names in associations for name in names.split(",")}
    limits = [limit for limit, _ in associations] + [limit for name, limit in qos if name in allowed]
    return [int(limit) for limit in limits if limit]


def accounts(*question: str) -> list[tuple[str, str]]:
    """The two columns of sacctmgr's answer."""
    text = ask("sacctmgr", "-nP", *question, patience_s=0.0, say=lambda text: None)
    return [(first, second) for first, _, second in (row.partition("|") for row in text.splitlines())]


def configuration(key: str) -> str | None:
    """A value of slurm.conf as slurmctld has it; None if it is not there."""
    match = re.search(rf"^{key}\s*=\s*(\S+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return match[1] if match else None
