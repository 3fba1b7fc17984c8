"""What the training of a cell cost, over its whole path: shared stages and the search for a mask included."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.parallel.engine import Ranks
    from jobs.train.exports import StageResult


def path_costs(results: Sequence["StageResult"], ranks: "Ranks", threads: int) -> dict[str, Any]:
    """Fields of `Metrics`. `results`: of every stage, first first. Hours are those of all ranks (GPUs) or of all their threads (cores).

    Joules are unknown when those of one stage are.
    """
    train_s = sum(result.train_s for result in results)
    rank_h = train_s * ranks.world / 3600
    on_gpu = ranks.device.type == "cuda"
    joules = [result.joules for result in results]
    peaks = [result.peak_memory_bytes for result in results if result.peak_memory_bytes is not None]
    return {
        "epochs": sum(result.epochs for result in results),
        "train_s": train_s,
        "train_img_per_s": results[0].train_img_per_s,
        "train_gpu_h": rank_h if on_gpu else None,
        "train_cpu_h": None if on_gpu else rank_h * threads,
        "train_peak_memory_bytes": max(peaks, default=None),
        "train_j": None if None in joules else sum(joules),
    }
