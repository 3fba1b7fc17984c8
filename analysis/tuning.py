"""What the records of a row say of its tuning."""

from collections import Counter
from collections.abc import Iterable
from statistics import fmean, median

from analysis.rows import Row
from jobs.experiment.records import Tuning
from jobs.experiment.trials import in_words


def tunings(row: Row) -> list[Tuning]:
    """The tuning of every seed with a number; empty for a row that was not tuned."""
    return [record.tuning for record in row.done if record.tuning]


def trials(row: Row) -> int | None:
    """The trials behind each seed; None for a row that was not tuned."""
    return max((len(tuning.trials) for tuning in tunings(row)), default=None)


def failed_trials(row: Row) -> int | None:
    """The trials that failed, over all seeds; None for a row that was not tuned."""
    known = tunings(row)
    return sum(trial.val_top1 is None for tuning in known for trial in tuning.trials) if known else None


def chosen(row: Row) -> str:
    """The chosen values, those of most seeds first, with the seeds where they differ: 'lr 0.002 (2 seeds); lr 0.004 (1 seed)'."""
    counts = Counter(in_words(tuning.trials[tuning.chosen].values) for tuning in tunings(row))
    if len(counts) < 2:
        return next(iter(counts), "")
    return "; ".join(f"{values} ({count} seed{'s' if count > 1 else ''})" for values, count in counts.most_common())


def gain(row: Row) -> float | None:
    """Validation top-1 of the chosen trial minus the median of the trials that have one, in points; the mean over seeds."""
    gains = [gain_of(tuning) for tuning in tunings(row)]
    return fmean(gains) if gains else None


def gain_of(tuning: Tuning) -> float:
    """The gain of one seed."""
    known = [trial.val_top1 for trial in tuning.trials if trial.val_top1 is not None]
    best = tuning.trials[tuning.chosen].val_top1
    return 0.0 if best is None else best - median(known)


def sentence(rows: Iterable[Row]) -> str:
    """How many trials stood behind the rows of a table; empty if none was tuned."""
    counts = sorted({count for row in rows if (count := trials(row)) is not None})
    if not counts:
        return ""
    shown = str(counts[-1]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"Tuned: each seed of a row chose among {shown} trials by validation accuracy."


def tuning_hours(row: Row) -> float | None:
    """Hours of training of all trials, the mean over seeds; None for a row that was not tuned."""
    known = tunings(row)
    return fmean(tuning.train_s for tuning in known) / 3600 if known else None
