"""Labels of rows, as the plan of the latest launch has them.

A label decides no result, so a grid may change it after its cells are done. Records keep the label under which they ran.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.experiment.ids import CellId
from jobs.experiment.index import RunIndexError, read_index
from jobs.experiment.output import printable
from jobs.experiment.records import Record
from jobs.experiment.run_folder import RunFolder

CHAIN = "chain"  # the method of a cell that runs several methods one after another


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels of a row."""

    model: str
    pruning: str | None  # None: the plan does not say


def labels_of_plan(run: Path, cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Labels]:
    """The labels of the cells that the latest launch of a run folder planned, by id. `cells`: their specs."""
    try:
        titles = {cell: entry.title for cell, entry in read_index(RunFolder(run)).cells.items()}
    except RunIndexError:
        titles = {}
    return {cell: labels_of_spec(spec, titles.get(CellId(cell), "")) for cell, spec in cells.items() if spec["model"].get("label")}


def labels_of_spec(spec: Mapping[str, Any], title: str) -> Labels:
    """The labels of a planned cell. A method without a label of the user's has its name in the cell's title: 'vim_micro  magnitude(0.9)  seed 0'."""
    model, seed = str(spec["model"]["label"]), f"  seed {spec['seed']}"
    before = f"{printable(model)}  "
    named = title[len(before) : -len(seed)] if title.startswith(before) and title.endswith(seed) else None
    own = spec["pruning"].get("label")
    return Labels(model=model, pruning=str(own) if own else named or None)


def method_name(pruning: Mapping[str, Any]) -> str:
    """The method of a cell's JSON form, without its knobs; of a chain 'structured + magnitude'."""
    links = links_of(pruning)
    return " + ".join(str(link.get("method")) for link in links) if links else str(pruning["method"])


def knobs_of(pruning: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of a cell's JSON form by name; of a chain '1.structured.ratio', and the parts of the fine-tuning."""
    links, knobs = links_of(pruning), pruning.get("knobs", {})
    if not links:
        return dict(knobs)
    flat = {f"{number}.{link['method']}.{name}": value for number, link in enumerate(links, 1) for name, value in link.get("knobs", {}).items()}
    return flat | {"split": knobs.get("split")}


def links_of(pruning: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The methods of a chain in a cell's JSON form; empty for any other method."""
    return pruning.get("knobs", {}).get("methods", []) if pruning.get("method") == CHAIN else []


def labels_of_row(records: Sequence[Record], by_cell: Mapping[str, Labels], of_row: Labels | None) -> tuple[str, str]:
    """(model, pruning) as tables show them: of the plan that has a cell of the row, or else of the record that finished last.

    `of_row`: the labels of a plan that has other seeds of the row alone.
    """
    latest = max(records, key=lambda record: record.finished)
    planned = next((by_cell[record.id] for record in records if record.id in by_cell), of_row)
    model, pruning = (planned.model, planned.pruning or latest.pruning) if planned else (latest.model, latest.pruning)
    return printable(model), printable(pruning)
