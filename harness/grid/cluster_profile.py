"""From `cluster:` of a grid to a ClusterSpec: `local`, `debug`, a profile's path, or a mapping."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.grid.notify import read_notify
from harness.grid.paths import expanded, path_problem
from harness.grid.yaml_source import GridError, Node, Report, read_yaml
from jobs.experiment.files import with_variables
from jobs.experiment.limits import CLUSTER, PREPARE, cluster_conflicts, violations
from jobs.experiment.specs import ClusterSpec, ContainerSpec, PrepareSpec, ProfileSpec
from models.text import valid_names
from models.typed import Mismatch, SettingsError, build, convert, fields_of, shown

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
SWITCHES = ("exclusive", "stderr_to_stdout", "use_srun", "additional_parameters")  # which may be yes, no, on and off as well as true and false
SECTIONS = ("setup", "environment")  # which may be left empty
BY_NAME = {"local": ClusterSpec(), "debug": ClusterSpec(kind="debug")}
FIELDS = {name: hint for name, hint in fields_of(ClusterSpec).items() if name != "slurm"}
PROFILE_FIELDS = fields_of(ProfileSpec)
PREPARE_FIELDS = {name: hint for name, hint in fields_of(PrepareSpec).items() if name != "slurm"}


def read_cluster(node: Node | None, grid: Path, report: Report) -> ClusterSpec:
    """The cluster. A profile is looked for in the grid's folder, then in the current one. Mistakes go to the report, and the default stands in."""
    if node is None or node.value is None:
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
    if problem := path_problem(str(node.value)):
        report.add(node.line, "cluster", problem)
        return ClusterSpec()
    path = profile_file(str(node.value), grid)
    if path is None:
        files = " or ".join(map(str, profile_candidates(str(node.value), grid)))
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


def profile_file(name: str, grid: Path) -> Path | None:
    """The file of the profile that a grid names; None if there is none."""
    return next((path for path in profile_candidates(name, grid) if path.is_file()), None)


def profile_candidates(name: str, grid: Path) -> list[Path]:
    """Where a profile is looked for."""
    named = expanded(name)
    return list(dict.fromkeys([grid.parent / named, named]))


def _read_mapping(node: Node, key: str, report: Report) -> ClusterSpec:
    """The cluster of a mapping: fields of ClusterSpec by name, SLURM's parameters into `slurm`."""
    fields, slurm = sorted_out(node, key, FIELDS, report)
    cluster = _with_variables(ClusterSpec(**fields, slurm=slurm), node, key, report)
    for violation in [*violations(cluster, CLUSTER)] or [*cluster_conflicts(cluster)]:
        report.add(node.line_of([violation.field]), f"{key}.{violation.field}".lstrip("."), str(violation))
    if slurm and cluster.kind != "slurm":
        report.add(node.line, f"{key}.kind".lstrip("."), f"{', '.join(slurm)} need kind: slurm; this is {cluster.kind}")
    return cluster


def _with_variables(cluster: ClusterSpec, node: Node, key: str, report: Report) -> ClusterSpec:
    """The cluster with the variables in `cache` replaced. Those of `cache_local` are the nodes', which this machine is only if it runs the jobs."""
    given = {"cache": cluster.cache, "cache_local": cluster.cache_local if cluster.kind != "slurm" else None}
    for name, path in given.items():
        try:
            with_variables(path or "")
        except LookupError as error:
            where = " on this machine, which must see the cache too" if cluster.kind == "slurm" else ""
            report.add(node.line_of([name]), f"{key}.{name}".lstrip("."), f"{path}: {error}{where}: set it, or name a folder")
            return cluster
    return replace(cluster, cache=with_variables(cluster.cache))


def sorted_out(node: Node, key: str, valid: dict[str, Any], report: Report) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a mapping, of which `valid` has the types by name, and SLURM's parameters in it."""
    fields: dict[str, Any] = {}
    slurm: dict[str, Any] = {}
    for given, child in flat(node, key, report).items():
        path, bare = f"{key}.{given}".lstrip("."), given.removeprefix("slurm_")
        name = RENAMED.get(bare, bare)
        if name in fields or name in slurm:
            report.add(child.line, path, f"given twice: also as {name}")
        elif name in SLURM_NAMES:
            slurm[name] = _parameter(child, name, path, report)
        elif name not in valid or given.startswith("slurm_") and name == "kind":
            report.add(child.line, path, f"unknown key{valid_names(bare, [*valid, *SLURM_NAMES])}")
        elif name == "prepare":
            fields[name] = _read_prepare(child, path, report)
        elif name == "notify":
            fields[name] = read_notify(child, path, report)
        elif name == "profile":
            fields[name] = _read_axes(child, path, report)
        elif name == "container":
            fields[name] = _read_container(child, path, report)
        else:
            _convert(child, name, path, valid, fields, report)
    return fields, slurm


def _read_prepare(node: Node, key: str, report: Report) -> PrepareSpec | None:
    """The jobs that write data, of a mapping."""
    if not isinstance(node.value, dict):
        if node.value is not None:
            report.add(node.line, key, f"expected a mapping, such as {{partition: cpu, jobs: 8, cpus_per_task: 16}}, got {shown(node.plain)}")
        return None
    fields, slurm = sorted_out(node, key, PREPARE_FIELDS, report)
    prepare = PrepareSpec(**fields, slurm=slurm)
    for violation in violations(prepare, PREPARE):
        report.add(node.line_of([violation.field]), f"{key}.{violation.field}", str(violation))
    return prepare


def _read_axes(node: Node, key: str, report: Report) -> ProfileSpec | None:
    """The measuring protocols, of a mapping of axes. A value of an axis may stand without a list."""
    if not isinstance(node.value, dict):
        if node.value is not None:
            report.add(node.line, key, f"expected a mapping of axes, such as {{compile: true, dtype: [fp32, bf16]}}, got {shown(node.plain)}")
        return None
    axes = {}
    for name, child in node.value.items():
        if name not in PROFILE_FIELDS:
            report.add(child.line, f"{key}.{name}", f"unknown key{valid_names(name, PROFILE_FIELDS)}")
            continue
        try:
            axes[name] = convert(child.plain if isinstance(child.value, list) else [child.plain], PROFILE_FIELDS[name])
        except Mismatch as error:
            report.add(child.line, f"{key}.{name}", f"{error}{child.remark}")
    return ProfileSpec(**axes)


def _read_container(node: Node, key: str, report: Report) -> ContainerSpec | None:
    """The container, of a mapping. `~` and variables of this machine are replaced in its paths."""
    if not isinstance(node.value, dict):
        if node.value is not None:
            report.add(node.line, key, f"expected a mapping, such as {{image: /shared/vssm.sif, runtime: apptainer}}, got {shown(node.plain)}")
        return None
    try:
        container = build(ContainerSpec, node.plain)
        return replace(container, image=_whole(container.image), mounts=tuple(map(_whole, container.mounts)))
    except SettingsError as error:
        for path, message in error.errors:
            report.add(node.line_of(list(path)), ".".join([key, *path]), message)
    except LookupError as error:
        report.add(node.line, key, f"{error} on this machine: set it, or write the path")
    return None


def _whole(path: str) -> str:
    """A path with `~` and variables replaced. Raises LookupError for variables that are not set."""
    return str(expanded(with_variables(path))) if path.startswith(("~", "$", "/")) else path


def flat(node: Node, key: str, report: Report) -> dict[str, Node]:
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


def _convert(node: Node, name: str, key: str, valid: dict[str, Any], fields: dict[str, Any], report: Report) -> None:
    if node.value is None and name in SECTIONS:
        return
    try:
        fields[name] = _variables(node) if name == "environment" else convert(node.plain, valid[name])
        if name == "cache" and (problem := path_problem(fields[name]) or (None if fields[name].strip() else "must not be blank")):
            report.add(node.line, key, problem)
    except Mismatch as error:
        report.add(node.line, key, f"{error}{node.remark}")


def _variables(node: Node) -> dict[str, str]:
    """Environment variables, as the file has them: `1.10` and `on` are text here. Raises Mismatch."""
    if not isinstance(node.value, dict):
        raise Mismatch(f"expected a mapping, got {shown(node.plain)}")
    for name, child in node.value.items():
        if child.value is None or isinstance(child.value, list | dict):
            raise Mismatch(f"{name}: expected text, got {shown(child.plain)}; write '' for an empty variable")
    return dict(node.as_written)


def _parameter(node: Node, name: str, key: str, report: Report) -> Any:
    """A parameter of SLURM: numbers with a point as they are written (1.10 is not 1.1), anything else as its value."""
    if isinstance(node.value, dict):
        return {inner: _parameter(child, name, f"{key}.{inner}", report) for inner, child in node.value.items()}
    if isinstance(node.value, list) and name == "partition":
        return ",".join(str(_parameter(child, name, f"{key}[{index}]", report)) for index, child in enumerate(node.value))
    if isinstance(node.value, list):
        return [_parameter(child, name, f"{key}[{index}]", report) for index, child in enumerate(node.value)]
    if isinstance(node.value, bool) and node.remark and name not in SWITCHES:
        report.add(node.line, key, f"expected text, a number, true or false{node.remark}")
    return node.text if isinstance(node.value, float) else node.value
