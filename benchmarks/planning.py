"""A table: CPU seconds to expand a grid into 10,000 cells with ids, and the cells into stages and jobs.

The floor is the minimal work: itertools.product over the choices and a SHA-256 of JSON per cell, without checks, types or line numbers. Peers that
are installed (seml 0.5.7 and exca 0.6.0 were tried) expand the same grid. Each contestant runs in this process; the median of five runs is printed.
"""

import hashlib
import importlib.util
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.grid.read import read_grid
from harness.plan.jobs import divide
from harness.plan.stages import make_graph
from models.closed_pipe import ends_with_its_reader

REPEATS = 5
SPARSITIES = [round(0.5 + 0.01 * step, 2) for step in range(49)]
DEPTHS = [4, 6, 8, 10]
SEEDS = list(range(50))
GRID = f"""
name: ten_thousand
models:
  - {{name: vim_micro, depth: {DEPTHS}}}
pruning:
  - dense
  - {{method: magnitude, sparsity: {SPARSITIES}}}
seeds: {SEEDS}
"""


def floor() -> int:
    """Cells of a plain product, each hashed."""
    knobs: list[float | None] = [None, *SPARSITIES]
    cells = ({"depth": depth, "sparsity": sparsity, "seed": seed} for depth, sparsity, seed in itertools.product(DEPTHS, knobs, SEEDS))
    return len({hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest() for cell in cells})


def seml() -> int:
    """Cells by seml's own expansion and hash."""
    from seml.experiment.config import generate_configs
    from seml.utils import make_hash

    given = {"depth": DEPTHS, "sparsity": [0.0, *SPARSITIES], "seed": SEEDS}
    configs = generate_configs({"grid": {name: {"type": "choice", "options": options} for name, options in given.items()}})
    return len({make_hash(config) for config in configs})


def exca() -> int:
    """Cells as exca's infra objects, each with its uid."""
    from exca import TaskInfra
    from pydantic import BaseModel

    class Cell(BaseModel):
        depth: int
        sparsity: float
        seed: int
        infra: TaskInfra = TaskInfra()

        @infra.apply
        def run(self) -> None:
            """Never called."""

    product = itertools.product(DEPTHS, [0.0, *SPARSITIES], SEEDS)
    return len({Cell(depth=depth, sparsity=sparsity, seed=seed).infra.uid() for depth, sparsity, seed in product})


def measure(contestant: Callable[[], int]) -> tuple[int, float]:
    """The result of the contestant, and the median CPU seconds of its runs after a warm-up."""
    count, times = contestant(), []
    for _ in range(REPEATS):
        begin = time.process_time()
        contestant()
        times.append(time.process_time() - begin)
    return count, statistics.median(times)


@ends_with_its_reader
def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.yaml"
        path.write_text(GRID)
        cells = read_grid(path).cells
        plan = make_graph(cells)
        rows: list[tuple[str, Callable[[], int]]] = [
            ("floor: itertools.product + SHA-256", floor),
            ("read_grid: YAML, checks, cells, ids", lambda: len(read_grid(path).cells)),
            ("make_graph: shared stages, ids", lambda: len(make_graph(cells).stages)),
            ("divide: jobs of 8 stages", lambda: len(divide(plan.stages.values(), 8))),
            ("to_json: every field of every cell", lambda: len([cell.to_json() for cell in cells])),
        ]
        rows += [(name, peer) for name, peer in (("seml", seml), ("exca", exca)) if importlib.util.find_spec(name)]
        print(f"{'10,000 cells':38}{'made':>8}{'CPU s':>8}")
        for name, contestant in rows:
            count, seconds = measure(contestant)
            print(f"{name:38}{count:>8,}{seconds:>8.3f}")


if __name__ == "__main__":
    main()
