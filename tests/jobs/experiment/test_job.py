"""A planned cell, with and without trials."""

from jobs.experiment.ids import StageId
from jobs.experiment.job import PlannedCell
from jobs.experiment.trials import Trial
from tests.support.cells import make_cell

TRUNK, A, B, CHOICE = map(StageId, ("trunk", "a", "b", "choice"))


def test_a_cell_without_trials_needs_its_whole_path() -> None:
    planned = PlannedCell(cell=make_cell(), stages=(TRUNK, A))
    assert planned.required == (TRUNK, A) and planned.leading_to(A) == (TRUNK,)
    assert planned.lost({TRUNK}.__contains__) == frozenset()


def test_a_tuned_cell_can_do_without_a_trial() -> None:
    trials = tuple(Trial(values={"finetune_lr": rate}, stages=(TRUNK, stage)) for rate, stage in ((1e-3, A), (2e-3, B)))
    planned = PlannedCell(cell=make_cell(), stages=(TRUNK, A, B, CHOICE), trials=trials)
    assert planned.required == (TRUNK, CHOICE) and planned.leading_to(CHOICE) == (TRUNK,)
    assert planned.lost({A}.__contains__) == {A} and planned.lost({TRUNK}.__contains__) == {TRUNK, A, B}
