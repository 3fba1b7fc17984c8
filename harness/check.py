"""python -m harness.check runs/x [runs/y ...]: holds folders of results against the rules of docs/rules.md, on any machine.

Exit codes: 0: no rule is broken; 1: some are; 2: usage.
"""

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.review import evaluation, files, records, stages, tables, tuning, written
from harness.review.evidence import Evidence
from harness.review.rules import RULES, Finding
from harness.text import counted, no_current_folder
from jobs.cluster.surroundings import forget_outer_job
from jobs.experiment.output import printable, replace_unencodable, tells_lost_output
from jobs.experiment.run_folder import CELLS, RunFolder
from jobs.experiment.specs import ClusterSpec

HOLDS, BROKEN, USAGE = 0, 1, 2
SHOWN = 5  # findings of a rule
COLOURS = {"broken": "bold red", "holds": "green", "not checked": "yellow"}

CHECKS: Sequence[tuple[tuple[int, ...], Callable[[Evidence], Iterator[Finding]]]] = (  # with the rules that each looks at
    ((1,), records.schema),
    ((2,), records.identity),
    ((2,), stages.paths),
    ((3,), records.complete),
    ((3,), stages.unaccounted),
    ((4,), records.numbers),
    ((4,), stages.training),
    ((5,), files.weights),
    ((5,), stages.exports),
    ((6, 7), files.masks_and_counts),
    ((8,), tables.data),
    ((9,), records.test_set),
    ((10,), records.budget),
    ((11,), tables.measuring),
    ((12,), tables.controls),
    ((13,), tables.seeds),
    ((14,), tables.code),
    ((15,), written.written_tables),
    ((15,), written.labels),
    ((15,), written.cards),
    ((17,), tuning.tuning),
)


@tells_lost_output(USAGE)
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    forget_outer_job()
    if problem := no_current_folder():
        print(problem, file=sys.stderr)
        return USAGE
    options = parse(arguments)
    if strangers := [str(path) for path in options.runs if not (path / CELLS).is_dir()]:
        print(f"no run folder: {', '.join(strangers)}; give folders that hold {CELLS}/, such as runs/digits", file=sys.stderr)
        return USAGE
    evidence = Evidence(runs=[RunFolder(path) for path in options.runs], plugins=options.plugins)
    findings = check(evidence, evaluate=options.evaluate, cache=options.cache)
    if options.json:
        print(json.dumps(as_json(evidence, findings), indent=1))
    else:
        show(evidence, findings)
    return BROKEN if any(finding.weight == "fault" for finding in findings) else HOLDS


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.check", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders whose cells belong together")
    parser.add_argument("--evaluate", type=cells, default=0, metavar="N", help="evaluate so many cells on the test set again")
    parser.add_argument("--cache", default=ClusterSpec().cache, help="where data sets are, for --evaluate (default: %(default)s)")
    parser.add_argument(
        "--plugins", action="store_true", help="run the plug-ins that lie in the folders, to check their cells too: their code, as you"
    )
    parser.add_argument("--json", action="store_true", help="print rules and findings as JSON")
    return parser.parse_args(arguments)


def cells(text: str) -> int:
    """A number of cells."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of cells, 0 or more, got '{text}'")
    return int(text)


def check(evidence: Evidence, *, evaluate: int = 0, cache: str = ClusterSpec().cache, rules: Collection[int] = RULES) -> list[Finding]:
    """Everything that is found against `rules`, by rule."""
    findings = [finding for numbers, each in CHECKS if not set(rules).isdisjoint(numbers) for finding in each(evidence)]
    if 16 in rules:
        findings += [*evaluation.evaluated_again(evidence, evaluate, cache), *evaluation.verified(evidence)]
    return sorted(findings, key=lambda finding: finding.rule)


def state(findings: Sequence[Finding]) -> str:
    """How a rule stands, from what was found against it."""
    weights = {finding.weight for finding in findings}
    return "broken" if "fault" in weights else "not checked" if "unchecked" in weights else "holds"


def show(evidence: Evidence, findings: Sequence[Finding]) -> None:
    """Prints every rule with what was found."""
    console = Console(highlight=False, soft_wrap=True)
    broken = 0
    for number, rule in RULES.items():
        own = [finding for finding in findings if finding.rule == number]
        stands = state(own)
        broken += stands == "broken"
        console.print(Text(f"{number:2}  {stands:11}  ", style=COLOURS[stands]) + Text(rule.text))
        for finding in own[:SHOWN]:
            mark = "" if finding.weight == "fault" else f"{finding.weight}: "
            console.print(Text(printable(f"        {mark}{finding.where}: {finding.text}"), style="" if finding.weight == "fault" else "dim"))
        if len(own) > SHOWN:
            console.print(Text(f"        and {len(own) - SHOWN} more; --json shows all", style="dim"))
    records_held = counted(len(evidence.held), "record")
    verdict = f"{counted(broken, 'rule')} broken" if broken else "no rule is broken"
    console.print(Text(f"{records_held}: {verdict}; docs/rules.md has the reasons", style="bold"))


def as_json(evidence: Evidence, findings: Sequence[Finding]) -> dict[str, object]:
    """The rules with their findings, for scripts."""
    return {
        "runs": [str(run.path) for run in evidence.runs],
        "records": len(evidence.held),
        "rules": [
            {"rule": number, **asdict(rule), "state": state(own := [f for f in findings if f.rule == number]), "findings": [asdict(f) for f in own]}
            for number, rule in RULES.items()
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
