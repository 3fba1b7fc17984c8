"""A grid whose stages are toys (tests/slurm/toy_stages.py), launched on the test cluster by the commands that a user runs."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import launch
from harness.grid.read import read_grid
from harness.monitor.survey import Survey, survey
from harness.plan.jobs import planned_cells
from harness.plan.stages import make_graph
from jobs.experiment.run_folder import RunFolder
from tests.slurm import toy_stages
from tests.slurm.conftest import Cluster
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
GRID = """
name: toys
recipe: {epochs: 1, finetune_epochs: 1, batch_size: 64}
models: [vim_micro]
pruning: [dense, {method: magnitude, sparsity: [0.5, 0.9]}]
seeds: [0, 1]
cluster: {kind: slurm, partition: main, mem_gb: 1, timeout_min: 30, environment: {PYTHONPATH: ROOT, OMP_NUM_THREADS: "1"}, CLUSTER}
"""
FEW = GRID.replace(", {method: magnitude, sparsity: [0.5, 0.9]}", "")  # 2 trunks with 1 child each


@dataclass
class ToyGrid:
    """A grid of 2 trunks with 3 children each and one job for each stage, unless its text says otherwise."""

    cluster: Cluster
    folder: Path
    grid: Path

    @classmethod
    def of(cls, cluster: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str = GRID, **options: object) -> "ToyGrid":
        """A grid in `folder`, which becomes the working directory. Nothing is launched yet. `options`: of the cluster."""
        cluster.reach(monkeypatch)
        monkeypatch.setattr("harness.submit.slurm.run_job", toy_stages.run_job)
        monkeypatch.chdir(folder)
        made = cls(cluster, folder, folder / "grid.yaml")
        made.rewrite(text, **options)
        return made

    def rewrite(self, text: str, **options: object) -> None:
        """Changes the grid, and launches nothing."""
        self.grid.write_text(text.replace("ROOT", str(ROOT)).replace("CLUSTER", ", ".join(f"{name}: {value}" for name, value in options.items())))

    @property
    def run(self) -> RunFolder:
        """Its run folder."""
        return RunFolder(self.folder / "runs" / "toys")

    @property
    def paths(self) -> dict[str, tuple[str, ...]]:
        """Cells and their stages."""
        grid = read_grid(self.grid)
        return {planned.cell.id: planned.stages for planned in planned_cells(grid, make_graph(grid.cells))}

    @property
    def trunks(self) -> list[str]:
        """The shared first stages."""
        return list(dict.fromkeys(stages[0] for stages in self.paths.values()))

    def set_behaviour(self, behaviour: str, *stages: str) -> None:
        """Sets what these stages do instead of ending well: see toy_stages."""
        for stage in stages:
            file = self.run.path / "toys" / stage
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(behaviour)

    def release(self, *stages: str) -> None:
        """Lets these stages end well from now on."""
        for stage in stages:
            (self.run.path / "toys" / stage).unlink()

    def launch(self, *options: str) -> int:
        """The exit code."""
        return launch.main([str(self.grid), *options])

    def look(self) -> Survey:
        """The survey that status shows."""
        return survey(self.run)

    def counts(self) -> dict[str, int]:
        """Cells by state."""
        states = list(self.look().states.values())
        return {state: states.count(state) for state in sorted(set(states))}

    def wait_for(self, **counts: int) -> None:
        """Returns when the cells are in these states, so many in each."""
        wait_until(lambda: self.counts() == counts, f"{counts}; the cells are {self.counts()}: {os.listdir(self.run.path)}")

    def end(self) -> None:
        """Leaves no job behind."""
        self.cluster.call("scancel", "--name=toys", check=False)
        wait_until(lambda: not self.cluster.call("squeue", "--noheader", "--name=toys").strip(), "the queue to be empty")
