"""From `cluster:` of a grid to a ClusterSpec: `local`, `debug`, a profile's path, or a mapping."""

from pathlib import Path
from typing import Any

from harness.grid.yaml_source import GridError, Node, Report, read_yaml
from jobs.experiment.limits import CLUSTER, cluster_conflicts, violations
from jobs.experiment.specs import ClusterSpec
from models.text import valid_names
from models.typed import Mismatch, convert, fields_of

# submitit 1.5's other parameters for SLURM; each may also be written with the prefix `slurm_`.
SLURM_NAMES = (
    "account",
    "additional_parameters",
    "comment",
    "constraint",
    "cpus_per_gpu",
    "dependency",
    "exclude",
    "exclusive",
    "gpus_per_task",
    "gres",
    "job_name",
    "mail_type",
    "mail_user",
    "max_num_timeout",
    "mem",
    "mem_per_cpu",
    "mem_per_gpu",
    "nodelist",
    "num_gpus",
    "partition",
    "qos",
    "signal_delay_s",
    "srun_args",
    "stderr_to_stdout",
    "teardown",
    "time",
    "use_srun",
    "wckey",
)
RENAMED = {"array_parallelism": "max_parallel", "ntasks_per_node": "tasks_per_node", "name": "job_name"}
BY_NAME = {"local": ClusterSpec(), "debug": ClusterSpec(kind="debug")}
FIELDS = {name: hint for name, hint in fields_of(ClusterSpec).items() if name != "slurm"}


def read_cluster(node: Node | None, grid: Path, report: Report) -> ClusterSpec:
    """The cluster. A profile is looked for in the grid's folder, then in the current one. Mistakes go to the report, and the default stands in."""
    if node is None:
        return ClusterSpec()
    if isinstance(node.value, dict):
        return _read_mapping(node, "cluster", report)
    if not isinstance(node.value, str):
        report.add(node.line, "cluster", "expected local, debug, the path of a profile, or a mapping")
        return ClusterSpec()
    if node.value in BY_NAME:
        return BY_NAME[node.value]
    return _read_profile(node, grid, report)


def _read_profile(node: Node, grid: Path, report: Report) -> ClusterSpec:
    named = Path(str(node.value)).expanduser()
    candidates = list(dict.fromkeys([grid.parent / named, named]))
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        files = " or ".join(map(str, candidates))
        report.add(node.line, "cluster", f"no profile {files}; valid: local, debug, the path of a profile such as slurm/gpu.yaml, or a mapping")
        return ClusterSpec()
    profile = Report(str(path))
    try:
        cluster = _read_mapping(read_yaml(path)[1], "", profile)
    except GridError as error:
        report.problems += error.problems
        return ClusterSpec()
    report.problems += profile.problems
    return cluster


def _read_mapping(node: Node, key: str, report: Report) -> ClusterSpec:
    """The cluster of a mapping: fields of ClusterSpec by name, SLURM's parameters into `slurm`."""
    assert isinstance(node.value, dict)
    fields: dict[str, Any] = {}
    slurm: dict[str, Any] = {}
    for given, child in _flat(node, key, report).items():
        path, bare = f"{key}.{given}".lstrip("."), given.removeprefix("slurm_")
        name = RENAMED.get(bare, bare)
        if name in fields or name in slurm:
            report.add(child.line, path, f"given twice: also as {name}")
        elif name in SLURM_NAMES:
            slurm[name] = child.plain
        elif name not in FIELDS or given.startswith("slurm_") and name == "kind":
            report.add(child.line, path, f"unknown key{valid_names(bare, [*FIELDS, *SLURM_NAMES])}")
        else:
            _convert(child, name, path, fields, report)
    cluster = ClusterSpec(**fields, slurm=slurm)
    for violation in [*violations(cluster, CLUSTER)] or [*cluster_conflicts(cluster)]:
        report.add(node.line_of([violation.field]), f"{key}.{violation.field}".lstrip("."), str(violation))
    if slurm and cluster.kind != "slurm":
        report.add(node.line, f"{key}.kind".lstrip("."), f"{', '.join(slurm)} need kind: slurm; this is {cluster.kind}")
    return cluster


def _flat(node: Node, key: str, report: Report) -> dict[str, Node]:
    """The mapping's children, with those under `slurm:` beside the others."""
    assert isinstance(node.value, dict)
    children = dict(node.value)
    inner = children.pop("slurm", None)
    if inner is None or inner.value is None:
        return children
    if not isinstance(inner.value, dict):
        report.add(inner.line, f"{key}.slurm".lstrip("."), "expected a mapping of submitit's SLURM parameters")
        return children
    for name, child in inner.value.items():
        if name in children:
            report.add(child.line, f"{key}.slurm.{name}".lstrip("."), "given twice")
        children[name] = child
    return children


def _convert(node: Node, name: str, key: str, fields: dict[str, Any], report: Report) -> None:
    try:
        fields[name] = convert(node.plain, FIELDS[name])
    except Mismatch as error:
        report.add(node.line, key, str(error))
