"""Failures of nodes under the jobs of one grid, and the nodes that its jobs avoid from then on.

nodes/<node>/<job>-<restarts>.json     an attempt that a node ended; every job and launch that notices it writes the same file
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from jobs.cluster.slurm import SchedulerError, ask, leave_out
from jobs.experiment.attempt import read_attempt
from jobs.experiment.files import parsed, write_json
from jobs.experiment.records import now
from jobs.experiment.run_folder import NODES, RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.experiment.submissions import arrays

LIMIT = 2  # failures after which a node is left out for the rest of the grid
BROKEN = re.compile(r"DOWN|FAIL|NOT_RESPONDING|ERROR|UNKNOWN|\*")


def blame(run: RunFolder, node: str, attempt: str, since: str, why: str) -> None:
    """Counts a failure of a node. `attempt`: job and number of restarts ('17_3-0'); `since`: when that attempt started, ISO 8601."""
    write_json(run.path / NODES / node / f"{attempt}.json", {"since": since, "noticed": now(), "why": why})


def faults(run: RunFolder) -> dict[str, int]:
    """The number of failures of each node that has failed."""
    folder = run.path / NODES
    return {node.name: failure_count(node) for node in sorted(folder.iterdir())} if folder.is_dir() else {}


def failure_count(folder: Path) -> int:
    """The number of failures in a node's folder. Jobs that ended together count once: a failure is new if its job started after the last notice."""
    count, latest = 0, ""
    for since, noticed in sorted(filter(None, map(_times, folder.glob("*.json")))):
        if since > latest:
            count, latest = count + 1, noticed
    return count


def _times(path: Path) -> tuple[str, str] | None:
    """When the attempt of a failure started, and when the failure was noticed; None where the file cannot be read."""
    try:
        content = parsed(path.read_bytes())
        return str(content["since"]), str(content["noticed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def left_out(run: RunFolder) -> tuple[str, ...]:
    """The nodes that have failed too often for this grid."""
    return tuple(node for node, count in faults(run).items() if count >= LIMIT)


def around_bad_nodes(run: RunFolder, cluster: ClusterSpec) -> ClusterSpec:
    """The cluster without the nodes that have failed too often. Prints which nodes those are."""
    nodes = left_out(run)
    if cluster.kind != "slurm" or not nodes:
        return cluster
    print(f"left out, having failed {LIMIT} times or more: {', '.join(nodes)}", flush=True)
    return replace(cluster, slurm={**cluster.slurm, "exclude": ",".join(excluded_nodes(cluster, nodes))})


def excluded_nodes(cluster: ClusterSpec, nodes: Iterable[str]) -> list[str]:
    """The nodes that the profile excludes, then `nodes`."""
    return [*filter(None, [str(cluster.slurm.get("exclude") or "")]), *nodes]


def broken_since(nodes: str, since: datetime) -> list[str]:
    """The nodes that are down now, or that started slurmd or their kernel after `since` (with a time zone). `nodes`: SLURM's list, 'node[1-2]'."""
    broken = []
    for line in ask("scontrol", "show", "node", "--oneliner", nodes).splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        restarted = any(_moment(fields.get(name, "")) > since for name in ("SlurmdStartTime", "BootTime"))
        if restarted or BROKEN.search(fields.get("State", "")):
            broken.append(fields["NodeName"])
    return broken


def _moment(text: str) -> datetime:
    """A time of SLURM's, which is local; the start of 1970 for 'None'."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        return datetime.fromtimestamp(0).astimezone()


def blame_lost_nodes(run: RunFolder, folder: Path, cluster: ClusterSpec) -> list[str]:
    """Nodes blamed for the last attempt at the stage in `folder`, a SLURM job that ended on them without an error; empty where that is unknown.

    If one of them has failed too often, all waiting jobs of this grid are kept off it.
    """
    attempt = read_attempt(folder)
    if attempt is None or attempt.job is None:  # no attempt yet, or none of SLURM's
        return []
    try:
        broken = broken_since(attempt.nodes, datetime.fromisoformat(attempt.started))
        for node in broken:
            blame(run, node, attempt.name, attempt.started, f"job {attempt.job} ended on it without an error, and the node was lost or restarted")
        if set(broken) & set(bad := left_out(run)):
            for job in arrays(run):
                leave_out(str(job), excluded_nodes(cluster, bad))
    except SchedulerError:  # SLURM does not answer
        return []
    return broken
