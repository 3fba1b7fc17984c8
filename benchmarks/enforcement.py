"""A table: what keeping masks costs in a training step of vim_tiny on a CPU, 224 px, batch 8, one thread, by the process's own CPU time.

Steps with a mask on every prunable weight and steps without take turns in one process; the third column is the time within the enforcement itself
(the gradients before the update, the masters after it), which the noise of a whole step does not hide. `dense kept`: dynamic pruning with regrow.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.scan import processor
from jobs.cluster.surroundings import forget_outer_job
from jobs.experiment.specs import RecipeSpec
from jobs.parallel.engine import Engine, rendezvous
from jobs.parallel.fragments import Fragments
from jobs.parallel.masking import Masking
from models.closed_pipe import ends_with_its_reader
from models.pruning.scope import prunable_names
from models.registry import create_model

BATCH, PIXELS, SPARSITY = 8, 224, 0.9
# dtype, ZeRO stage, whether dense weights are kept under the mask
ROWS: tuple[tuple[str, int, bool], ...] = (("fp32", 0, False), ("fp32", 2, False), ("bf16", 1, False), ("fp32", 0, True))


class Clock:
    """CPU seconds spent in the functions that it wraps."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    def around(self, run: Callable[[], None]) -> Callable[[], None]:
        """`run`, timed."""

        def timed() -> None:
            began = time.process_time()
            run()
            self.spent_s += time.process_time() - began

        return timed


def row(dtype: str, zero_stage: int, keeps_dense: bool, repeats: int) -> tuple[float, float, float]:
    """Median CPU seconds of a step without masks, of one with them, and of the enforcement within the latter."""
    torch.manual_seed(0)
    recipe = RecipeSpec(batch_size=BATCH, dtype=dtype, zero_stage=zero_stage)
    engine = Engine(create_model("vim_tiny"), recipe, no_decay=(), ranks=rendezvous(threads=1))
    fragments, clock = Fragments(engine), Clock()
    masking = Masking(engine, fragments, keeps_dense=keeps_dense)
    masking.apply({name: torch.rand(fragments.by_name[name].shape) >= SPARSITY for name in prunable_names(engine.module)})
    for hooks in (engine.optimizer._optimizer_step_pre_hooks, engine.optimizer._optimizer_step_post_hooks):
        for key, hook in hooks.items():
            hooks[key] = lambda *given, hook=hook: clock.around(lambda: hook(*given))()
    images, labels = torch.randn(BATCH, 3, PIXELS, PIXELS), torch.randint(1000, (BATCH,))
    masks, dropped, dense = masking.masks, masking.flat_dropped, masking.dense
    steps: dict[bool, list[float]] = {False: [], True: []}
    enforced = []
    for number in range(2 * repeats + 2):
        masked = number % 2 == 1
        masking.masks, masking.flat_dropped, masking.dense = (masks, dropped, dense) if masked else ({}, {}, {})
        clock.spent_s, began = 0.0, time.process_time()
        engine.forward_backward(images, labels, last=True)
        clock.around(masking.zero_gradients)()
        engine.step(1e-4)
        if number > 1:  # the first of each kind warms up
            steps[masked].append(time.process_time() - began)
            enforced += [clock.spent_s] * masked
    engine.close()
    return statistics.median(steps[False]), statistics.median(steps[True]), statistics.median(enforced)


@ends_with_its_reader
def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="steps of each kind (default: 5)")
    repeats = parser.parse_args().repeats
    forget_outer_job()
    weights = sum(parameter.numel() for parameter in create_model("vim_tiny").parameters())
    print(f"{processor()}, 1 thread, torch {torch.__version__}, vim_tiny ({weights:,} parameters), batch {BATCH}, {PIXELS} px, AdamW,")
    print(f"median of {repeats}\n")
    print("| dtype | ZeRO stage | | step, CPU s | step with masks, CPU s | enforcement, CPU ms | share of a step |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for dtype, zero_stage, keeps_dense in ROWS:
        without, masked, enforced = row(dtype, zero_stage, keeps_dense, repeats)
        kind = "dense kept" if keeps_dense else ""
        print(f"| {dtype} | {zero_stage} | {kind} | {without:.2f} | {masked:.2f} | {1e3 * enforced:.1f} | {enforced / without:.2%} |", flush=True)


if __name__ == "__main__":
    main()
