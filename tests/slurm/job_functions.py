"""Functions that tests submit to SLURM as jobs: they note that they ran, meet other ranks, or fail."""

import json
import os
import time
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until


def note_run(argument: dict[str, Any]) -> None:
    """Notes its start, waits for a file if `argument["until"]` names it, fails if `argument["fails"]` is true, else notes its end."""
    folder, name = Path(argument["folder"]), argument["name"]
    (folder / f"{name}.starts").open("a").write(f"{time.time()} {os.environ.get('SLURMD_NODENAME')}\n")
    if argument.get("until"):
        wait_until((folder / argument["until"]).exists, argument["until"])
    if argument.get("fails"):
        raise ValueError(f"{name} fails on purpose")
    (folder / f"{name}.end").write_text(str(time.time()))


def meet(argument: dict[str, Any]) -> None:
    """Meets the other ranks. Each rank writes down the variables that it was given."""
    from jobs.parallel.engine import rendezvous

    ranks = rendezvous(threads=1)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "SLURMD_NODENAME", "SLURM_JOB_ID")
    given = {name: os.environ.get(name) for name in names} | {"cpus": argument["cpus"]}
    (Path(argument["folder"]) / f"{argument['name']}-{ranks.rank}.json").write_text(json.dumps(given))
    wait_until((Path(argument["folder"]) / argument["until"]).exists, argument["until"])  # so that the jobs that are to share nodes do
    ranks.barrier()


def fail_in_one_rank(job: Any) -> None:
    """Runs a job of two stages. In the first, rank 1 raises an error while rank 0 waits for it in a collective; the second ends well."""
    from jobs.worker import job as runner

    def run_stage(run: Any, spec: Any, cluster: Any, ranks: Any) -> None:
        if spec.id == job.stages[0].id and ranks.broadcast(run.failure(spec.id) is None):
            if ranks.rank == 1:
                raise ValueError("the second rank was the first to fail")
            ranks.barrier()
        if spec.id == job.stages[1].id and ranks.rank == 0:
            (run.stage_dir(spec.id) / "export").mkdir(parents=True)

    runner.run_stage = run_stage
    runner.run_job(job)
