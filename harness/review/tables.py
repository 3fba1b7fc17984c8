"""Rules on the cells of a table together: 8 and 11 to 14."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from harness.review.evidence import Evidence, Measured, grouped, text_of, title
from harness.review.rules import Finding
from harness.text import counted, shortened
from jobs.experiment.run_folder import CODE_DIFF, RunFolder
from jobs.experiment.sources import SOURCES
from jobs.worker.code_copy import digest_of

SETTLED = 3  # seeds from which on a rank means something
NAMED = 6
SAME: Mapping[str, Callable[[Measured], object]] = {  # within a table, beside what a leaderboard separates by itself
    "versions": lambda cell: text_of(cell.record.environment.versions),
    "python": lambda cell: cell.record.environment.python,
    "cpu": lambda cell: cell.record.environment.cpu,
    "tf32": lambda cell: cell.record.environment.tf32,
}


def data(evidence: Evidence) -> Iterator[Finding]:
    """Rule 8."""
    for cells in by(evidence.measured, lambda cell: text_of(cell.settings.get("data"))):
        for what, value in (("content hash", hash_of), ("number of test images", test_images)):
            yield from disagreement(8, "the data", f"{what} of the same data settings", cells, value)
    for cell in evidence.measured:
        source = str(cell.record.spec.get("data", {}).get("source"))
        known = SOURCES[source].test_images if source in SOURCES else None
        if known is not None and test_images(cell) != known:
            yield Finding(rule=8, where=cell.name, text=f"it was tested on {cell.metrics.test_samples:,} images, and {source} has {known:,}")


def hash_of(cell: Measured) -> object:
    """The hash of the images that a cell saw."""
    return cell.record.environment.data_sha256


def test_images(cell: Measured) -> object:
    """How many test images a cell was evaluated on."""
    return cell.metrics.test_samples


def measuring(evidence: Evidence) -> Iterator[Finding]:
    """Rule 11."""
    for cells in evidence.tables():
        for name, value in SAME.items():
            yield from disagreement(11, title(cells), name, cells, value)


def disagreement(rule: int, where: str, what: str, cells: Sequence[Measured], value: Callable[[Measured], object]) -> Iterator[Finding]:
    """A finding if cells that should agree do not: the values, and the cells that have the rarer ones."""
    counts = Counter(map(value, cells))
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    odd = [cell.name for cell in cells if value(cell) != usual]
    yield Finding(rule=rule, where=where, text=f"{what}: {len(counts)} values; {shortened(odd, NAMED)} differ from the others")


def controls(evidence: Evidence) -> Iterator[Finding]:
    """Rule 12."""
    for cells in evidence.tables():
        for own in grouped(cells, "model").values():
            methods = {cell.method for cell in own}
            missing = [name for name in ("dense", "random") if name not in methods]
            if methods != {"dense"} and missing:
                text = f"{own[0].record.model} has {', '.join(sorted(methods))}, and no {' and no '.join(missing)} beside it"
                yield Finding(rule=12, where=title(cells), text=text)


def seeds(evidence: Evidence) -> Iterator[Finding]:
    """Rule 13."""
    for cells in evidence.tables():
        rows = grouped(cells, "row")
        wanted = sorted({cell.record.seed for cell in cells})
        for own in rows.values():
            name = f"{own[0].record.model}, {own[0].record.pruning}"
            there = Counter(cell.record.seed for cell in own)
            if missing := [seed for seed in wanted if seed not in there]:
                yield Finding(rule=13, where=title(cells), text=f"{name}: no seed {shortened(missing, NAMED)}, which other rows have")
            yield from twice(name, own)
            yield from copied(name, own)
        if len(wanted) < SETTLED:
            text = f"{counted(len(wanted), 'seed')}: differences between rows are not settled"
            yield Finding(rule=13, where=title(cells), text=text, weight="note")


def twice(name: str, cells: Sequence[Measured]) -> Iterator[Finding]:
    """A finding if a seed of a row has two results: the same cell in two folders may only be a copy."""
    for own in by(cells, lambda cell: cell.record.seed):
        if len({cell.record.model_dump_json() for cell in own}) > 1:
            names = ", ".join(cell.name for cell in own)
            yield Finding(rule=13, where=names, text=f"{name}: seed {own[0].record.seed} has {len(own)} results that differ")


def copied(name: str, cells: Sequence[Measured]) -> Iterator[Finding]:
    """A finding if several seeds of a row that was trained have one network: a training depends on its seed."""
    for own in by([cell for cell in cells if cell.metrics.epochs and cell.record.weights_sha256], lambda cell: cell.record.weights_sha256):
        if len(seeds := sorted({cell.record.seed for cell in own})) > 1:
            text = f"{name}: seeds {shortened(seeds, NAMED)} have the same weights, bit for bit: all but one are copies"
            yield Finding(rule=13, where=", ".join(cell.name for cell in own), text=text)


def code(evidence: Evidence) -> Iterator[Finding]:
    """Rule 14."""
    for cells in evidence.tables():
        versions = Counter((cell.record.environment.commit, cell.record.environment.dirty) for cell in cells)
        yield from disagreement(14, title(cells), "version of the code", cells, code_of)
        if any(commit is None for commit, _ in versions):
            text = "the commit of some cells is not known: they ran from a copy without a repository"
            yield Finding(rule=14, where=title(cells), text=text, weight="unchecked")
        for run in {cell.run.path: cell.run for cell in cells}.values():
            own = [cell.record.environment for cell in cells if cell.run is run]
            yield from changed_copies(run, sorted({around.code or "" for around in own}))
            if any(around.dirty for around in own):
                yield changed_code(run)


def code_of(cell: Measured) -> object:
    """The code that a cell ran: by its content, which older records do not have, and by its commit."""
    around = cell.record.environment
    return text_of([around.code, around.commit])


def changed_copies(run: RunFolder, codes: Iterable[str]) -> Iterator[Finding]:
    """Copies of the code in a run folder whose content is not what their names say; a note on those that are not there."""
    for copy in (run.code_dir / code for code in codes if code):
        where = f"{run.path.name}/{copy.parent.name}/{copy.name}"
        if not copy.is_dir():
            yield Finding(rule=14, where=where, text="the folder has no copy of the code that ran, so that nobody can look at it here", weight="note")
        elif digest_of(copy) != copy.name:
            yield Finding(rule=14, where=where, text="the copy of the code was changed after the launch")


def changed_code(run: RunFolder) -> Finding:
    """What is known of code that was changed after its commit."""
    diff = run.path / CODE_DIFF
    if not diff.exists():
        return Finding(rule=14, where=run.path.name, text=f"the code had changes after its commit, and {CODE_DIFF} is missing")
    changed = diff.read_bytes()
    text = f"the code had changes after its commit; {CODE_DIFF} has them ({len(changed.splitlines()):,} lines)"
    return Finding(rule=14, where=run.path.name, text=text, weight="note")


def by(cells: Sequence[Measured], value: Callable[[Measured], object]) -> list[list[Measured]]:
    """Cells in groups of equal values."""
    groups: dict[str, list[Measured]] = {}
    for cell in cells:
        groups.setdefault(json.dumps(value(cell), default=str), []).append(cell)
    return list(groups.values())
