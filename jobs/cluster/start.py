"""python -m jobs.cluster.start <folder>: what each task of a SLURM job runs: submitit's own start, in a folder that a kill may have left in disorder.

submitit writes a pickle aside, removes the old one and renames the new one; it refuses to write where one is still aside. A job that was killed in the
middle of that would fail every time that SLURM starts it again.
"""

import os
import signal
import sys
from pathlib import Path


def tidy(call: Path) -> None:
    """Puts a pickled call in its place that was whole before the old one was removed; removes one of which nobody knows that it is whole."""
    if call.exists():
        aside(call).unlink(missing_ok=True)
    elif aside(call).exists():
        aside(call).rename(call)


def aside(pickle: Path) -> Path:
    """Where submitit writes a pickle first."""
    return pickle.with_suffix(f"{pickle.suffix}.save_tmp")


def main() -> None:
    """Runs this task's call. Only its first rank writes what is called, and each writes a result of its own."""
    from submitit import JobEnvironment
    from submitit.core.submission import submitit_main

    os.environ["SUBMITIT_FOLDER"] = sys.argv[1]
    job = JobEnvironment()
    if job.global_rank == 0:
        tidy(job.paths.submitted_pickle)
    aside(job.paths.result_pickle).unlink(missing_ok=True)
    submitit_main()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Python drops its handlers before its modules; the signal would kill a job that has ended well


if __name__ == "__main__":
    main()
