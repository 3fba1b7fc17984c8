"""Rules on single records, without their files: 1 to 4, 9 and 10."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime

from harness.plan.stages import make_graph
from harness.review.evidence import Evidence, Held, Measured
from harness.review.rules import Finding
from jobs.experiment.identity import PROTOCOL, training_protocol
from jobs.experiment.plugins import names_in
from jobs.experiment.records import Metrics, Record, not_finite
from jobs.experiment.run_folder import EXPORT, METRICS, RESULT
from models.pruning.chain import Chain
from models.pruning.token_merging import TokenMerging

CLOSE = 1e-9  # of fractions that were computed from the same integers
EVIDENT = ("test_top1", "test_loss", "test_accuracy")  # names that a stage would have for what it may not know


def schema(evidence: Evidence) -> Iterator[Finding]:
    """Rule 1."""
    yield from evidence.unreadable
    for held in evidence.held:
        if held.record.id != held.path.parent.name:
            yield Finding(rule=1, where=held.name, text=f"the record is that of cell {held.record.id}: it was moved or copied")
        if (held.record.status == "done") == (held.record.metrics is None):
            text = f"it says that the cell is {held.record.status}, and has {'no numbers' if held.record.metrics is None else 'numbers'}"
            yield Finding(rule=1, where=held.name, text=text)
    for run in evidence.runs:
        if not any(held.run is run for held in evidence.held):
            yield Finding(rule=1, where=str(run.path), text="it holds no record")


def identity(evidence: Evidence) -> Iterator[Finding]:
    """Rule 2."""
    for held in evidence.held:
        cell = held.cell()
        if cell is None:
            unknown = f"{held.why_unknown}, so its id cannot be computed" + (
                "" if names_in(held.record.spec) else "; check it with the version that ran it"
            )
            yield Finding(rule=2, where=held.name, text=unknown, weight="unchecked")
        elif held.record.spec["recipe"].get(PROTOCOL) != training_protocol(cell.recipe).get(PROTOCOL):
            text = "it was trained by another protocol than this version's, so its id cannot be computed; check it with the version that ran it"
            yield Finding(rule=2, where=held.name, text=text, weight="unchecked")
        elif cell.id != held.record.id:
            yield Finding(rule=2, where=held.name, text=f"its settings are those of cell {cell.id}: a setting was changed after the run")
        elif cell.seed != held.record.seed:
            yield Finding(rule=2, where=held.name, text=f"it says seed {held.record.seed}, and was run with seed {cell.seed}")
        elif (called := (held.record.model, held.record.pruning)) != (own := (cell.model.label, cell.pruning)):
            yield Finding(rule=2, where=held.name, text=f"it is called {', '.join(called)}, and its settings are those of {', '.join(own)}")


def complete(evidence: Evidence) -> Iterator[Finding]:
    """Rule 3."""
    for run in evidence.runs:
        try:
            planned = json.loads(run.plan_path.read_bytes())["cells"]
        except (OSError, ValueError, KeyError, TypeError):
            yield Finding(rule=3, where=str(run.path), text=f"{run.plan_path.name} cannot be read, so nobody knows what was planned")
            continue
        there = {held.path.parent.name for held in evidence.held if held.run is run}
        for cell in sorted(set(planned) - there):
            yield Finding(rule=3, where=f"{run.path.name}/{cell}", text="it was planned and has no record")
        for held in evidence.held:
            if held.run is run and held.record.status == "failed":
                why = held.record.failure.kind if held.record.failure else "unknown"
                left = ", although it left weights" if held.weights.exists() else ""
                yield Finding(rule=3, where=held.name, text=f"it failed ({why}){left}, and is no part of a mean", weight="note")


def numbers(evidence: Evidence) -> Iterator[Finding]:
    """Rule 4."""
    for cell in evidence.measured:
        for text in impossible(cell):
            yield Finding(rule=4, where=cell.name, text=text)


def impossible(cell: Measured) -> Iterator[str]:
    """What cannot be in a record."""
    numbers = cell.metrics
    if infinite := not_finite(numbers):
        yield from infinite
        return
    for name in ("top1", "top5", "val_top1", "val_top1_pruned"):
        value = getattr(numbers, name)
        if value is not None and not 0 <= value <= 100:
            yield f"{name} is {value}: a percentage lies between 0 and 100"
    for name in ("top1", "top5"):
        value = getattr(numbers, name)
        if value is not None and abs(value * numbers.test_samples / 100 - round(value * numbers.test_samples / 100)) > 1e-6:
            yield f"{name} is {value}, which is no whole number of {numbers.test_samples} test images"
    if numbers.top5 is not None and numbers.top5 < numbers.top1:
        yield f"top5 is {numbers.top5}, below top1 of {numbers.top1}"
    yield from (text for holds, text in relations(numbers, merges_tokens(cell)) if not holds(numbers))
    yield from times(cell.record)


def times(record: Record) -> Iterator[str]:
    """What cannot be of a record's times."""
    try:
        if datetime.fromisoformat(record.finished) < datetime.fromisoformat(record.started):
            yield f"it finished ({record.finished}) before it started ({record.started})"
    except (ValueError, TypeError):  # no time, or only one of them with a time zone
        yield f"started ({record.started}) and finished ({record.finished}) are no two times that can be compared"


def merges_tokens(cell: Held) -> bool:
    """True if tokens merge in a cell's network. It compares them first, so that it may take more multiply-adds than the dense one."""
    known = cell.cell()
    methods = () if known is None else known.method.methods if isinstance(known.method, Chain) else (known.method,)
    return any(isinstance(method, TokenMerging) for method in methods)


def relations(numbers: Metrics, merges: bool) -> list[tuple[Callable[[Metrics], bool], str]]:
    """What follows from what. merges: whether tokens merge in the network."""
    dense = numbers.params if numbers.params_dense is None else numbers.params_dense
    structural = numbers.macs if numbers.macs_structural is None else numbers.macs_structural
    return [
        (lambda m: 0 <= m.params_nonzero <= m.params <= dense, "params_nonzero, params and params_dense do not grow in this sequence"),
        (
            lambda m: 0 <= m.macs_nonzero <= structural and (merges or structural <= m.macs),
            "macs_nonzero, macs_structural and macs do not grow in this sequence",
        ),
        (
            lambda m: dense > 0 and abs(m.sparsity_all - (1 - m.params_nonzero / dense)) < CLOSE,
            "sparsity_all is not 1 - params_nonzero / params_dense",
        ),
        (lambda m: 0 <= m.sparsity_prunable <= 1 and all(0 <= part <= 1 for part in m.layers.values()), "a sparsity is not between 0 and 1"),
        (lambda m: m.latency_ms > 0 and m.throughput_img_per_s > 0 and m.file_bytes > 0, "a time or a size is not above 0"),
        (lambda m: m.train_s >= 0 and m.epochs >= 0, "a duration is below 0"),
    ]


def test_set(evidence: Evidence) -> Iterator[Finding]:
    """Rule 9."""
    for cell in evidence.measured:
        fraction = cell.record.spec.get("data", {}).get("val_fraction")
        if not isinstance(fraction, int | float) or not fraction > 0:
            yield Finding(rule=9, where=cell.name, text=f"val_fraction is {fraction}: no images were held out for choices")
    for run in evidence.runs:
        for path in sorted(run.path.glob(f"stages/*/{METRICS}")) + sorted(run.path.glob(f"stages/*/{EXPORT}/{RESULT}")):
            if seen := told_of_test(path.read_text(encoding="utf-8", errors="replace")):
                yield Finding(rule=9, where=str(path.relative_to(run.path.parent)), text=f"a stage knows {seen}: the test set was read in training")


def told_of_test(text: str) -> str:
    """The first number of the test set in the lines of a stage's file; empty if there is none."""
    return next((name for name in EVIDENT if f'"{name}' in text), "") or ("test figures" if '"test' in text else "")


def budget(evidence: Evidence) -> Iterator[Finding]:
    """Rule 10."""
    for cells in evidence.tables():
        for cell in cells:
            planned, epochs = planned_epochs(cell), cell.metrics.epochs
            if planned not in (None, epochs):
                yield Finding(rule=10, where=cell.name, text=f"it says {epochs} epochs, and its stages have {planned}")
            elif epochs > (granted := granted_epochs(cell)):
                yield longer(cell, granted, controlled=any(epochs <= other.metrics.epochs and other.method == "dense" for other in cells))


def longer(cell: Measured, granted: int, *, controlled: bool) -> Finding:
    """What there is to say of a cell that trained longer. controlled: a dense network of the table trained as long."""
    text = f"its method takes {cell.metrics.epochs} epochs, and its recipe grants {granted}"
    if controlled:
        return Finding(rule=10, where=cell.name, text=f"{text}; compare it with the dense network that trained as long", weight="note")
    return Finding(rule=10, where=cell.name, text=f"{text}; no dense network beside it trained as long ({{method: dense, rounds: ...}})")


def granted_epochs(held: Held) -> int:
    """The epochs that a recipe grants to every cell."""
    recipe = held.record.spec.get("recipe", {})
    return int(recipe.get("epochs", 0)) + int(recipe.get("finetune_epochs", 0))


def planned_epochs(held: Held) -> int | None:
    """The epochs of a cell's stages; None where this version cannot plan it."""
    cell = held.cell()
    if cell is None:
        return None
    try:
        graph = make_graph((cell,))
    except ValueError:
        return None
    trials, chosen = graph.trials.get(cell.id), held.record.tuning
    if trials is None:
        return sum(graph.stages[stage].recipe.epochs for stage in graph.paths[cell.id])
    if chosen is None or chosen.chosen >= len(trials):
        return None  # rule 17 looks at it
    return sum(graph.stages[stage].recipe.epochs for stage in trials[chosen.chosen].stages)
