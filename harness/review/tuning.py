"""Rule 17: the trials of tuned cells, and the choice among them."""

from collections.abc import Iterator
from pathlib import Path

from harness.plan.stages import make_graph
from harness.review.evidence import Evidence, Measured, title
from harness.review.rules import Finding
from harness.text import counted
from jobs.experiment.files import parsed
from jobs.experiment.identity import plain
from jobs.experiment.records import Tuning
from jobs.experiment.run_folder import RESULT
from jobs.experiment.trials import StagePath, best, in_words

RULE = 17


def tuning(evidence: Evidence) -> Iterator[Finding]:
    """Rule 17."""
    tested = {tuple(cell.record.stages): cell for cell in evidence.measured}
    for cell in evidence.measured:
        tuned, given = cell.record.tuning, cell.record.spec.get("tune")
        if tuned is None and given is None:
            continue
        if tuned is None or given is None:
            text = "it has trials, and no space that they come from" if tuned else "it has a space of trials, and does not say how they went"
            yield Finding(rule=RULE, where=cell.name, text=text)
            continue
        yield from (Finding(rule=RULE, where=cell.name, text=text) for text in (*of_trials(cell, tuned), *of_choice(cell, tuned)))
        yield from others_tested(cell, tuned, tested)
        yield from failures(cell, tuned)
    yield from spaces(evidence)


def of_trials(cell: Measured, tuned: Tuning) -> Iterator[str]:
    """What is wrong with the trials: they are not those of the space and the budget, or their accuracies are not those of their stages."""
    known = cell.cell()
    if known is not None:  # rule 2 says why it is None
        planned = [(plain(trial.values), list(trial.stages)) for trial in make_graph((known,)).trials[known.id]]
        if planned != [(trial.values, trial.stages) for trial in tuned.trials]:
            yield f"its {counted(len(tuned.trials), 'trial')} are not the {len(planned)} that its space and its budget give"
    for number, trial in enumerate(tuned.trials, 1):
        measured = val_top1(cell.run.export_dir(trial.stages[-1]) / RESULT) if trial.stages else None
        if measured is not None and trial.val_top1 is not None and measured != trial.val_top1:
            yield f"trial {number} has a validation top-1 of {trial.val_top1}, and its stage says {measured}"


def val_top1(result: Path) -> float | None:
    """The validation accuracy in the result of a stage; None where there is none that can be read."""
    try:
        return float(parsed(result.read_bytes())["val_top1"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def of_choice(cell: Measured, tuned: Tuning) -> Iterator[str]:
    """What is wrong with the choice: another trial had the best validation accuracy, or the numbers are of another network than the chosen one."""
    right = best([trial.val_top1 for trial in tuned.trials])
    if tuned.chosen != right:
        ought = "none has an accuracy" if right is None else f"trial {right + 1} has the best validation top-1"
        yield f"trial {tuned.chosen + 1} of {len(tuned.trials)} is chosen, and {ought}"
        return
    chosen = tuned.trials[tuned.chosen]
    if chosen.val_top1 != cell.metrics.val_top1:
        yield f"its val_top1 is {cell.metrics.val_top1}, and that of the chosen trial {chosen.val_top1}"
    if chosen.stages != cell.record.stages:
        yield "its stages are not those of the chosen trial"


def others_tested(cell: Measured, tuned: Tuning, tested: dict[StagePath, Measured]) -> Iterator[Finding]:
    """Trials that were not chosen and that a cell of their own has evaluated on the test set."""
    for number, trial in enumerate(tuned.trials):
        own = tested.get(tuple(trial.stages))
        if number != tuned.chosen and own is not None:
            text = f"its trial {number + 1}, which was not chosen, is also cell {own.name}, which has read the test set"
            yield Finding(rule=RULE, where=cell.name, text=text)


def failures(cell: Measured, tuned: Tuning) -> Iterator[Finding]:
    """A note on the trials without an accuracy."""
    for trial in tuned.trials:
        if trial.val_top1 is None:
            yield Finding(rule=RULE, where=cell.name, text=f"the trial of {in_words(trial.values)} failed ({trial.failure})", weight="note")


def spaces(evidence: Evidence) -> Iterator[Finding]:
    """A note if the folders hold tables with different spaces or budgets, or both tuned cells and others."""
    by_tuning = {str(cell.settings.get("tune")): cell for cell in evidence.measured}
    if len(by_tuning) > 1:
        text = f"cells are tuned in {len(by_tuning)} ways (not to be tuned is one of them); tables are ranked apart: compare rows within a table only"
        yield Finding(rule=RULE, where=title(list(by_tuning.values())), text=text, weight="note")
