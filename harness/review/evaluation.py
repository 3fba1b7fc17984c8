"""Rule 16: saved networks that are evaluated again, and what verifications left."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.review.evidence import Evidence, Measured
from harness.review.rules import Finding
from jobs.experiment.verification import verifications

if TYPE_CHECKING:
    from jobs.train.evaluation import Scores

ELSEWHERE = 0.002  # of the test images may fall on the other side on another machine, whose kernels round differently; at least one


def sample(cells: Sequence[Measured], count: int) -> list[Measured]:
    """`count` cells, which nobody chose: those whose weights' digest comes first when hashed again."""
    return sorted(cells, key=lambda cell: hashlib.sha256((cell.record.weights_sha256 or cell.record.id).encode()).hexdigest())[:count]


def evaluated_again(evidence: Evidence, count: int, cache: str) -> Iterator[Finding]:
    """Rule 16, for `count` cells. The data sets are written to `cache` if they are not there."""
    if count == 0:
        yield Finding(rule=16, where="all cells", text="not asked for: --evaluate 5 evaluates five cells again", weight="unchecked")
    for cell in sample(evidence.measured, count):
        yield from evaluated(cell, Path(cache))


def verified(evidence: Evidence) -> Iterator[Finding]:
    """What verifications in the folders say, as notes: whoever made a folder may have written them."""
    kept = [(run, verification) for run in evidence.runs for verification in verifications(run.path)]
    for cell in evidence.measured:
        own = [verification for run, verification in kept if run is cell.run and verification.cell == cell.record.id]
        for verification in own:
            outdated = "" if verification.fits(cell.record) else ", of other numbers than the record has now"
            by = f" by {verification.by}" if verification.by else ""
            text = f"verified{by} on {verification.finished[:10]}{outdated}: {verification.verdict}: {'; '.join(verification.reasons[:1])}"
            yield Finding(rule=16, where=cell.name, text=text, weight="note")


def evaluated(measured: Measured, cache: Path) -> Iterator[Finding]:
    """What differs of one cell whose saved file is evaluated on the test set again."""
    from jobs.data.beton import DataError
    from jobs.data.loaders import EvalLoader
    from jobs.data.prepare import prepare
    from jobs.parallel.engine import rendezvous
    from jobs.parallel.precision import set_precision
    from jobs.train.evaluation import WeightsError, evaluate, load_model

    cell, around = measured.cell(), measured.record.environment
    if cell is None:
        yield Finding(rule=16, where=measured.name, text=measured.why_unknown, weight="unchecked")
        return
    try:
        images = prepare(cell.data, cache.expanduser())
    except (DataError, OSError) as error:
        yield Finding(rule=16, where=measured.name, text=f"its data is not here: {error}", weight="unchecked")
        return
    if images.sha256 != around.data_sha256:
        yield Finding(rule=8, where=measured.name, text="the images on this machine are others than those that it saw: their content hash differs")
        return
    ranks = rendezvous(around.threads)
    set_precision(cell.recipe.dtype)
    try:
        weights = measured.weights
        network = load_model(cell.model, classes=images.classes, img_size=images.img_size, scan=cell.recipe.scan, weights=weights).to(ranks.device)
    except (WeightsError, OSError) as error:
        yield Finding(rule=16, where=measured.name, text=str(error).splitlines()[0])
        return
    loader = EvalLoader(cell.data, images, "test", batch_size=cell.recipe.batch_size, rank=0, world=1, threads=around.threads, device=ranks.device)
    scores = evaluate(network, loader.batches(), ranks)
    yield from compared(measured, scores)


def compared(measured: Measured, scores: "Scores") -> Iterator[Finding]:
    """What differs of the accuracies of a cell and those of its saved file here."""
    samples, allowed = scores.samples, max(1, round(ELSEWHERE * scores.samples))
    for name, here, recorded in (("top-1", scores.top1, measured.metrics.top1), ("top-5", scores.top5, measured.metrics.top5)):
        if here is None or recorded is None:
            off = samples if here is not recorded else 0
        else:
            off = round(abs(here - recorded) * samples / 100)
        seen = f"{name} is {shown(here)} here, and {shown(recorded)} in the record: {off} of {samples} images"
        if off > allowed or samples != measured.metrics.test_samples:
            yield Finding(rule=16, where=measured.name, text=seen)
        elif off:
            yield Finding(rule=16, where=measured.name, text=f"{seen}, which another machine may round to", weight="note")


def shown(accuracy: float | None) -> str:
    """An accuracy in percent."""
    return "none" if accuracy is None else f"{accuracy:.4f}"
