"""python -m harness.logs <cell or stage> [-f]: what its job printed; a beginning of the id that only one has is enough.

Of a cell: the stage that runs, or failed, or was done last. Exit codes: 0 shown, 2 no such cell or stage, or nothing printed yet.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.monitor.lookup import NameNotFound, find_part
from harness.monitor.survey import Survey, survey
from jobs.experiment.index import RunIndexError
from jobs.experiment.run_folder import RUNS, RunFolder
from jobs.experiment.submissions import Submission
from jobs.recovery.triage import PEER_LOST

POLL_S = 0.5
ALIVE_S = 10.0  # between two looks at whether the job that is followed still lives
BEGIN = re.compile(r"^stage (\w+): ", re.MULTILINE)  # what a job prints when it begins a stage


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = parse(arguments)
    try:
        run, index, part = find_part(options.part, options.runs)
        found = survey(run)
        stage = stage_of(found, part)
        one, log = log_of(found, stage, options.rank)
        print(f"stage {stage} ({index.stages[stage].title}), job {one.job}, {log}", file=sys.stderr, flush=True)
        for text in following(run, stage, log) if options.follow else [own_part(log.read_text(errors="replace"), stage)]:
            sys.stdout.write(text)
            sys.stdout.flush()
    except (NameNotFound, RunIndexError) as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.logs", description=__doc__.splitlines()[0])
    parser.add_argument("part", metavar="id", help="a cell or stage, as status and launch show it, or the beginning of one")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the stage has ended")
    parser.add_argument("--rank", type=int, help="whose log, where there are several (default: the one that tells of an error, else 0)")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where run folders are kept (default: %(default)s)")
    return parser.parse_args(arguments)


def stage_of(found: Survey, part: str) -> str:
    """The stage to show: itself, or the one that a cell stands at, or the last one before it that any job has printed for."""
    if part in found.index.stages:
        return part
    path = found.index.cells[part].stages
    stands = path.index(found.stands_at[part])
    return next((stage for stage in reversed(path[: stands + 1]) if stage in found.job_of and found.job_of[stage].logs()), path[stands])


def log_of(found: Survey, stage: str, rank: int | None) -> tuple[Submission, Path]:
    """The job that has, or had, a stage, and the log of one of its ranks. Raises NameNotFound where there is none yet."""
    one = found.job_of.get(stage)
    if one is None:
        title = found.index.stages[stage].title
        raise NameNotFound(f"stage {stage} ({title}) was never handed to a job; {found.launch_command} does")
    logs = one.logs()
    if not logs:
        state = found.jobs.get(one.job)
        raise NameNotFound(f"stage {stage}: job {one.job} has printed nothing yet{f' ({state.state}{why(state.reason)})' if state else ''}")
    if rank is not None:
        if rank >= len(logs):
            raise NameNotFound(f"job {one.job} has the logs of ranks 0 to {len(logs) - 1}; there is no rank {rank}")
        return one, logs[rank]
    return one, next((log for log in logs if len(logs) > 1 and tells_of_an_error(log)), logs[0])


def why(reason: str) -> str:
    """Why a job waits, for the end of a sentence."""
    return f", waiting: {reason}" if reason not in ("", "None") else ""


def tells_of_an_error(log: Path) -> bool:
    """True for the log of a rank that failed by itself, not of one that lost its peer."""
    text = log.read_text(errors="replace")[-20_000:]
    return "Traceback (most recent call last)" in text and not PEER_LOST.search(text)


def own_part(text: str, stage: str) -> str:
    """What belongs to a stage in the log of a job that runs several: from its first line to the next stage's; all where it is not told apart."""
    begins = list(BEGIN.finditer(text))
    ends = [*(one.start() for one in begins[1:]), len(text)]
    kept = [(one.start(), end) for one, end in zip(begins, ends) if one[1] == stage]
    return "".join(text[start:end] for start, end in kept) if kept and len({one[1] for one in begins}) > 1 else text


def following(run: RunFolder, stage: str, log: Path, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """The log as it grows, until its job has ended."""
    looked = time.monotonic()
    with log.open(errors="replace") as file:
        while True:
            text = file.read()
            if text:
                yield text
            elif time.monotonic() - looked >= ALIVE_S or over(run, stage):
                if survey(run).alive(stage) is None:
                    yield file.read()
                    return
                looked = time.monotonic()
                sleep(POLL_S)
            else:
                sleep(POLL_S)


def over(run: RunFolder, stage: str) -> bool:
    """True when a stage has left its weights or its failure."""
    return run.done(stage) or run.failure(stage) is not None


if __name__ == "__main__":
    sys.exit(main())
