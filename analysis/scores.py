"""Scores of methods across the models and data sets of a merge: mean ranks with their critical difference, and performance profiles.

A problem is a model on a data set under a recipe; an entrant is a method with its knobs. Entrants are compared at like strength only: those after
which, on average over the problems, a similar fraction of the dense network's multiply-adds is left. The score is the mean test error over seeds.

- Ranks, 1 the best, ties averaged, with the test of Friedman as corrected by Iman and Davenport, and the critical difference of Nemenyi (Demsar 2006,
  Journal of Machine Learning Research 7, section 3.2.2).
- Profiles: the fraction of problems on which an entrant's error is at most tau times the smallest error there (Dolan and More 2002, Mathematical
  Programming 91, as AlgoPerf uses them for training times: Dahl et al. 2023, section 4.2).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from analysis.comparability import Key, digest, unlabelled
from analysis.csv_files import Value
from analysis.printing import number_of, shortened
from analysis.rows import Row, metrics, model_of
from analysis.statistics import LEVEL

if TYPE_CHECKING:
    import numpy

LEVELS = (0.75, 0.5, 0.25, 0.1)  # of strength: fractions of the dense multiply-adds that are left; the nearest counts
LEAST_PROBLEMS, LEAST_ENTRANTS = 2, 3
FAR = 4.0  # tau at which a profile's area ends
LISTED = 10  # reasons that are shown
TAUS = (1.0, 1.1, 1.25, 1.5, 2.0, 4.0)  # of scores.csv
SCORES = (
    "level", "method", "problems", "macs_left", "mean_rank", "critical_difference", "told_from_best", "friedman_p", "mean_error", "profile_area",
    *(f"within_{tau:g}" for tau in TAUS),
)  # fmt: skip
Errors = Mapping[str, Mapping[str, float]]  # by problem, then by entrant: percent; infinite if every seed failed


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Mean ranks of entrants over problems, best first."""

    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    problems: tuple[str, ...]
    critical_difference: float  # of two mean ranks, at 5%
    p: float  # that all entrants are equal


@dataclass(frozen=True, kw_only=True)
class Group:
    """The entrants of like strength: what they left of the multiply-adds, their errors, and their ranking. `why_not`: why there is no ranking."""

    level: float  # of LEVELS
    macs_left: Mapping[str, float]
    errors: Errors  # complete: every problem has every entrant
    least: Mapping[str, float]  # percent that one test image of a problem is
    ranking: Ranking | None
    left_out: tuple[str, ...]  # entrants and problems that lack a result, with the reason
    why_not: str

    @property
    def reasons(self) -> list[str]:
        """The first of `left_out`, and the number of the others."""
        return shortened(self.left_out, LISTED)


def groups(rows: Sequence[Row]) -> list[Group]:
    """The entrants of the rows by strength. Dense rows are no entrants: they are the control."""
    table = tabulate([row for row in rows if not row.is_dense])
    left: dict[str, list[float]] = {}
    for line in table.values():
        for entrant, row in line.items():
            left.setdefault(entrant, []).extend(macs_left(row))
    levels = {entrant: min(LEVELS, key=lambda level: abs(level - fmean(parts))) for entrant, parts in left.items() if parts}
    return [
        make_group(level, {entrant: fmean(left[entrant]) for entrant in levels if levels[entrant] == level}, table)
        for level in LEVELS
        if level in levels.values()
    ]


def tabulate(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """The rows by the title of their problem and of their entrant. Of a problem that several keys hold, the key with the most rows counts."""
    problems: dict[str, dict[Key, dict[str, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        problems[problem(row)][row.key][digest(unlabelled(row.spec.get("pruning")))] = row
    chosen = {name: max(by_key.values(), key=len) for name, by_key in problems.items()}
    titles = distinct({name: problem_title(next(iter(line.values()))) for name, line in chosen.items()})
    entrants = distinct({entrant: row.pruning for line in chosen.values() for entrant, row in line.items()})
    return {titles[name]: {entrants[entrant]: row for entrant, row in line.items()} for name, line in chosen.items()}


def problem(row: Row) -> str:
    """The hash of the model, the data set and the recipe. Machine and measuring are no part of it: they would count the same training twice."""
    return digest([model_of(row), row.key.data, row.key.recipe])


def problem_title(row: Row) -> str:
    """The problem of a row in words: `vim_micro on digits b21e46`."""
    return f"{row.model} on {row.key.data}"


def distinct(names: Mapping[str, str]) -> dict[str, str]:
    """The names by hash, each with the beginning of its hash where several are the same."""
    counts = Counter(names.values())
    return {key: name if counts[name] == 1 else f"{name} #{key[:4]}" for key, name in names.items()}


def macs_left(row: Row) -> list[float]:
    """The fraction of the dense network's multiply-adds that the non-zero weights of each seed do."""
    return [metrics(record).macs_nonzero / max(metrics(record).macs, 1) for record in row.done]


def make_group(level: float, left: Mapping[str, float], table: Mapping[str, Mapping[str, Row]]) -> Group:
    """The group of the entrants in `left`, of a table of rows by problem and entrant."""
    chosen = {line: {name: error(row) for name, row in rows.items() if name in left} for line, rows in table.items()}
    errors, left_out = complete({line: values for line, values in chosen.items() if values})
    least = {line: 100 / max(metrics(row.done[0]).test_samples for row in table[line].values() if row.done) for line in errors}
    entrants = len(next(iter(errors.values()), {}))
    why_not = ""
    if len(errors) < LEAST_PROBLEMS or entrants < LEAST_ENTRANTS:
        size = f"{number_of(entrants, 'method')} on {number_of(len(errors), 'problem')}"
        why_not = f"{size}: ranks need {LEAST_ENTRANTS} methods on {LEAST_PROBLEMS} problems"
    return Group(
        level=level,
        macs_left=left,
        errors=errors,
        least=least,
        ranking=None if why_not else rank(errors),
        left_out=tuple(left_out),
        why_not=why_not,
    )


def percent_left(group: Group) -> str:
    """The level of a group in words: 75%."""
    return f"{group.level:.0%}"


def score_text(made: Sequence[Group]) -> Iterator[str]:
    """The scores as lines of text, for a terminal."""
    for group in made:
        yield f"about {percent_left(group)} of the dense multiply-adds left"
        if group.ranking is None:
            yield f"  not shown: {group.why_not}"
        else:
            yield from (f"  {line}" for line in ranking_text(group.ranking, ratios(group)))
        yield from (f"  left out: {reason}" for reason in group.reasons)
    if not made:
        yield "no pruned row has a result: there are no methods to compare"


def ranking_text(ranking: Ranking, multiples: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """A ranking as lines of text, with the areas under the profiles."""
    over = number_of(len(ranking.problems), "problem")
    yield f"mean rank over {over}; critical difference {ranking.critical_difference:.2f}; Friedman p {ranking.p:.2g}"
    for name, mean in zip(ranking.names, ranking.mean_ranks, strict=True):
        worse = mean - ranking.mean_ranks[0] > ranking.critical_difference
        yield f"{mean:5.2f}  {name}: profile area {area(multiples[name]):.2f}{', worse than the first' if worse else ''}"


def error(row: Row) -> float:
    """The mean test error in percent; infinite if every seed failed."""
    return 100 - row.top1.mean if row.top1 else float("inf")


def complete(table: Errors) -> tuple[dict[str, dict[str, float]], list[str]]:
    """(the table without the entrants and problems that leave holes, what was left out). The one with the largest fraction of holes goes first."""
    import numpy

    lines, names = list(table), list(dict.fromkeys(name for values in table.values() for name in values))
    holes = numpy.array([[name not in table[line] for name in names] for line in lines], dtype=float).reshape(len(lines), len(names))
    left_out = []
    while holes.any():
        of_name, of_line = holes.mean(0), holes.mean(1)
        if of_name.max() >= of_line.max():
            worst = int(of_name.argmax())
            left_out.append(f"{names.pop(worst)}: did not run on {round(of_name[worst] * len(lines))} of {number_of(len(lines), 'problem')}")
            holes = numpy.delete(holes, worst, axis=1)
        else:
            worst = int(of_line.argmax())
            left_out.append(f"{lines.pop(worst)}: {round(of_line[worst] * len(names))} of {number_of(len(names), 'method')} did not run")
            holes = numpy.delete(holes, worst, axis=0)
    kept = {line: {name: table[line][name] for name in names} for line in lines} if names else {}
    failed = [line for line, values in kept.items() if not any(map(math.isfinite, values.values()))]
    return {line: kept[line] for line in kept if line not in failed}, left_out + [f"{line}: every method failed" for line in failed]


def rank(errors: Errors) -> Ranking:
    """Mean ranks of entrants over problems. `errors` is complete, of 2 problems and 3 entrants or more."""
    import numpy
    from scipy.stats import rankdata, studentized_range

    names = list(next(iter(errors.values())))
    table = numpy.array([[values[name] for name in names] for values in errors.values()])
    n, k = table.shape
    ranks = rankdata(numpy.round(table, 9), axis=1)
    means = ranks.mean(0)
    q = float(studentized_range.ppf(LEVEL, k, numpy.inf)) / 2**0.5
    best_first = sorted(range(k), key=lambda i: (means[i], names[i]))
    return Ranking(
        names=tuple(names[i] for i in best_first),
        mean_ranks=tuple(float(means[i]) for i in best_first),
        problems=tuple(errors),
        critical_difference=q * (k * (k + 1) / (6 * n)) ** 0.5,
        p=friedman_p(ranks),
    )


def friedman_p(ranks: "numpy.ndarray") -> float:
    """p that all columns of a table of ranks are equal: Friedman's statistic, compared as F by Iman and Davenport (Demsar 2006, section 3.2.2)."""
    from scipy.stats import f, friedmanchisquare

    n, k = ranks.shape
    if (ranks == ranks[:, :1]).all():
        return 1.0
    chi2 = float(friedmanchisquare(*ranks.T).statistic)
    rest = n * (k - 1) - chi2
    return 0.0 if rest < 1e-9 else float(f.sf((n - 1) * chi2 / rest, k - 1, (k - 1) * (n - 1)))


def ratios(group: Group) -> dict[str, list[float]]:
    """By entrant, its error on each problem as a multiple of the smallest error there; an error below one test image counts as one image."""
    smallest = {line: max(min(values.values()), group.least[line]) for line, values in group.errors.items()}
    names = next(iter(group.errors.values()), {})
    return {name: [max(1.0, max(values[name], group.least[line]) / smallest[line]) for line, values in group.errors.items()] for name in names}


def profile(multiples: Sequence[float], tau: float) -> float:
    """The fraction of problems on which an entrant's error is at most tau times the smallest."""
    return sum(value <= tau * (1 + 1e-9) for value in multiples) / len(multiples)


def area(multiples: Sequence[float]) -> float:
    """The area under a profile from tau = 1 to FAR, as a fraction of the largest: 1 if it wins everywhere. AlgoPerf's score, with its FAR."""
    return fmean(max(0.0, FAR - value) / (FAR - 1) for value in multiples)


def score_lines(made: Sequence[Group]) -> Iterator[dict[str, Value]]:
    """The lines of scores.csv: the entrants of each strength that has a ranking, best first."""
    for group in made:
        if group.ranking is None:
            continue
        ranking, multiples = group.ranking, ratios(group)
        for name, mean_rank in zip(ranking.names, ranking.mean_ranks, strict=True):
            yield {
                "level": group.level,
                "method": name,
                "problems": len(ranking.problems),
                "macs_left": group.macs_left[name],
                "mean_rank": mean_rank,
                "critical_difference": ranking.critical_difference,
                "told_from_best": mean_rank - ranking.mean_ranks[0] > ranking.critical_difference,
                "friedman_p": ranking.p,
                "mean_error": mean if math.isfinite(mean := fmean(values[name] for values in group.errors.values())) else None,
                "profile_area": area(multiples[name]),
                **{f"within_{tau:g}": profile(multiples[name], tau) for tau in TAUS},
            }
