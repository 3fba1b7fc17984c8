"""A table: seconds from the start of a process to the first optimizer step of a cell on digits, and where they go.

A warm disk is what every job but a machine's first one sees: the .beton is written and FFCV's compiled code is in the cache (`--cold` empties a cache
first and pays for both). Each part is a fresh process's own clock; the median of three processes is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jobs.cluster.surroundings import forget_outer_job
from models.closed_pipe import ends_with_its_reader

REPEATS = 3


def process_age_s() -> float:
    """Seconds since this process was started, by the kernel's clock."""
    started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")


def child(cache: Path) -> dict[str, float]:
    """Seconds of each part of one start, in order."""
    marks = {"python": process_age_s()}

    def mark(part: str) -> None:
        marks[part] = process_age_s() - sum(marks.values())

    import torch

    mark("import torch")
    from jobs.parallel.engine import load_deepspeed, rendezvous

    ranks = rendezvous(threads=1)
    load_deepspeed()
    mark("import deepspeed, rendezvous")
    from jobs.data.loaders import EvalLoader, TrainLoader
    from jobs.data.prepare import prepare
    from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec, StageSpec
    from jobs.train.stage_trainer import StageTrainer
    from models.layers import weight_decay_groups
    from models.pruning.base import Stage
    from models.registry import create_model

    data, recipe = DataSpec(), RecipeSpec()
    dataset = prepare(data, cache)
    mark("data on disk")
    training = TrainLoader(data, dataset, seed=0, batch_size=64, micro_batch_size=64, rank=0, world=1, threads=1)
    validation = EvalLoader(data, dataset, "val", batch_size=64, rank=0, world=1, threads=1)
    mark("import ffcv, loaders")
    model = create_model("vim_micro", dataset.classes, dataset.img_size)
    mark("model")
    spec = StageSpec(
        id="startup", model=ModelSpec(name="vim_micro", label="vim_micro"), data=data, recipe=recipe, seed=0, stage=Stage(name="train", epochs=1)
    )
    with tempfile.TemporaryDirectory() as folder:
        stage = StageTrainer(spec, model, training, validation, Path(folder), no_decay=weight_decay_groups(model, False)[1], ranks=ranks)
        stage.start(None, None)
        mark("DeepSpeed engine")
        batches = training.epoch(0)
        images, labels = next(batches)
        mark("first batch")
        stage.network.engine.forward_backward(images, labels, last=True)
        stage.network.engine.step(1e-3)
        mark("first step")
    assert torch.isfinite(images).all()
    return marks


@ends_with_its_reader
def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cold", action="store_true", help="with an empty cache folder")
    options = parser.parse_args()
    forget_outer_job()
    if options.child:
        print(json.dumps(child(options.child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        runs = [measured(cache) for _ in range(1 if options.cold else 1 + REPEATS)]
    warm = runs if options.cold else runs[1:]
    for part in warm[0]:
        print(f"{part:30} {statistics.median(run[part] for run in warm):6.2f} s")
    print(f"{'process start to first step':30} {statistics.median(sum(run.values()) for run in warm):6.2f} s")


def measured(cache: Path) -> dict[str, float]:
    """The parts of one fresh process."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.startup", "--child", str(cache)], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
