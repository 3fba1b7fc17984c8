"""`python -m analysis runs/<grid> ...`: leaderboards and a report from run folders."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.merge import AnalysisError
from jobs.experiment.collector import collect_rarely
from jobs.experiment.output import lost_output, printable, replace_unencodable, tells_lost_output

EXAMPLE = "latency_ms<=5,params<=10e6"
FORMATS = ("tensorboard", "wandb", "mlflow", "trackio", "every_eval_ever")

PORT, MOST_PORT = 8765, 65535  # of --live
SHOWN_STAGES = 6  # of --curves

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.baseline import Change


@tells_lost_output(2)
def main(argv: Sequence[str]) -> int:
    """Runs the command. Returns 0: done; 1: a row fell below the baseline, or no row fits the budget; 2: nothing to write, or wrong usage."""
    replace_unencodable()
    collect_rarely()
    options = parser().parse_args(argv)
    try:
        return write(options)
    except BrokenPipeError:
        raise
    except (AnalysisError, OSError) as error:
        lost = lost_output(error) if isinstance(error, OSError) else None
        print(printable(f"error: {lost or error}", keep="\n"), file=sys.stderr)
        return 2


def write(options: argparse.Namespace) -> int:
    """Writes and prints everything. Returns 0, or 1 if a row fell below the baseline. Raises AnalysisError."""
    from rich.console import Console

    from analysis.baseline import changes, regressed
    from analysis.leaderboard import publish

    if options.budget is not None or options.scores:
        return answer(options)
    if options.live or options.curves:
        return watch(options)
    if options.out is None and len(options.runs) > 1:
        raise AnalysisError("several run folders: give the folder for their tables with -o")
    if options.export:
        return write_exports(options)
    published = publish(options.runs, options.out or options.runs[0], beside=options.beside, figures=options.figures)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(published.table, crop=False)
    console.print("\n".join(printable(str(path)) for path in published.files), markup=False, highlight=False, soft_wrap=True)
    if options.baseline is None:
        return 0
    compared = changes(published.rows, options.baseline)
    show_changes(console, compared)
    return int(regressed(compared))


def answer(options: argparse.Namespace) -> int:
    """Prints the best row of each key within the budget, and the scores; writes nothing. Returns 0, or 1 if no row fits. Raises AnalysisError."""
    from analysis.budget import answer_lines, decide, parse_budget
    from analysis.merge import merge
    from analysis.printing import remarks
    from analysis.rows import make_rows
    from analysis.scores import groups, score_text

    asked = "--budget" if options.budget is not None else "--scores"
    given = [f"--{name}" for name in ("out", "figures", "baseline", "beside", "export", "live", "curves") if getattr(options, name)]
    if given:
        raise AnalysisError(f"{asked} prints an answer and writes nothing: leave out {', '.join(given)}")
    limits = parse_budget(options.budget) if options.budget is not None else ()
    merged = merge(options.runs)
    for line in remarks(merged):
        print(line, file=sys.stderr)
    rows = make_rows(merged)
    for line in answer_lines(rows, limits) if limits else ():
        print(printable(line))
    for line in score_text(groups(rows)) if options.scores else ():
        print(printable(line))
    return int(bool(limits) and decide(rows, limits) is None)


def watch(options: argparse.Namespace) -> int:
    """Shows the runs while they train: curves in the terminal, or the report in a browser until Ctrl-C. Returns 0. Raises AnalysisError."""
    given = [f"--{name}" for name in ("out", "figures", "baseline", "beside", "export") if getattr(options, name)]
    if given or (options.live and options.curves):
        asked = "--live" if options.live else "--curves"
        raise AnalysisError(f"{asked} shows the runs and writes nothing: leave out {', '.join(given) or '--curves'}")
    if options.live:
        from analysis.live import serve

        return serve(options.runs, options.port)
    from analysis.running import latest_stages, stages_in_training
    from analysis.terminal_curves import curve_lines

    stages = stages_in_training(options.runs)[:SHOWN_STAGES] or latest_stages(options.runs, 1)
    if not stages:
        raise AnalysisError(f"no stage has metrics in {', '.join(map(str, options.runs))}: none has trained its first steps, or it is no run folder")
    for line in curve_lines(stages, shutil.get_terminal_size().columns):
        print(line)
    return 0


def write_exports(options: argparse.Namespace) -> int:
    """Writes the cells to each format that was asked for, and says what to do with them. Returns 0."""
    from analysis.trackers.formats import export

    for name in dict.fromkeys(options.export):
        print(printable(export(options.runs, options.out or options.runs[0], name)))
    return 0


def show_changes(console: "Console", compared: "Sequence[Change]") -> None:
    """Prints a line for each row of the baseline: its verdict and its accuracy then and now."""
    for change in compared:
        now = "no number" if change.now is None else f"{change.now:.2f}"
        p = "" if change.p is None else f" (p {change.p:.2g})"
        line = f"{change.verdict}{p}: {change.model} {change.pruning} [{change.key}]: top-1 {change.before:.2f} -> {now}"
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m analysis", description="Writes leaderboards and a report from the records of run folders.")
    made.add_argument("runs", type=Path, nargs="+", metavar="runs/<grid>", help="run folders, also copied from other machines")
    made.add_argument("-o", "--out", type=Path, help="folder to write to; default: the run folder, if only one is given")
    made.add_argument("--figures", action="store_true", help="also write the report's plots as SVG and PNG files")
    made.add_argument("--baseline", type=Path, metavar="old.csv", help="an older leaderboard.csv: exit 1 if a row fell beyond the noise of its seeds")
    made.add_argument("--beside", type=Path, metavar="results.csv", help="results in timm's format, to write beside ours in beside.csv")
    made.add_argument("--export", action="append", choices=FORMATS, help="write the cells to out/exports/ for a tracker, and no tables; repeatable")
    made.add_argument("--budget", metavar=f'"{EXAMPLE}"', help="print the best row within these limits and how sure that is; write nothing")
    made.add_argument("--scores", action="store_true", help="print how methods rank across models and data sets; write nothing")
    made.add_argument("--live", action="store_true", help="serve the report to a browser of this machine, kept up to date; write nothing")
    made.add_argument("--port", type=port, default=PORT, help="the port of --live, 0 for any that is free (default: %(default)s)")
    made.add_argument("--curves", action="store_true", help="print the curves of the stages in training, else of the last one; write nothing")
    return made


def port(text: str) -> int:
    """A port's number. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > MOST_PORT:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {MOST_PORT}, got '{text}'")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
