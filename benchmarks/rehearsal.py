"""A rehearsal: a grid of 10,000 cells whose stages do nothing, by the user's own commands. `python -m benchmarks.rehearsal [cells]`

Prints wall and CPU seconds of each command, which are fresh processes: plan, submit, status and cancel with one job a stage; then the run to its
end, in jobs of 500 stages, status again, and the merge. Where SLURM answers (`slurm/testcluster/up.sh && source /tmp/vssm-testcluster-0/env.sh`)
the jobs are SLURM's; elsewhere submit and cancel are left out, and the stages are run in this process. Everything lies in a temporary folder under
runs/.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.grid.read import read_grid
from harness.monitor.survey import survey
from harness.plan.jobs import make_jobs, planned_cells
from harness.plan.snapshot import save_launch
from harness.plan.stages import make_graph
from jobs.cluster.slurm import SchedulerError, ask
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.records import Environment, Metrics, now
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import StageSpec
from jobs.worker.cell import cell_record
from jobs.worker.environment import cpu_name
from models.closed_pipe import ends_with_its_reader

ROOT = Path(__file__).resolve().parent.parent
SEEDS = 50
GRID = """
name: rehearsal
models: [{name: vim_micro, depth: [4, 6, 8, 10]}]
pruning: [dense, {method: magnitude, sparsity: SPARSITIES}]
seeds: SEEDS
cluster: {CLUSTER, stages_per_job: STAGES}
"""
SLURM = "kind: slurm, mem_gb: 1, timeout_min: 60, environment: {PYTHONPATH: ROOT}, additional_parameters: OPTIONS"
BLANKS: dict[Any, Any] = {float: 1.0, int: 1, str: "", dict: {}, list: []}


def write_grid(folder: Path, cells: int, stages_per_job: int, slurm: str, **options: str) -> Path:
    """The grid file: 4 models, 50 seeds or fewer, and as many sparsities as the number of cells asks for.

    `slurm`: empty without a SLURM; `options`: of sbatch.
    """
    seeds = min(SEEDS, max(1, cells // 8))
    entries = max(2, cells // (4 * seeds))  # dense among them
    sparsities = [round(0.5 + 0.4 * step / entries, 6) for step in range(1, entries)]
    text = GRID.replace("CLUSTER", SLURM if slurm else "kind: local")
    values = {"SPARSITIES": sparsities, "SEEDS": list(range(seeds)), "ROOT": str(ROOT), "STAGES": stages_per_job, "OPTIONS": json.dumps(options)}
    for name, value in values.items():
        text = text.replace(name, str(value))
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


def submit(grid: str) -> int:
    """The exit code of a launch whose jobs do nothing."""
    from benchmarks import rehearsal
    from harness import launch
    from harness.submit import slurm as arrays

    arrays.run_job = rehearsal.run_job  # by its module's name, which pickles as a name does; that of __main__ would go along whole
    return launch.main([grid])


def run_job(job: JobSpec) -> None:
    """A job: our own way through its stages and cells, with nothing in place of training and measuring."""
    from jobs.worker import job as worker

    alone = SimpleNamespace(rank=0, world=1, broadcast=lambda value: value, finish=lambda: None)
    sys.modules["jobs.parallel.engine"] = SimpleNamespace(rendezvous=lambda threads, gpus: alone)  # type: ignore[assignment]
    sys.modules["jobs.data.prepare"] = SimpleNamespace(ready=lambda spec, cache, by_content: None)  # type: ignore[assignment]
    sys.modules["jobs.train.stage"] = SimpleNamespace(train_stage=train)  # type: ignore[assignment]
    worker.finish_cell = record
    worker.run_job(job)


def train(spec: StageSpec, data: None, folder: Path, **rest: Any) -> None:
    """An export without weights."""
    (folder / "export").mkdir()
    result = {"val_top1": 50.0, "val_loss": 1.0, "train_loss": 1.0, "steps": 1, "epochs": 1, "train_s": 1.0, "train_img_per_s": 1.0, "sparsity": 0.0}
    (folder / "export" / "result.json").write_text(json.dumps(result))


def record(run: RunFolder, job: JobSpec, planned: PlannedCell, ranks: Any, last: StageSpec) -> None:
    """The record of a cell, with made-up numbers that differ."""
    required = {name: field for name, field in Metrics.model_fields.items() if field.is_required()}
    values = {name: BLANKS.get(getattr(field.annotation, "__origin__", field.annotation)) for name, field in required.items()}
    surroundings = Environment(
        commit=None, dirty=None, python="", versions={}, host="n", cpu="c", gpu=None, ranks=1, threads=1, loader="ffcv", scan="cpu", data_sha256="d"
    )
    metrics = Metrics(**values | {"top1": 50 + int(planned.cell.id, 16) % 1000 / 20})
    run.write_record(cell_record(job, planned, surroundings, started=now(), metrics=metrics))


def timed(name: str, folder: Path, *command: str) -> str:
    """Prints wall and CPU seconds of a fresh process; returns what it said."""
    began, before = time.perf_counter(), os.times()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, env=environment, check=False)
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    trouble = f"   exit code {done.returncode}: {done.stderr.strip()[-300:]}" if done.returncode else ""
    print(f"{name:44}{wall:>8.2f}{cpu:>8.2f}{trouble}", flush=True)
    return done.stdout


def slurm_answers() -> str:
    """SLURM's version and nodes, empty where there is no SLURM."""
    try:
        nodes = ask("sinfo", "--noheader", "--format=%D", patience_s=5.0).split()
        return f"{ask('sinfo', '--version').strip()}, {nodes[0]} nodes"
    except (SchedulerError, IndexError):
        return ""


def run_here(path: Path, folder: Path) -> None:
    """Every stage and cell, in this process, without a word."""
    grid = read_grid(path)
    plan, run = make_graph(grid.cells), RunFolder(folder / "runs" / grid.name)
    save_launch(grid, plan, run)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        for order in make_jobs(grid, plan, run, planned_cells(grid, plan)):
            run_job(order)


def wait(run: RunFolder) -> float:
    """Seconds until nothing of a run is under way."""
    began = time.monotonic()
    while any(state in ("running", "queued", "unknown") for state in survey(run).states.values()):
        time.sleep(2)
    return time.monotonic() - began


@ends_with_its_reader
def main(cells: int) -> None:
    """Prints the table."""
    slurm = slurm_answers()
    print(f"{cells:,} cells; {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {slurm or 'no SLURM'}")
    print(f"{'':44}{'wall':>8}{'CPU':>8}  (s)")
    (ROOT / "runs").mkdir(exist_ok=True)  # the nodes of a cluster share it
    with tempfile.TemporaryDirectory(dir=ROOT / "runs", prefix="rehearsal-") as name:
        folder = Path(name)
        if slurm:
            write_grid(folder, cells, 1, slurm, begin="now+1hour")
            timed("plan: launch --dry-run, one job a stage", folder, "harness.launch", "grid.yaml", "--dry-run")
            print("   " + timed("submit: launch", folder, "benchmarks.rehearsal", "submit", "grid.yaml").strip().splitlines()[-1])
            timed("status, all queued", folder, "harness.status")
            timed("cancel", folder, "harness.cancel", "grid.yaml")
        path = write_grid(folder, cells, 500, slurm)
        if slurm:
            timed("submit: launch, 500 stages a job", folder, "benchmarks.rehearsal", "submit", "grid.yaml")
            print(f"{'run to the end':44}{wait(RunFolder(folder / 'runs' / 'rehearsal')):>8.1f}")
        else:
            timed("plan: launch --dry-run", folder, "harness.launch", "grid.yaml", "--dry-run")
            run_here(path, folder)
        print("   " + timed("status, all done", folder, "harness.status").splitlines()[0])
        timed("merge: analysis", folder, "analysis", "runs/rehearsal")
        timed("the same again, nothing new", folder, "analysis", "runs/rehearsal")


if __name__ == "__main__":
    if sys.argv[1:2] == ["submit"]:
        sys.exit(submit(sys.argv[2]))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
