"""python -m jobs.cluster.start <folder>: the program of each task of a SLURM job. It cleans up after a kill, then runs submitit's own start.

submitit writes a pickle under another name, removes the old pickle and renames the new one. It refuses to write if a file of that other name exists.
So a job that was killed between these steps would fail every time that SLURM starts it again.
"""

import os
import signal
import sys
from pathlib import Path


def tidy(call: Path) -> None:
    """Restores the pickled call that a kill left under its other name, if the old pickle was removed already; else that file may be torn and goes."""
    if call.exists():
        aside(call).unlink(missing_ok=True)
    elif aside(call).exists():
        aside(call).rename(call)


def aside(pickle: Path) -> Path:
    """The name under which submitit writes a pickle first."""
    return pickle.with_suffix(f"{pickle.suffix}.save_tmp")


def main() -> None:
    """Runs this task's call. Only the job's first rank writes the call again; every rank writes a result of its own."""
    from submitit import JobEnvironment
    from submitit.core.submission import submitit_main

    os.environ["SUBMITIT_FOLDER"] = sys.argv[1]
    job = JobEnvironment()
    if job.global_rank == 0:
        tidy(job.paths.submitted_pickle)
    aside(job.paths.result_pickle).unlink(missing_ok=True)
    submitit_main()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Python drops its handlers before its modules, and the signal would kill a job that has ended well


if __name__ == "__main__":
    main()
