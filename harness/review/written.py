"""Rule 15: what is written for people, held against the records: the tables and the report of a run folder, and the model cards of its cells."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.review.evidence import Evidence, Held, Measured
from harness.review.rules import Finding
from harness.text import counted
from jobs.experiment.index import RunIndexError, read_index
from jobs.experiment.output import printable
from jobs.experiment.run_folder import CARD, RunFolder
from jobs.worker.model_card import accuracies, data_name, results

TABLES = ("leaderboard.csv", "cells.csv", "coverage.csv", "comparisons.csv", "pareto.csv", "scores.csv", "leaderboard.md", "leaderboard.tex")
REPORT = "report.html"
WHY = "it was edited, records have changed since, or another version of the analysis wrote it"
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
ASIDE = re.compile(  # of a report: the scripts and their hashes, and verifications, which may be newer than the report
    r'<script>.*?</script>|<meta http-equiv="Content-Security-Policy"[^>]*>|<style>.*?</style>|<p class="verified">.*?</p>', re.DOTALL
)
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)  # the YAML of a card
SENTENCE = re.compile(r"It is right on ([\d.]+%) of the ([\d,]+) test images")  # the card's first one
CELL = re.compile(r"^\| (.+?) \| (.+?) \|$", re.MULTILINE)  # a line of a card's table


def written_tables(evidence: Evidence) -> Iterator[Finding]:
    """The tables and the report."""
    for run in evidence.runs:
        kept = [name for name in (*TABLES, REPORT) if (run.path / name).exists()]
        if not kept:
            yield Finding(rule=15, where=str(run.path), text="it holds no tables; python -m analysis writes them", weight="note")
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "analysis", str(run.path), "-o", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 2:
                yield Finding(rule=15, where=str(run.path), text=f"analysis cannot read it: {done.stderr.strip()}")
                continue
            for name in kept:
                if text := (report_difference if name == REPORT else difference)(run.path / name, Path(folder) / name):
                    yield Finding(rule=15, where=f"{run.path.name}/{name}", text=text)


def difference(kept: Path, written: Path) -> str:
    """The first difference between a table and the one that the records give; empty if there is none."""
    if kept.read_bytes() == written.read_bytes():
        return ""
    before, now = (path.read_text(encoding="utf-8-sig", errors="replace").splitlines() for path in (kept, written))
    line = next((number for number, (a, b) in enumerate(zip(before, now, strict=False), 1) if a != b), min(len(before), len(now)) + 1)
    return f"line {line} is not what the records give: {WHY}; python -m analysis writes it again"


def report_difference(kept: Path, written: Path) -> str:
    """The same of a report. The training curves are not compared: the folder may have been handed on without its stages."""
    before, now = (content(path.read_text(encoding="utf-8", errors="replace")) for path in (kept, written))
    if before == now:
        return ""
    what = "its numbers are" if before[0] == now[0] else "its text is"
    return f"{what} not what the records give: {WHY}; python -m analysis writes it again"


def content(page: str) -> tuple[str, Any]:
    """(the text of a report, the numbers of its figures)."""
    embedded = DATA.search(page)
    numbers: Any = None
    try:
        numbers = json.loads(embedded[1] if embedded else "null")
        numbers["panel"].pop("command")  # it names the folder as it was given
        for row in numbers["rows"].values():
            row.pop("loss"), row.pop("val_top1")
    except (ValueError, KeyError, TypeError, AttributeError):
        numbers = embedded and embedded[1]
    return ASIDE.sub("", DATA.sub("", page)), numbers


def labels(evidence: Evidence) -> Iterator[Finding]:
    """A note on cells that the tables call otherwise than when they ran: a launch may change labels later."""
    for run in evidence.runs:
        shown = shown_labels(run)
        own = [(held, label) for held in evidence.held if held.run is run and (label := shown.get(held.record.id))]
        if renamed := [(held, label) for held, label in own if label != label_of(held)]:
            held, label = renamed[0]
            text = f"tables call {counted(len(renamed), 'cell')} otherwise than when they ran: '{label}' ran as '{label_of(held)}'"
            yield Finding(rule=15, where=run.path.name, text=text, weight="note")


def label_of(held: Held) -> str:
    """What a cell was called when it ran."""
    return printable(f"{held.record.model}  {held.record.pruning}")


def shown_labels(run: RunFolder) -> dict[str, str]:
    """What tables call each cell of the plan: the labels there, and where a method has none the title in the index."""
    try:
        cells = json.loads(run.plan_path.read_bytes())["cells"]
        titles = {str(cell): entry.title for cell, entry in read_index(run).cells.items()}
        pairs = {cell: (spec["model"]["label"], spec["pruning"].get("label"), spec["seed"]) for cell, spec in cells.items() if cell in titles}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RunIndexError):
        return {}
    return {
        cell: printable(f"{model}  {pruning}") if pruning else titles[cell].removesuffix(f"  seed {seed}")
        for cell, (model, pruning, seed) in pairs.items()
    }


def cards(evidence: Evidence) -> Iterator[Finding]:
    """Numbers of model cards that are not those of the record. Whoever hands a cell on may write more into its card."""
    for cell in evidence.measured:
        if wrong := wrong_on_card(cell):
            yield Finding(rule=15, where=f"{cell.name}/{CARD}", text=f"the card says {wrong}: it was edited, or another version wrote it")


def wrong_on_card(cell: Measured) -> str:
    """The first number of a card that is not the record's: in its YAML, its first sentence or its table; empty if there is none."""
    try:
        card = cell.path.with_name(CARD).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    own = {**dict(accuracies(cell.metrics)), **dict(results(cell.metrics))}
    own["It is right on"] = f"{cell.metrics.top1:.2f}% of {cell.metrics.test_samples:,}"
    sentence = [("It is right on", " of ".join(numbers)) for numbers in SENTENCE.findall(card)[:1]]
    on_card = [*model_index(card, data_name(cell.record)), *sentence, *CELL.findall(card)]
    return next((f"{name} {value}, and the record {own[name]}" for name, value in on_card if name in own and value != own[name]), "")


def model_index(card: str, data: str) -> Iterator[tuple[str, Any]]:
    """The names and values of a card's model-index on the test images of `data`, as the hub shows them. Results on other data are their authors'."""
    import yaml

    front = FRONT_MATTER.match(card)
    try:
        results = [result for model in yaml.safe_load(front[1] if front else "")["model-index"] for result in model["results"]]
        own = [result for result in results if (result["dataset"]["name"], result["dataset"].get("split", "test")) == (data, "test")]
        yield from [(str(metric["name"]), metric["value"]) for result in own for metric in result["metrics"]]
    except (yaml.YAMLError, ValueError, RecursionError, KeyError, TypeError, AttributeError):  # its owner has written it anew
        return
