"""Rules on cells whose stages lie in the run folder beside them: what a record says of its training is what its stages left. Of rules 2 to 5."""

from collections.abc import Iterator, Mapping, Sequence
from math import isclose, isfinite
from pathlib import Path
from typing import Any

from harness.plan.stages import make_graph
from harness.review.evidence import Evidence, Held, Measured
from harness.review.rules import Finding
from harness.text import counted
from jobs.experiment.files import parsed, sha256_of
from jobs.experiment.index import RunIndexError, read_index
from jobs.experiment.records import Environment
from jobs.experiment.run_folder import EXPORT, MASKS, RESULT, STRUCTURE, WEIGHTS, RunFolder

WHY = "the record was edited, or a stage was trained again since"


def paths(evidence: Evidence) -> Iterator[Finding]:
    """Rule 2: the stages of a record are those that its settings give. Rule 17 looks at the stages of trials."""
    for held in evidence.held:
        cell = held.cell()
        if cell is None or cell.tune is not None or cell.id != held.record.id:
            continue
        planned = list(make_graph((cell,)).paths[cell.id])
        if planned != held.record.stages:
            text = f"its stages are {', '.join(held.record.stages) or 'none'}, and its settings give {', '.join(planned)}: they are of another cell"
            yield Finding(rule=2, where=held.name, text=text)


def unaccounted(evidence: Evidence) -> Iterator[Finding]:
    """Rule 3, as a note: stages that trained for no cell that is here, which an earlier launch may have left, or somebody who removed cells."""
    for run in evidence.runs:
        known = {stage for held in evidence.held if held.run is run for stage in stages_of(held)} | planned_stages(run)
        trained = {path.parent.name for path in run.path.glob(f"stages/*/{EXPORT}")}
        if left := sorted(trained - known):
            number, why = counted(len(left), "stage"), "an earlier launch, or removed cells"
            text = f"{number} trained for no cell that is planned or recorded, such as {left[0]}: {why}"
            yield Finding(rule=3, where=run.path.name, text=text, weight="note")


def planned_stages(run: RunFolder) -> set[str]:
    """The stages of the latest launch; none where its index cannot be read."""
    try:
        return set(read_index(run).stages)
    except RunIndexError:
        return set()


def stages_of(held: Held) -> Iterator[str]:
    """The stages of a record, and those of its trials."""
    yield from held.record.stages
    for trial in held.record.tuning.trials if held.record.tuning else ():
        yield from trial.stages


def training(evidence: Evidence) -> Iterator[Finding]:
    """Rule 4: a record's numbers of its training are those of its stages."""
    for cell in evidence.measured:
        results = results_of(cell)
        for name, value in trained(results, cell.record.environment).items() if results else ():
            recorded = getattr(cell.metrics, name)
            if recorded is not None and not isclose(recorded, value, rel_tol=1e-9, abs_tol=1e-12):
                yield Finding(rule=4, where=cell.name, text=f"{name} is {recorded}, and {value} by the stages in the folder: {WHY}")


def results_of(cell: Measured) -> list[Mapping[str, Any]]:
    """What each stage of a cell left, first stage first; empty where one of them cannot be read."""
    try:
        return [dict(parsed((cell.run.export_dir(stage) / RESULT).read_bytes())) for stage in cell.record.stages]
    except (OSError, ValueError, TypeError):
        return []


def trained(results: Sequence[Mapping[str, Any]], around: Environment) -> dict[str, float]:
    """The numbers of a training by their names in a record, as far as the results of its stages have them."""
    last, seconds = results[-1], [result.get("train_s") for result in results]
    hours = [(s or 0.0) / 3600 * (result.get("ranks") or around.ranks) for s, result in zip(seconds, results, strict=True)]
    cores = [result.get("threads") or around.threads for result in results]
    values = {
        "val_top1": last.get("val_top1"),
        "train_loss": last.get("train_loss"),
        "epochs": sum(result.get("epochs", 0) for result in results),
        "train_s": None if None in seconds else sum(s for s in seconds if s is not None),
        "train_gpu_h": sum(hours) if around.gpu else None,
        "train_cpu_h": None if around.gpu else sum(h * number for h, number in zip(hours, cores, strict=True)),
    }
    return {name: value for name, value in values.items() if value is not None and isfinite(value)}


def exports(evidence: Evidence) -> Iterator[Finding]:
    """Rule 5: the network in a cell's folder is the one that its last stage left."""
    for cell in evidence.measured:
        export = cell.run.export_dir(cell.record.stages[-1]) if cell.record.stages else Path()
        for name in (WEIGHTS, MASKS, STRUCTURE) if (export / WEIGHTS).exists() else ():
            if not equal(cell.weights.with_name(name), export / name):
                yield Finding(rule=5, where=cell.name, text=f"{name} is not what its last stage left in {export.parent.name}/{EXPORT}/")


def equal(first: Path, second: Path) -> bool:
    """True for one file under two names, two files of equal content, or none at all."""
    if not (first.exists() and second.exists()):
        return first.exists() == second.exists()
    return first.samefile(second) or sha256_of(first) == sha256_of(second)
