"""`cluster:` of an entry of `models:` or `pruning:`: what its jobs need in place of the profile's resources. Nothing of it enters an id."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from harness.grid.cluster_profile import FIELDS, RENAMED, SLURM_NAMES, flat, sorted_out
from harness.grid.yaml_source import Node, Report
from jobs.experiment.limits import CLUSTER, violations
from jobs.experiment.specs import ClusterSpec
from models.text import valid_names
from models.typed import shown

KEY: Final = "cluster"
OF_A_JOB: Final = ("nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min", "checkpoint_steps")
OF_SBATCH: Final = (
    "account",
    "additional_parameters",
    "constraint",
    "cpus_per_gpu",
    "exclusive",
    "gpus_per_task",
    "gres",
    "mem",
    "mem_per_cpu",
    "mem_per_gpu",
    "nodelist",
    "partition",
    "qos",
)
OTHER_WORDS: Final = {"time": "timeout_min", "num_gpus": "gpus_per_node"}  # keys of a profile, and what an entry has in place of them
# Keys that ask for one thing: what an entry gives takes the place of all that the profile gives of its group.
SAME: Final = (
    frozenset({"mem_gb", "mem", "mem_per_cpu", "mem_per_gpu"}),
    frozenset({"gpus_per_node", "gpus_per_task", "num_gpus", "gpus", "gres", "tres_per_node", "tres_per_task"}),
    frozenset({"timeout_min", "time"}),
)
MORE: Final = "additional_parameters"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What an entry gives: fields of a ClusterSpec, and options of sbatch."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    slurm: Mapping[str, Any] = field(default_factory=dict)


def read_resources(entry: Node, key: str, report: Report) -> Resources | None:
    """The resources of an entry; None if it gives none. Mistakes go to the report."""
    node = entry.value.get(KEY) if isinstance(entry.value, dict) else None
    if node is None or node.value is None:
        return None
    if not isinstance(node.value, dict):
        report.add(node.line, f"{key}.{KEY}", f"expected a mapping, such as {{gpus_per_node: 4, timeout_min: 600}}, got {shown(node.plain)}")
        return None
    path, allowed, refused = f"{key}.{KEY}", {}, len(report.problems)
    for given, child in flat(node, path, report).items():
        bare = given.removeprefix("slurm_")
        name = RENAMED.get(bare, bare)
        if name in OF_A_JOB or name in OF_SBATCH:
            allowed[given] = child
        else:
            report.add(child.line, f"{path}.{given}", _refusal(name))
    fields, slurm = sorted_out(Node(value=allowed, line=node.line), path, {name: FIELDS[name] for name in OF_A_JOB}, report)
    for violation in violations(ClusterSpec(**fields), CLUSTER):
        report.add(node.line_of([violation.field]), f"{path}.{violation.field}", str(violation))
    return Resources(fields=fields, slurm=slurm) if len(report.problems) == refused and (fields or slurm) else None


def _refusal(name: str) -> str:
    """Why a key is none of an entry's."""
    if name in OTHER_WORDS:
        return f"an entry has {OTHER_WORDS[name]} for this"
    if name in FIELDS or name in SLURM_NAMES or name == "slurm":
        return f"it is one for the whole grid: write it in the profile, or under the grid's own `{KEY}`"
    return f"unknown key{valid_names(name, [*OF_A_JOB, *OF_SBATCH])}"


def with_resources(cluster: ClusterSpec, *given: Resources | None) -> ClusterSpec:
    """The cluster with the resources of entries in place of its own; the last entry counts most."""
    for resources in filter(None, given):
        cluster = _with(cluster, resources)
    return cluster


def _with(cluster: ClusterSpec, resources: Resources) -> ClusterSpec:
    own = {**resources.fields, **resources.slurm}
    asked = frozenset[str]().union(*(group for group in SAME if not group.isdisjoint(own)))
    slurm = {name: value for name, value in cluster.slurm.items() if not _asks(name, value, asked) and name != MORE}
    more = {name: value for name, value in (cluster.slurm.get(MORE) or {}).items() if not _asks(name, value, asked)}
    more |= resources.slurm.get(MORE) or {}
    unset: dict[str, Any] = {name: value for name, value in (("mem_gb", None), ("gpus_per_node", 0)) if name in asked}
    fields = {**unset, **resources.fields, **_a_gpu_each(cluster, resources.fields)}
    return replace(cluster, **fields, slurm={**slurm, **resources.slurm, **({MORE: more} if more else {})})


def _asks(name: str, value: object, asked: frozenset[str]) -> bool:
    """True if an option of sbatch asks for one of the things that an entry asks for. `gres` stands for other things than GPUs too."""
    name = name.replace("-", "_")
    return name in asked and (name != "gres" or "gpu" in str(value))


def _a_gpu_each(cluster: ClusterSpec, fields: Mapping[str, Any]) -> dict[str, int]:
    """Each rank has one GPU, so of `gpus_per_node` and `tasks_per_node` an entry may give one alone."""
    gpus, tasks = fields.get("gpus_per_node"), fields.get("tasks_per_node")
    if gpus and tasks is None:
        return {"tasks_per_node": gpus}
    return {"gpus_per_node": tasks} if tasks and gpus is None and cluster.gpus_per_node else {}
