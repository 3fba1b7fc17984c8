"""From `cluster:` of a grid to a ClusterSpec: `local`, `debug`, a profile's path, or a mapping."""

from pathlib import Path
from typing import Any

from harness.grid.yaml_source import GridError, Node, Report, read_yaml
from jobs.experiment.limits import CLUSTER, broken, cluster_clashes
from jobs.experiment.specs import ClusterSpec
from jobs.experiment.typed import Mismatch, convert, fields_of
from models.text import valid_names

# submitit 1.5's other parameters for SLURM; each may also be written with `slurm_` before it. No wckey unless a user asks for one.
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
FIELDS = {name: hint for name, hint in fields_of(ClusterSpec).items() if name != "slurm"}


def read_cluster(node: Node | None, grid: Path, report: Report) -> ClusterSpec:
    """The cluster; the default one where mistakes, which go to the report, leave no other. A profile is looked for beside the grid, then here."""
    if node is None:
        return ClusterSpec()
    if isinstance(node.value, dict):
        return _read_mapping(node, "cluster", report)
    if not isinstance(node.value, str):
        report.add(node.line, "cluster", "expected local, debug, the path of a profile, or a mapping")
        return ClusterSpec()
    if node.value in ("local", "debug"):
        return ClusterSpec(kind=node.value)  # type: ignore[arg-type]
    return _read_profile(node, grid, report)


def _read_profile(node: Node, grid: Path, report: Report) -> ClusterSpec:
    named = Path(str(node.value)).expanduser()
    places = list(dict.fromkeys([grid.parent / named, named]))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        looked = " or ".join(map(str, places))
        report.add(node.line, "cluster", f"no profile {looked}; valid: local, debug, the path of a profile such as slurm/gpu.yaml, or a mapping")
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
    """ClusterSpec's fields by name, SLURM's names into `slurm`."""
    assert isinstance(node.value, dict)
    fields: dict[str, Any] = {}
    slurm: dict[str, Any] = {}
    for given, child in _flat(node, key, report).items():
        path, bare = f"{key}.{given}".lstrip("."), given.removeprefix("slurm_")
        name = RENAMED.get(bare, bare)
        if name in fields or name in slurm:
            report.add(child.line, path, f"given twice, as {name} too")
        elif name in SLURM_NAMES:
            slurm[name] = child.plain
        elif name not in FIELDS or given.startswith("slurm_") and name == "kind":
            report.add(child.line, path, f"unknown key{valid_names(bare, [*FIELDS, *SLURM_NAMES])}")
        else:
            _convert(child, name, path, fields, report)
    cluster = ClusterSpec(**fields, slurm=slurm)
    for name, message in [*broken(cluster, CLUSTER)] or [*cluster_clashes(cluster)]:
        report.add(node.line_of([name]), f"{key}.{name}".lstrip("."), message)
    if slurm and cluster.kind != "slurm":
        report.add(node.line, f"{key}.kind".lstrip("."), f"{', '.join(slurm)} need kind: slurm; this is {cluster.kind}")
    return cluster


def _flat(node: Node, key: str, report: Report) -> dict[str, Node]:
    """The mapping's children, with those under `slurm:` beside the others."""
    assert isinstance(node.value, dict)
    found = dict(node.value)
    inner = found.pop("slurm", None)
    if inner is None or inner.value is None:
        return found
    if not isinstance(inner.value, dict):
        report.add(inner.line, f"{key}.slurm".lstrip("."), "expected a mapping of submitit's SLURM parameters")
        return found
    for name, child in inner.value.items():
        if name in found:
            report.add(child.line, f"{key}.slurm.{name}".lstrip("."), "given twice")
        found[name] = child
    return found


def _convert(node: Node, name: str, key: str, fields: dict[str, Any], report: Report) -> None:
    try:
        fields[name] = convert(node.plain, FIELDS[name])
    except Mismatch as error:
        report.add(node.line, key, str(error))
