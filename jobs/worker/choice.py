"""The choice among the trials of a tuned cell: the stage that makes it, and what the cell's record says of it.

It is a pure function of the results of the trials, made once all of them have ended, and never changed afterwards. No trial has seen the test set.
"""

import shutil
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.experiment.files import write_json
from jobs.experiment.ids import StageId
from jobs.experiment.job import PlannedCell
from jobs.experiment.records import Strict, TrialRecord, Tuning, read_as
from jobs.experiment.run_folder import CHOICE, EXPORT, MASKS, RESULT, STRUCTURE, UNFINISHED_EXPORT, WEIGHTS, RunFolder
from jobs.experiment.specs import StageSpec
from jobs.experiment.trials import best, lost_stages

if TYPE_CHECKING:
    from jobs.parallel.engine import Ranks
    from jobs.train.exports import StageResult


class NoTrialLeft(RuntimeError):
    """All trials of a cell have failed."""


class Outcome(Strict):
    """How a trial ended."""

    val_top1: float | None  # percent; None: it failed
    failure: str = ""


class Choice(Strict):
    """The content of choice.json."""

    chosen: int
    trials: list[Outcome]


def choose(run: RunFolder, spec: StageSpec, ranks: "Ranks") -> None:
    """Leaves the export of the best trial as that of this stage. A collective; the caller holds the stage's claim.

    All trials have ended. Raises NoTrialLeft, on all ranks, if all have failed.
    """
    refusal: NoTrialLeft | None = ranks.broadcast(chosen_here(run, spec) if ranks.rank == 0 else None)
    if refusal is not None:
        raise refusal


def chosen_here(run: RunFolder, spec: StageSpec) -> NoTrialLeft | None:
    """Why no trial can be chosen; None once the choice is on disk."""
    outcomes = [outcome(run, path) for path in spec.trials]
    chosen = best([each.val_top1 for each in outcomes])
    if chosen is None:
        return NoTrialLeft(f"all {len(outcomes)} trials have failed: see {run.stage_dir(spec.trials[0][-1])} for the first of them")
    take_over(run.stage_dir(spec.trials[chosen][-1]), run.stage_dir(spec.id), Choice(chosen=chosen, trials=outcomes))
    print(
        f"stage {spec.id}: trial {chosen + 1} of {len(outcomes)} is chosen, with a validation top-1 of {outcomes[chosen].val_top1:.2f}%", flush=True
    )
    return None


def unended_trials(run: RunFolder, spec: StageSpec, within: Collection[StageId] = ()) -> list[StageId]:
    """The last stages of a stage's trials that are neither done nor out of reach. `within`: those that are left out."""
    lost = lost_stages(spec.trials, run.given_up)
    last = [path[-1] for path in spec.trials]
    return [stage for stage in last if stage not in within and stage not in lost and not run.done(stage)]


def outcome(run: RunFolder, path: tuple[StageId, ...]) -> Outcome:
    """How a trial ended, given as its stages."""
    from jobs.train.exports import read_result

    result: StageResult | None = read_result(run.stage_dir(path[-1])) if run.done(path[-1]) else None
    if result is None:
        failures = (run.failure(stage) for stage in path if run.given_up(stage))
        return Outcome(val_top1=None, failure=next((failure.kind for failure in failures if failure), "unknown"))
    known = result.val_top1 == result.val_top1  # NaN equals nothing
    return Outcome(val_top1=result.val_top1 if known else None, failure="" if known else "validation accuracy is NaN")


def take_over(trial: Path, folder: Path, choice: Choice) -> None:
    """Publishes the export of the stage in `trial` as that of the stage in `folder`, whole or not at all. Hard links if the file system has them."""
    from jobs.train.exports import read_result

    aside, result = folder / UNFINISHED_EXPORT, read_result(trial)
    assert result is not None, f"{trial} is done"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for file in (trial / EXPORT).iterdir():
        if file.name not in (WEIGHTS, MASKS, STRUCTURE):
            continue
        try:
            (aside / file.name).hardlink_to(file)
        except OSError:
            shutil.copy2(file, aside / file.name)
    write_json(aside / RESULT, asdict(replace(result, steps=0, epochs=0, train_s=0.0, joules=None)))
    write_json(aside / CHOICE, choice.model_dump(mode="json"))
    aside.rename(folder / EXPORT)


def choice_of(run: RunFolder, planned: PlannedCell) -> Choice:
    """The choice among the trials of a tuned cell; of a single trial that one."""
    if len(planned.trials) == 1:
        return Choice(chosen=0, trials=[outcome(run, planned.trials[0].stages)])
    return read_as(Choice, run.export_dir(planned.stages[-1]) / CHOICE)


def own_path(run: RunFolder, planned: PlannedCell) -> tuple[StageId, ...]:
    """The stages that made a finished cell's network: those of the chosen trial."""
    return planned.trials[choice_of(run, planned).chosen].stages if planned.trials else planned.stages


def tuning_record(run: RunFolder, planned: PlannedCell) -> Tuning | None:
    """What the record of a finished cell says of its tuning; None if it was not tuned."""
    from jobs.train.exports import read_result

    if not planned.trials:
        return None
    choice = choice_of(run, planned)
    trials = [
        TrialRecord(values=dict(trial.values), val_top1=ended.val_top1, failure=ended.failure, stages=list(trial.stages))
        for trial, ended in zip(planned.trials, choice.trials, strict=True)
    ]
    stages = dict.fromkeys(stage for trial in planned.trials for stage in trial.stages)
    results = [result for stage in stages if (result := read_result(run.stage_dir(stage)))]
    return Tuning(trials=trials, chosen=choice.chosen, train_s=sum(result.train_s for result in results))
