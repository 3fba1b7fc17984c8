"""An estimate as text: the table by model and pruning, and what it means for the cluster, the disk and the meter."""

from collections import Counter
from collections.abc import Sequence

from harness.cost.estimate import SHARED, Estimate, slots_of
from harness.cost.knowledge import Knowledge
from harness.cost.learned import Learned
from harness.cost.work import WorkKey
from harness.plan.dry_run import table
from harness.text import counted, duration
from jobs.experiment.step_times import StepTimes

KWH = 3.6e6  # joules


def described(estimate: Estimate, files: Sequence[str] = ()) -> str:
    """The text of an estimate. files: lines on the data sets."""
    if not estimate.jobs:
        return "cost: nothing is left to run"
    parts = [_table(estimate), _saved(estimate), _wall(estimate), *_disk(estimate, files), _energy(estimate), *_sources(estimate.knowledge)]
    return "\n".join(parts)


def _table(estimate: Estimate) -> str:
    """Hours, bytes and energy of each row, and of all."""
    head = f"cost of what is left: {counted(len(estimate.cells), 'cell')}, {counted(len(estimate.jobs), 'job')}, in {unit(estimate)}-hours"
    energy = any(row.joules for row in estimate.rows)
    rows = [["model", "pruning", "cells", "own", "alone", "disk", *(["kWh"] if energy else [])]]
    for row in estimate.rows:
        cells = "" if row.pruning == SHARED else str(row.cells)
        alone = "" if row.pruning == SHARED else number(row.alone_h)
        rows.append([row.model, row.pruning, cells, number(row.own_h), alone, shown(row.file_bytes), *([kwh(row.joules)] if energy else [])])
    total = sum(row.file_bytes for row in estimate.rows)
    ends = ["all", "", str(len(estimate.cells)), number(estimate.total_h), number(estimate.alone_h), shown(total)]
    rows.append([*ends, *([kwh(estimate.joules)] if energy else [])])
    return f"{head}\n{table(rows, left=2)}"


def shown(count: float) -> str:
    """A number of bytes for people."""
    from jobs.data import space  # slow to import, and few launches need it

    return space.shown(count)


def unit(estimate: Estimate) -> str:
    """What hours are counted of."""
    return "GPU" if estimate.of_gpus else "core"


def _saved(estimate: Estimate) -> str:
    """What sharing stages saves."""
    saved = estimate.alone_h - estimate.total_h
    columns = "own: without what rows share; alone: each cell by itself"
    if saved <= 0:
        return f"sharing stages saves nothing here; {columns}"
    fraction = f"{100 * saved / estimate.alone_h:.0f}% of {number(estimate.alone_h)}"
    return f"sharing stages, and starts of jobs, saves {number(saved)} {unit(estimate)}-hours ({fraction}); {columns}"


def _wall(estimate: Estimate) -> str:
    """How long the run takes."""
    slots = slots_of(estimate.cluster)
    side_by_side = "all that can run at a time" if slots is None else f"{counted(slots, 'job')} at a time"
    queue = "; without the time that jobs wait in SLURM's queue" if estimate.cluster.kind == "slurm" else ""
    chain = f"the longest chain of jobs takes {duration(estimate.longest_s)}"
    return f"wall time: about {duration(estimate.wall_s)} with {side_by_side}; {chain}{queue}"


def _disk(estimate: Estimate, files: Sequence[str]) -> list[str]:
    """What stays on the disk, what lies there meanwhile, and the data sets."""
    stays = sum(row.file_bytes for row in estimate.rows)
    lines = [f"disk: {shown(stays)} of weights, masks and records stay; up to {shown(estimate.checkpoint_bytes)} of checkpoints meanwhile"]
    return [*lines, *(f"data: {line}" for line in files)]


def _energy(estimate: Estimate) -> str:
    """Energy, or why it is unknown."""
    if estimate.joules:
        return f"energy: {kwh(estimate.joules)} kWh of the devices, while they train"
    reasons = {times.no_energy for times in estimate.knowledge.times.values() if times.no_energy}
    return f"energy: not known{f': {min(reasons)}' if reasons else ''}"


def _sources(knowledge: Knowledge) -> list[str]:
    """Where the figures of each model come from."""
    lines = [learned_line(key, known, knowledge) for key, known in knowledge.learned.items()]
    lines += [timed_line(times, key in knowledge.timed_now) for key, times in knowledge.times.items() if key not in knowledge.learned]
    return ["sources:", *(f"  {line}" for line in sorted(set(lines)))]


def learned_line(key: WorkKey, known: Learned, knowledge: Knowledge) -> str:
    """What was learned from records."""
    kinds = Counter({kind: len(stages) for kind, stages in known.stages.items()})
    stages = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(4)) + (" ..." if len(kinds) > 4 else "")
    return f"{knowledge.labels.get(key, '?')}: learned from {counted(known.records, 'record')} ({known.device}; stages: {stages})"


def timed_line(times: StepTimes, just_now: bool) -> str:
    """What was timed."""
    when = "timed now" if just_now else f"timed {times.measured[:16].replace('T', ' ')} UTC"
    beside = f", {times.copies} jobs side by side" if times.copies > 1 else ""
    each = f"a step {seconds(times.step_s)} (mean of {times.steps}; the first {seconds(times.first_step_s)})"
    rest = f"an evaluated image {1000 * times.eval_image_s:.2g} ms, a start {seconds(times.start_s)}"
    return f"{times.model}: {when}{beside} on {times.gpu or times.cpu}: {each}, {rest}"


def seconds(value: float) -> str:
    """'0.27 s', '12 s'."""
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def number(hours: float) -> str:
    """Hours with three digits: '0.0123', '4.56', '1,230'."""
    return f"{hours:,.0f}" if abs(hours) >= 100 else f"{hours:.3g}"


def kwh(joules: float | None) -> str:
    """Joules in kWh; '?' where they are unknown."""
    return "?" if joules is None else f"{joules / KWH:.3g}"
