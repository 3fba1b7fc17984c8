"""python -m harness.logs <cell or stage> [-f] [--ranks]: shows the output of its job.

The beginning of an id is enough if no other id begins so. For a cell: the log of its running stage, or of the stage that failed, or of the last
stage that has a log.
Exit codes: 0: log shown; 2: no such cell or stage, or no output yet.
"""

import argparse
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from harness.monitor.lookup import Match, NameNotFound, find_id
from harness.monitor.rank_logs import Ranks, chosen
from harness.monitor.survey import Survey, is_over, survey
from jobs.experiment.ids import StageId
from jobs.experiment.index import RunIndexError
from jobs.experiment.output import replace_unencodable, tells_lost_output
from jobs.experiment.run_folder import RUNS, RunFolder
from jobs.experiment.submissions import Submission
from jobs.recovery.triage import PEER_LOST

OK, USAGE = 0, 2
POLL_S = 0.5
ALIVE_S = 10.0  # between two checks that the job of a followed log is alive
BEGIN = re.compile(r"^stage (\w+): ", re.MULTILINE)  # the line that a job prints when it begins a stage


@tells_lost_output(USAGE)
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    options = parse(arguments)
    try:
        match = find_id(options.id, options.runs)
        surveyed = survey(match.run)
        stage = stage_of(surveyed, match)
        submission, log = log_of(surveyed, stage, options.rank)
        shown = log.parent if options.ranks else log
        print(f"stage {stage} ({match.index.stages[stage].title}), job {submission.job}, {shown}", file=sys.stderr, flush=True)
        if options.ranks:
            texts: Iterable[str] = of_ranks(match.run, stage, submission, options.ranks, follow=options.follow)
        else:
            texts = following(match.run, stage, log) if options.follow else [own_part(text_of(log), stage)]
        for text in texts:
            sys.stdout.write(text)
            sys.stdout.flush()
    except (NameNotFound, RunIndexError) as error:
        print(error, file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        pass
    return OK


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.logs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("id", help="the id of a cell or stage, as status and launch show it, or its beginning")
    parser.add_argument("-f", "--follow", action="store_true", help="follow the log until the stage has ended")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--rank", type=int, help="the rank whose log to show (default: a rank that failed, else 0)")
    several = "show several ranks, such as 0,2-4, or all: side by side in a wide terminal, else line by line"
    choice.add_argument("--ranks", nargs="?", const="all", help=several)
    parser.add_argument("--runs", type=Path, default=RUNS, help="the folder of all run folders (default: %(default)s)")
    return parser.parse_args(arguments)


def stage_of(surveyed: Survey, match: Match) -> StageId:
    """The stage to show: the one that was named, or the one at which a cell stands, or the last one before it that has a log."""
    if match.cell is None:
        assert match.stage is not None, "an id is a cell's or a stage's"
        return match.stage
    stages, standing = surveyed.index.cells[match.cell].stages, surveyed.stands_at[match.cell]
    reached = stages[: stages.index(standing) + 1]
    return next((stage for stage in reversed(reached) if stage in surveyed.job_of and surveyed.job_of[stage].logs()), standing)


def log_of(surveyed: Survey, stage: StageId, rank: int | None) -> tuple[Submission, Path]:
    """The job that has, or had, a stage, and the log of one of its ranks. Raises NameNotFound where there is no log yet."""
    submission = surveyed.job_of.get(stage)
    if submission is None:
        title = surveyed.index.stages[stage].title
        raise NameNotFound(f"no job has had stage {stage} ({title}) yet; submit one with: {surveyed.launch_command}")
    logs = submission.logs()
    if not logs:
        state = surveyed.jobs.get(submission.job)
        suffix = f" ({state.state}{reason_text(state.reason)})" if state else ""
        raise NameNotFound(f"stage {stage}: job {submission.job} has printed nothing yet{suffix}")
    if rank is not None:
        if not 0 <= rank < len(logs):
            raise NameNotFound(f"job {submission.job} has no log of rank {rank}; it has those of ranks 0 to {len(logs) - 1}")
        return submission, logs[rank]
    return submission, next((log for log in logs if len(logs) > 1 and shows_an_error(log)), logs[0])


def reason_text(reason: str) -> str:
    """Why a job waits, for the end of a sentence."""
    return f", waiting: {reason}" if reason not in ("", "None") else ""


def shows_an_error(log: Path) -> bool:
    """True for the log of a rank that failed by itself, not of a rank that lost another one."""
    text = log.read_text(encoding="utf-8", errors="replace")[-20_000:]
    return "Traceback (most recent call last)" in text and not PEER_LOST.search(text)


def own_part(text: str, stage: StageId) -> str:
    """A stage's part of the log of a job with several stages: from its first line to the next stage's. The whole log if it names no other."""
    begins = list(BEGIN.finditer(text))
    if len({begin[1] for begin in begins}) < 2:
        return text
    ends = [*(begin.start() for begin in begins[1:]), len(text)]
    return "".join(text[begin.start() : end] for begin, end in zip(begins, ends, strict=True) if begin[1] == stage) or text


def following(run: RunFolder, stage: StageId, log: Path, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """The log as it grows, until its job has ended."""
    return (text for texts in growing(run, stage, lambda: {0: log}, sleep) for text in texts.values())


def growing(
    run: RunFolder, stage: StageId, logs: Callable[[], Mapping[int, Path]], sleep: Callable[[float], None] = time.sleep
) -> Iterator[dict[int, str]]:
    """What is added to each of some logs, by rank, until their job has ended. logs: those that are there now."""
    checked = time.monotonic()
    with ExitStack() as stack:
        files: dict[int, TextIO] = {}
        while True:
            for rank, log in logs().items():
                if rank not in files:
                    files[rank] = stack.enter_context(log.open(encoding="utf-8", errors="replace"))
            texts = {rank: text for rank, file in files.items() if (text := file.read())}
            if texts:
                yield texts
            elif time.monotonic() - checked >= ALIVE_S or is_over(run, stage):
                if survey(run).alive(stage) is None:
                    yield {rank: file.read() for rank, file in files.items()}
                    return
                checked = time.monotonic()
                sleep(POLL_S)
            else:
                sleep(POLL_S)


def of_ranks(
    run: RunFolder, stage: StageId, submission: Submission, asked: str, *, follow: bool, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """The logs of several ranks together, as lines. Raises NameNotFound for ranks that have none."""
    ranks = Ranks(width=shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    if not follow:
        logs = rank_logs(submission, asked)
        texts = {rank: own_part(text_of(log), stage) for rank, log in logs.items()}
        yield from (f"{line}\n" for line in ranks.lines(texts, list(logs), last=True))
        return
    for added in growing(run, stage, lambda: rank_logs(submission, asked), sleep):
        yield from (f"{line}\n" for line in ranks.lines(added, list(rank_logs(submission, asked))))
    yield from (f"{line}\n" for line in ranks.lines({}, list(rank_logs(submission, asked)), last=True))


def rank_logs(submission: Submission, asked: str) -> dict[int, Path]:
    """The logs of the ranks that were asked for. Raises NameNotFound for ranks that have none."""
    logs = submission.logs()
    try:
        return {rank: logs[rank] for rank in chosen(asked, range(len(logs)))}
    except ValueError as error:
        raise NameNotFound(f"job {submission.job}: {error}") from error


def text_of(log: Path) -> str:
    """The whole log."""
    return log.read_text(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    sys.exit(main())
