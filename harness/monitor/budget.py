"""What the budget of a run leaves out of its grid, as the file with the choice shows it."""

import msgspec

from harness.monitor.json_fields import read_fields
from harness.text import counted
from jobs.experiment.run_folder import BUDGET, RunFolder


class ChoiceFields(msgspec.Struct):
    """The part of a budget.json that is read here."""

    budget: str
    chosen: list[str]
    left_out: list[str]


CHOICE_FIELDS = msgspec.json.Decoder(ChoiceFields)


def budget_notes(run: RunFolder) -> list[str]:
    """A line on the cells that the run's budget leaves out; none without a budget, or if it leaves out nothing."""
    try:
        choice = read_fields(run.path / BUDGET, CHOICE_FIELDS)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [f"the cells chosen for the run's budget are not known: {error}"]
    if not choice.left_out:
        return []
    cells = len(choice.chosen) + len(choice.left_out)
    return [f"the budget of {choice.budget} leaves out {len(choice.left_out)} of the grid's {counted(cells, 'cell')}, which are not shown here"]
