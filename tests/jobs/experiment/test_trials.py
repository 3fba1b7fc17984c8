"""Trials of a tuned cell: which are lost, and which is chosen, against brute force."""

import itertools
import math
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from jobs.experiment.ids import StageId
from jobs.experiment.trials import best, in_words, leading_to, lost_stages, required, touching

TRUNK, A, B, C, D, CHOICE = map(StageId, ("trunk", "a", "b", "c", "d", "choice"))
SHARED = ((TRUNK, A), (TRUNK, B))
APART = ((A, B), (C, D))


@given(st.lists(st.one_of(st.none(), st.just(math.nan), st.sampled_from([10.0, 20.0, 20.0, 30.0]))))
def test_the_best_is_the_first_of_the_highest_accuracies(accuracies: list[float | None]) -> None:
    ended = [number for number, value in enumerate(accuracies) if value is not None and value == value]
    winners = [n for n in ended if all(accuracies[n] >= accuracies[other] for other in ended)]  # type: ignore[operator]
    assert best(accuracies) == (min(winners) if winners else None)


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True), min_size=1, max_size=4), st.sets(st.sampled_from("abcdef")))
def test_a_stage_is_lost_if_no_path_reaches_it(paths: list[list[str]], failed: set[str]) -> None:
    def reached(stage: str) -> bool:
        return any(stage in path and failed.isdisjoint(path[: path.index(stage) + 1]) for path in paths)

    expected = {stage for stage in itertools.chain(*paths) if not reached(stage)}
    assert lost_stages([tuple(map(StageId, path)) for path in paths], failed.__contains__) == expected


def test_what_every_trial_needs_the_cell_needs() -> None:
    assert required((TRUNK, A, B, CHOICE), SHARED) == (TRUNK, CHOICE)
    assert required((A, B, C, D, CHOICE), APART) == (CHOICE,)
    assert required((TRUNK, A), ((TRUNK, A),)) == required((TRUNK, A), ()) == (TRUNK, A), "a single trial is an ordinary path"


def test_a_trial_needs_its_own_path_and_the_choice_what_all_need() -> None:
    stages = (TRUNK, A, B, CHOICE)
    assert [leading_to(stage, stages, SHARED) for stage in stages] == [(), (TRUNK,), (TRUNK,), (TRUNK,)]
    assert leading_to(CHOICE, (A, B, C, D, CHOICE), APART) == () and leading_to(D, (A, B, C, D, CHOICE), APART) == (C,)
    assert leading_to(A, (TRUNK, A), ()) == (TRUNK,)


def test_values_are_named_as_they_are_written() -> None:
    assert in_words({"finetune_lr": 2e-3, "clip_grad": None, "optimizer": "lamb"}) == "finetune_lr 0.002, clip_grad null, optimizer lamb"
    assert in_words(touching({"finetune_lr": 1.0, "lr": 2.0}, "train")) == "lr 2"
    assert touching({"finetune_lr": 1.0, "lr": 2.0}, "finetune") == {"finetune_lr": 1.0, "lr": 2.0}


def test_reading_trials_needs_no_models() -> None:
    code = "import jobs.experiment.trials, sys; sys.exit(any(name.startswith(('models.', 'torch')) for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
