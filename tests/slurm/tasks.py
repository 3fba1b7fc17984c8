"""What the tests' jobs do on their nodes."""

import json
import os
import time
from pathlib import Path
from typing import Any

LIMIT_S = 120


def run_task(order: dict[str, Any]) -> None:
    """Notes its start, waits for `order["until"]` where there is such a file to wait for, fails where it should, notes its end."""
    folder = Path(order["folder"])
    (folder / f"{order['name']}.starts").open("a").write(f"{time.time()} {os.environ.get('SLURMD_NODENAME')}\n")
    if order.get("until"):
        wait_for(folder / order["until"])
    if order.get("fails"):
        raise ValueError(f"{order['name']} was told to fail")
    (folder / f"{order['name']}.end").write_text(str(time.time()))


def wait_for(path: Path) -> None:
    """Returns when a file is there."""
    until = time.monotonic() + LIMIT_S
    while not path.exists():
        assert time.monotonic() < until, f"waited for {path}"
        time.sleep(0.1)


def meet(order: dict[str, Any]) -> None:
    """Meets the other ranks, and tells what each of them was given."""
    from jobs.parallel.engine import rendezvous

    ranks = rendezvous(threads=1)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "SLURMD_NODENAME", "SLURM_JOB_ID")
    told = {name: os.environ.get(name) for name in names} | {"cpus": order["cpus"]}
    (Path(order["folder"]) / f"{order['name']}-{ranks.rank}.json").write_text(json.dumps(told))
    wait_for(Path(order["folder"]) / order["until"])  # so that the jobs that are to share nodes do
    ranks.barrier()


def fail_in_one_rank(order: Any) -> None:
    """Runs an order of two stages: in the first one rank 2 meets an error while the others wait for it in a collective, the second ends well."""
    from jobs.worker import job as runner

    def run_stage(run: Any, spec: Any, cluster: Any, ranks: Any) -> None:
        if spec.id == order.stages[0].id and ranks.broadcast(run.failure(spec.id) is None):
            if ranks.rank == 2:
                raise ValueError("rank 2 was the first to fail")
            ranks.barrier()
        if spec.id == order.stages[1].id and ranks.rank == 0:
            (run.stage_dir(spec.id) / "export").mkdir(parents=True)

    runner.run_stage = run_stage
    runner.run_job(order)
