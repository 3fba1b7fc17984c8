"""What SLURM says it can do, and what a profile asks of it that it cannot: told before anything is submitted."""

import getpass
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.cluster.slurm import SchedulerError, SchedulerSilent, ask
from jobs.cluster.slurm_arrays import submission
from jobs.experiment.specs import ClusterSpec
from models.text import valid_names

NOT_NOW = "Requested node configuration is not available"
AWAY = re.compile(r"down|drain|fail|unk|maint|reboot|power|\*")  # states of nodes that take no job now


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition and its largest node of each kind."""

    name: str
    default: bool
    up: bool
    nodes: int  # that one job may have
    minutes: int | None  # None: no limit
    cpus: int
    memory_mb: int
    gpus: int


def slurm_problems(cluster: ClusterSpec) -> list[str]:
    """What SLURM would refuse of a profile, one sentence each; in SLURM's own words where it is something else than size, time and partition."""
    try:
        found = partitions()
        return [*broken_limits(cluster, found)] or refused(cluster)
    except SchedulerSilent as error:
        return [f"cluster: {error}; launch again when it does"]
    except SchedulerError as error:
        return [f"cluster: {error}"]


def broken_limits(cluster: ClusterSpec, known: Mapping[str, Partition]) -> Iterable[str]:
    """One sentence for every number of a profile that none of its partitions allows."""
    given = str(cluster.slurm.get("partition") or "")
    names = given.split(",") if given else [name for name, one in known.items() if one.default]
    if not names:
        yield f"cluster.partition: not given, and this cluster has no default one; valid: {', '.join(known)}"
    for name in names:
        if name not in known:
            yield f"cluster.partition: no partition '{name}'{valid_names(name, known)}"
        elif not known[name].up:
            yield f"cluster.partition: '{name}' is down; valid: {', '.join(one.name for one in known.values() if one.up)}"
    chosen = [known[name] for name in names if name in known]
    asked: dict[str, tuple[int, str, Callable[[Partition], int | None]]] = {
        "nodes": (cluster.nodes, "nodes", lambda one: one.nodes),
        "timeout_min": (cluster.timeout_min, "minutes", lambda one: one.minutes),
        "tasks_per_node x cpus_per_task": (cluster.tasks_per_node * cluster.cpus_per_task, "CPUs of a node", lambda one: one.cpus),
        "mem_gb": (round(1024 * (cluster.mem_gb or 0)), "MB of a node", lambda one: one.memory_mb),
        "gpus_per_node": (cluster.gpus_per_node, "GPUs of a node", lambda one: one.gpus),
    }
    for key, (wanted, what, limit_of) in asked.items():
        limits = [limit_of(one) for one in chosen]
        if limits and all(limit is not None and wanted > limit for limit in limits):
            offered = ", ".join(f"{one.name} up to {limit}" for one, limit in zip(chosen, limits, strict=True))
            yield f"cluster.{key}: {wanted} {what} asked for; {offered}{elsewhere(known, chosen, wanted, limit_of)}"


def elsewhere(known: Mapping[str, Partition], chosen: Collection[Partition], wanted: int, limit_of: Callable[[Partition], int | None]) -> str:
    """Which other partitions would do."""
    others = {one.name: limit_of(one) for one in known.values() if one not in chosen and one.up}
    fits = [name for name, limit in others.items() if limit is None or wanted <= limit]
    return f"; enough in {', '.join(fits)}" if fits else "; no partition has more"


def refused(cluster: ClusterSpec) -> list[str]:
    """SLURM's answer to a submission that is only a question; nothing where it would take it.

    While nodes are down, drained, or not heard of yet after slurmctld was started anew, it says no to what it would take, and lets wait for them.
    """
    with TemporaryDirectory() as folder:
        script = Path(folder) / "submission.sh"
        script.write_text(submission(cluster, Path(folder), [0], name="test"))
        try:
            ask("sbatch", "--test-only", str(script))
        except SchedulerSilent:
            raise
        except SchedulerError as error:
            if NOT_NOW in str(error) and AWAY.search(ask("sinfo", "--noheader", "--format=%T")):
                return []
            return [f"cluster: SLURM would refuse these jobs: {str(error).partition(': ')[2]}"]
    return []


def partitions() -> dict[str, Partition]:
    """All of them by name, as slurmctld sees them now."""
    sizes: dict[str, list[tuple[int, int, int]]] = {}
    for text in ask("sinfo", "--noheader", "--Node", "--format=%R|%c|%m|%G").splitlines():
        name, cpus, memory, gres = text.split("|")
        sizes.setdefault(name, []).append((number(cpus), number(memory), gpus(gres)))
    found = {}
    for text in ask("scontrol", "show", "partition", "--oneliner").splitlines():
        fields = dict(word.split("=", 1) for word in text.split() if "=" in word)
        name, nodes = fields["PartitionName"], number(fields["TotalNodes"])
        largest = [max(column) for column in zip(*sizes.get(name, [(0, 0, 0)]), strict=True)]
        found[name] = Partition(
            name=name,
            default=fields["Default"] == "YES",
            up=fields["State"] == "UP",
            nodes=nodes if fields["MaxNodes"] == "UNLIMITED" else min(nodes, number(fields["MaxNodes"])),
            minutes=None if fields["MaxTime"] == "UNLIMITED" else minutes(fields["MaxTime"]),
            cpus=largest[0],
            memory_mb=largest[1],
            gpus=largest[2],
        )
    return found


def gpus(gres: str) -> int:
    """GPUs of a node: 6 of 'gpu:a100:4(S:0-1),gpu:v100:2,other:1', 2 of 'gpu:2'."""
    return sum(int(count) for count in re.findall(r"gpu:(?:[^,:()]+:)?(\d+)", gres))


def number(text: str) -> int:
    """A number of SLURM's: '8', '8+'."""
    return int(re.sub(r"\D.*", "", text) or 0)


def minutes(text: str) -> int:
    """SLURM's '1-02:30:00', '30:00' in minutes, rounded down."""
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, mins = parts[0] if len(parts) == 3 else 0, parts[-2]
    return 1440 * int(days or 0) + 60 * hours + mins


def max_array_size() -> int:
    """The most tasks of one array, which are numbered from 0. Where arrays are switched off (0), one: a plain job."""
    return max(1, int(configuration("MaxArraySize") or 1001))


def free_jobs(account: str | None = None) -> int | None:
    """How many more jobs this user may have in the queue now; None where nothing limits them."""
    mine = len(ask("squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i").splitlines())
    rooms = [limit - mine for limit in submit_limits(account)]
    if most := configuration("MaxJobCount"):
        rooms.append(int(most) - len(ask("squeue", "--noheader", "--array", "--states=all", "--format=%i").splitlines()))
    return max(0, min(rooms)) if rooms else None


def submit_limits(account: str | None) -> list[int]:
    """MaxSubmitJobs of this user's associations here and of their QOS, as the accounts have them; nothing where none are kept."""
    where = ["where", f"user={getpass.getuser()}", f"cluster={configuration('ClusterName')}", *([f"account={account}"] if account else [])]
    try:
        associations = accounts("show", "assoc", *where, "format=MaxSubmitJobs,QOS")
        qos = accounts("show", "qos", "format=Name,MaxSubmitJobsPerUser")
    except SchedulerError:
        return []
    allowed = {name for _, names in associations for name in names.split(",")}
    found = [limit for limit, _ in associations] + [limit for name, limit in qos if name in allowed]
    return [int(limit) for limit in found if limit]


def accounts(*question: str) -> list[tuple[str, str]]:
    """sacctmgr's answer, two columns."""
    text = ask("sacctmgr", "-nP", *question, patience_s=0.0, say=lambda text: None)
    return [(first, second) for first, _, second in (row.partition("|") for row in text.splitlines())]


def configuration(key: str) -> str | None:
    """A value of slurm.conf as slurmctld has it."""
    found = re.search(rf"^{key}\s*=\s*(\S+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return found[1] if found else None
