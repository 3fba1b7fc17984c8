"""Nodes at fault: how often each has failed under this grid's jobs, and which are left out of what still waits.

nodes/<node>/<job>-<restarts>.json     a job that a node took along; whoever notices it writes the same
"""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from jobs.cluster.slurm import SchedulerError, ask, leave_out
from jobs.experiment.files import write_json
from jobs.experiment.records import now
from jobs.experiment.run_folder import NODES, STAGE, RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.experiment.submissions import arrays

LIMIT = 2  # failures after which a node is left out for the rest of the grid
BROKEN = re.compile(r"DOWN|FAIL|NOT_RESPONDING|ERROR|UNKNOWN|\*")


def blame(run: RunFolder, node: str, attempt: str, since: str, why: str) -> None:
    """Counts a failure of a node under an attempt ('17_3-0': job and how often it had been restarted) that had run there since then (ISO 8601)."""
    write_json(run.path / NODES / node / f"{attempt}.json", {"since": since, "noticed": now(), "why": why})


def faults(run: RunFolder) -> dict[str, int]:
    """How often each node has failed. Jobs that it took along together count once: a failure is new when its job began after the last was noticed."""
    folder = run.path / NODES
    return {node.name: incidents(node) for node in sorted(folder.iterdir())} if folder.is_dir() else {}


def incidents(node: Path) -> int:
    """The failures told of in a node's folder."""
    told = [json.loads(path.read_text()) for path in node.glob("*.json")]
    count, noticed = 0, ""
    for one in sorted(told, key=lambda one: (one["since"], one["noticed"])):
        if one["since"] > noticed:
            count, noticed = count + 1, one["noticed"]
    return count


def left_out(run: RunFolder) -> tuple[str, ...]:
    """The nodes that have failed too often for this grid."""
    return tuple(node for node, count in faults(run).items() if count >= LIMIT)


def around_bad_nodes(run: RunFolder, cluster: ClusterSpec) -> ClusterSpec:
    """The cluster without the nodes that have failed too often; says which."""
    out = left_out(run)
    if cluster.kind != "slurm" or not out:
        return cluster
    print(f"left out, having failed {LIMIT} times or more: {', '.join(out)}", flush=True)
    return replace(cluster, slurm={**cluster.slurm, "exclude": ",".join(unwanted(cluster, out))})


def unwanted(cluster: ClusterSpec, nodes: Iterable[str]) -> list[str]:
    """What a profile excludes, and these nodes."""
    return [*filter(None, [str(cluster.slurm.get("exclude") or "")]), *nodes]


def broken_since(nodes: str, since: datetime) -> list[str]:
    """Of a SLURM list of nodes ('node[1-2]') those that are down now, or whose slurmd or kernel was started after `since` (with a time zone)."""
    found = []
    for line in ask("scontrol", "show", "node", "--oneliner", nodes).splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        restarted = any(_moment(fields.get(name, "")) > since for name in ("SlurmdStartTime", "BootTime"))
        if restarted or BROKEN.search(fields.get("State", "")):
            found.append(fields["NodeName"])
    return found


def _moment(text: str) -> datetime:
    """SLURM's local time; long ago where it says None."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        return datetime.fromtimestamp(0).astimezone()


def notice(run: RunFolder, folder: Path, cluster: ClusterSpec) -> list[str]:
    """Nodes blamed for an earlier attempt at the stage in `folder` that SLURM's job ended without a word; none where that is not known.

    When one of them has failed too often, everything that waits of this grid is kept off it.
    """
    try:
        told = json.loads((folder / STAGE).read_text())
        attempt = f"{told['job']}-{told['restarts']}"
        broken = broken_since(told["nodes"], datetime.fromisoformat(told["started"]))
        for node in broken:
            blame(run, node, attempt, told["started"], f"job {told['job']} ended there without a word, and the node was lost or restarted")
        if set(broken) & set(out := left_out(run)):
            for job in arrays(run):
                leave_out(str(job), unwanted(cluster, out))
    except (FileNotFoundError, KeyError, SchedulerError):  # the first attempt, or one that was not SLURM's, or SLURM does not say
        return []
    return broken
