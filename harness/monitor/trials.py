"""How the trials of a run's tuned cells stand."""

from collections import Counter

from harness.monitor.survey import Survey, given_up
from harness.text import counted
from jobs.experiment.ids import StageId
from jobs.experiment.trials import lost_stages


def trial_notes(surveyed: Survey) -> list[str]:
    """A line about the trials of tuned cells: how many have ended, and how many of them failed; none where no cell chooses among trials."""
    ends = Counter(end for entry in surveyed.index.cells.values() if len(entry.trials) > 1 for end in trial_ends(surveyed, entry.trials))
    if not ends:
        return []
    failed = f", {ends['failed']} failed, which counts as tried" if ends["failed"] else ""
    return [f"tuning: {ends['done']} of {counted(ends.total(), 'trial')} done{failed}"]


def trial_ends(surveyed: Survey, trials: tuple[tuple[StageId, ...], ...]) -> list[str]:
    """Of each trial of a cell whether it is 'done', 'failed' or 'open'."""
    lost = lost_stages(trials, lambda stage: given_up(surveyed.files.get(stage, ())))
    return ["failed" if path[-1] in lost else "done" if surveyed.done(path[-1]) else "open" for path in trials]
