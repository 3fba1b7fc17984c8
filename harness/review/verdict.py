"""The verdict on a cell that was run again: pass, drift or fail, with the reasons in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from harness.review.again import machine, unequal
from harness.review.differences import differences
from harness.review.equivalence import LEVEL, MOST_RUNS, SAME, band, compared, runs_needed
from harness.review.evaluation import ELSEWHERE
from harness.text import counted, shortened
from jobs.experiment.records import Record, now
from jobs.experiment.verification import Comparison, RunAgain, Verdict, Verification

COUNTED = ("test_samples", "params", "params_nonzero", "sparsity_prunable", "macs", "epochs")  # metrics that no machine changes
NAMED = 4


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """A record, the records of its row by seed, and the new runs: what a verdict is about."""

    record: Record
    row: Mapping[int, Record]
    runs: Sequence[Record]  # all with numbers
    margin: float

    @cached_property
    def again(self) -> list[RunAgain]:
        """The runs, each beside the record of its seed."""
        return [beside(self.row.get(run.seed), run) for run in self.runs]

    @property
    def recorded(self) -> dict[int, float]:
        """Top-1 in percent of the row's records, by seed."""
        return {seed: top1(record) for seed, record in sorted(self.row.items())}

    @property
    def drawn(self) -> list[float]:
        """Top-1 of the runs that are another draw: their weights are not those of the record."""
        return [run.top1 for run in self.again if not run.same_weights]

    @property
    def unexpected(self) -> list[int]:
        """The seeds whose weights had to be those of the record, bit for bit, and are not."""
        others = [run for run, compared_run in zip(self.runs, self.again, strict=True) if compared_run.same_weights is False]
        return [run.seed for run in others if must_be_equal(self.row[run.seed], run)]


def top1(record: Record) -> float:
    """Top-1 in percent of a record with numbers."""
    assert record.metrics is not None
    return record.metrics.top1


def must_be_equal(recorded: Record, run: Record) -> bool:
    """True if the same code ran on an equal machine with equal images: its weights are equal, bit for bit."""
    then, here = recorded.environment, run.environment
    return then.code is not None and then.code == here.code and then.data_sha256 == here.data_sha256 and machine(then) == machine(here)


def beside(recorded: Record | None, run: Record) -> RunAgain:
    """A run beside the record of its seed, if there is one."""
    if recorded is None:
        return RunAgain(seed=run.seed, recorded_top1=None, top1=top1(run), same_weights=None)
    same = None if recorded.weights_sha256 is None else recorded.weights_sha256 == run.weights_sha256
    differing = contradictions(recorded, run) if same else []
    return RunAgain(seed=run.seed, recorded_top1=top1(recorded), top1=top1(run), same_weights=same, differing=differing)


def contradictions(recorded: Record, run: Record) -> list[str]:
    """The numbers of a record that its own weights do not give. Elsewhere kernels round differently, so a few images may be classified otherwise."""
    differing = unequal(recorded, run)
    if machine(recorded.environment) == machine(run.environment):
        return list(differing)
    assert recorded.metrics is not None and run.metrics is not None
    images = recorded.metrics.test_samples
    moved = round(abs(recorded.metrics.top1 - run.metrics.top1) * images / 100)
    close = {"top1"} if moved <= max(1, round(ELSEWHERE * images)) else set()
    return [name for name in differing if name in {"top1", *COUNTED} - close]


def judged(subject: Rerun, *, code_of_record: bool, by: str | None) -> Verification:
    """The verification of a cell from its new runs."""
    record = subject.record
    comparison = compared(list(subject.recorded.values()), subject.drawn, subject.margin)
    verdict, reasons = decided(subject, comparison)
    return Verification(
        cell=record.id,
        grid=record.grid,
        model=record.model,
        pruning=record.pruning,
        seed=record.seed,
        weights_sha256=record.weights_sha256,
        recorded=subject.recorded,
        runs=subject.again,
        comparison=comparison,
        margin=subject.margin,
        level=LEVEL,
        verdict=verdict,
        reasons=reasons,
        code_of_record=code_of_record,
        differences=differences(record, subject.runs[0]),
        by=by,
        finished=now(),
    )


def decided(subject: Rerun, comparison: Comparison | None) -> tuple[Verdict, list[str]]:
    """The verdict and its reasons. Numbers that their own weights do not give fail at once; else equal weights, then the tests decide."""
    if false := [run for run in subject.again if run.differing]:
        return "fail", [contradiction(run) for run in false]
    same = sum(run.same_weights is True for run in subject.again)
    equal = [f"{same} of {counted(len(subject.again), 'run')} left the weights of the record, bit for bit, and its numbers"] if same else []
    if not subject.drawn:
        return "pass", equal
    verdict, reasons = by_tests(subject, comparison) if comparison else by_margin(subject)
    if verdict != "fail" and subject.unexpected:
        seeds = shortened(subject.unexpected, NAMED)
        why = f"the same code on an equal machine had to give the same weights, bit for bit, and did not (seed {seeds})"
        return "drift", [f"{why}: the record or the weights may have been changed, or something that no record holds has", *equal, *reasons]
    if verdict == "drift" and equal:
        return "pass", [*equal, *(f"further seeds: {reason}" for reason in reasons[:1]), *reasons[1:]]
    return verdict, [*reasons, *equal] if verdict == "fail" else [*equal, *reasons]


def contradiction(run: RunAgain) -> str:
    """That a record has other numbers than its own weights give."""
    start = f"seed {run.seed}: the weights are those of the record, bit for bit, and the record has other numbers than they give"
    if run.recorded_top1 is not None and "top1" in run.differing:
        return f"{start}: top-1 {run.recorded_top1:.2f} recorded, {run.top1:.2f} here"
    return f"{start}: {', '.join(run.differing)}"


def by_tests(subject: Rerun, comparison: Comparison) -> tuple[Verdict, list[str]]:
    """The verdict of the tests."""
    seen = found_difference(comparison)
    allowed = f"the margin of {points(subject.margin)}"
    if comparison.p_beyond < LEVEL:
        return "fail", [f"worse by more than {allowed} (p {comparison.p_beyond:.2g}): {seen}", *where_recorded(subject, comparison)]
    if comparison.p_equivalent < LEVEL:
        worse = f"; lower all the same (p {comparison.p_worse:.2g})" if comparison.p_worse < LEVEL else ""
        return "pass", [f"equivalent within {allowed} (p {comparison.p_equivalent:.2g}){worse}: {seen}"]
    if comparison.low > subject.margin:
        return "drift", [f"better than recorded by more than {allowed}, so the record is not what runs here give: {seen}"]
    lower = f"; lower than recorded (p {comparison.p_worse:.2g}), but perhaps by less" if comparison.p_worse < LEVEL else ""
    return "drift", [f"neither equivalent within {allowed} nor worse by more is shown{lower}: {seen}", advice(subject)]


def found_difference(comparison: Comparison) -> str:
    """The difference and its interval, in a sentence."""
    spread = {"both": "", "seeds": ", by the spread of the recorded seeds", "runs": ", by the spread of the runs"}[comparison.spread_of]
    interval = f"{100 * (1 - 2 * LEVEL):.0f}% interval {comparison.low:+.2f} to {comparison.high:+.2f}"
    sizes = f"the mean of {counted(comparison.runs, 'run')} minus that of {counted(comparison.seeds, 'recorded seed')}"
    return f"{sizes} is {comparison.difference:+.2f} points of top-1, {interval}{spread}"


def where_recorded(subject: Rerun, comparison: Comparison) -> list[str]:
    """What a failure means if the cell's own weights were reproduced: its seeds were no fair draw."""
    if not any(run.same_weights for run in subject.again):
        return []
    return [f"the recorded weights are real, but {counted(comparison.runs, 'further seed')} come out worse: the recorded seeds may have been chosen"]


def by_margin(subject: Rerun) -> tuple[Verdict, list[str]]:
    """The verdict on one run beside one recorded seed."""
    off = fmean(subject.drawn) - fmean(subject.recorded.values())
    none = "the record has one seed, so its seeds span no band, and one run beside it can be held against the margin alone"
    if abs(off) <= subject.margin + SAME:
        return "pass", [f"within the margin of {points(subject.margin)}: {off:+.2f} points of top-1", none]
    return "drift", [f"beyond the margin of {points(subject.margin)}: {off:+.2f} points of top-1", none, "--seeds 3 would give a spread to judge by"]


def advice(subject: Rerun) -> str:
    """What more seeds would do."""
    recorded = list(subject.recorded.values())
    needed = runs_needed(recorded, subject.drawn, subject.margin)
    if needed is not None:
        equal = sum(run.same_weights is True for run in subject.again)
        return f"--seeds {needed + equal} would show equivalence if the spread stays and the means are equal"
    return (
        f"{MOST_RUNS} runs would not show equivalence either, if the spread stays: {counted(len(recorded), 'recorded seed')} "
        f"leave more than {points(subject.margin)} open; --margin takes another"
    )


def points(number: float) -> str:
    """'1 point', '0.5 points'."""
    return f"{number:g} point" if number == 1 else f"{number:g} points"


def expectation(recorded: Mapping[int, float], runs: int) -> str:
    """The band that the recorded seeds span, in a sentence."""
    values = list(recorded.values())
    limit = band(values, runs)
    if limit is None:
        return f"one recorded seed ({values[0]:.2f}): it spans no band"
    start = f"{counted(len(values), 'recorded seed')}, mean {fmean(values):.2f}"
    if limit <= 0:
        return f"{start}: they are too few, and differ too much, to span a band"
    mean = "another run" if runs == 1 else f"the mean of {runs} others"
    return f"{start}: by their spread, {mean} falls below {limit:.2f} with probability {LEVEL:.0%}"
