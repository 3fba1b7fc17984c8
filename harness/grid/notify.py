"""`notify:` of a grid or a profile: a command that tells somebody of a launch. It changes no result and enters no id."""

from dataclasses import replace
from typing import Any

from harness.grid.yaml_source import Node, Report
from jobs.experiment.limits import NOTIFY, violations
from jobs.experiment.specs import ClusterSpec, NotifySpec
from models.text import valid_names
from models.typed import Mismatch, convert, fields_of, shown

FIELDS = fields_of(NotifySpec)
EXAMPLE = "{command: 'mail -s \"$VSSM_BENCH_EVENT\" me@example.org', on: [end, first_failure]}"


def with_notify(cluster: ClusterSpec, node: Node | None, report: Report) -> ClusterSpec:
    """The cluster with the grid's own `notify`, which counts before that of a profile. With nothing after it, none is run."""
    return cluster if node is None else replace(cluster, notify=read_notify(node, "notify", report))


def read_notify(node: Node, key: str, report: Report) -> NotifySpec | None:
    """The command and its events, of a mapping. An event may stand without a list. Mistakes go to the report."""
    if node.value is None:
        return None
    if not isinstance(node.value, dict):
        report.add(node.line, key, f"expected a mapping, such as {EXAMPLE}, got {shown(node.plain)}")
        return None
    fields: dict[str, Any] = {}
    for name, child in node.value.items():
        if name not in FIELDS:
            report.add(child.line, f"{key}.{name}", f"unknown key{valid_names(name, FIELDS)}")
            continue
        try:
            alone = name == "on" and not isinstance(child.value, list)
            fields[name] = convert([child.plain] if alone else child.plain, FIELDS[name])
        except Mismatch as error:
            report.add(child.line, f"{key}.{name}", f"{error}{child.remark}")
    if "command" not in node.value:
        report.add(node.line, key, f"it has no command to run: give one, such as {EXAMPLE}")
    if "command" not in fields:
        return None
    spec = NotifySpec(**fields)
    for violation in violations(spec, NOTIFY):
        report.add(node.line_of([violation.field]), f"{key}.{violation.field}", str(violation))
    return spec
