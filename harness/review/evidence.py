"""The content of run folders that is held against the rules."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.review.rules import Finding
from jobs.experiment.cell import Cell
from jobs.experiment.identity import result_settings
from jobs.experiment.plugins import load_copies, names_in
from jobs.experiment.published import EVALUATION, follows_published
from jobs.experiment.records import Metrics, Record, RecordError, read_record
from jobs.experiment.run_folder import WEIGHTS, RunFolder
from models.plugins.content import PluginError


@dataclass(frozen=True, kw_only=True)
class Held:
    """A record, where it lies, and what it says about how it came to be."""

    run: RunFolder
    path: Path
    record: Record
    plugins: bool = False  # True: the code of plug-ins in the run folder may run

    @property
    def name(self) -> str:
        """How findings call it."""
        return f"{self.run.path.name}/{self.path.parent.name}"

    @property
    def weights(self) -> Path:
        """The saved network."""
        return self.path.with_name(WEIGHTS)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the cell's result, as JSON values."""
        return result_settings(self.record.spec)

    @cached_property
    def row(self) -> str:
        """What cells share that differ in seed alone."""
        return text_of({part: value for part, value in self.settings.items() if part != "seed"})

    @property
    def method(self) -> str:
        """The pruning method's name."""
        return str(self.record.spec.get("pruning", {}).get("method"))

    def cell(self) -> Cell | None:
        """The cell as this version understands it; None where it knows a name or a setting no more, or where that takes the code of a plug-in."""
        try:
            if self.plugins:
                load_copies(self.run, self.record.spec)
            return Cell.from_json(self.record.spec)
        except (KeyError, ValueError, TypeError):
            return None

    @property
    def why_unknown(self) -> str:
        """Why there is no cell."""
        names = names_in(self.record.spec)
        if not names:
            return "this version does not know all of its settings"
        if not self.plugins:
            return f"it uses {', '.join(names)}, a plug-in, whose copy in the folder runs only with --plugins"
        try:
            load_copies(self.run, self.record.spec)
        except PluginError as error:
            return str(error)
        return f"this version does not know all of its settings, with {', '.join(names)}"


@dataclass(frozen=True, kw_only=True)
class Measured(Held):
    """A record with numbers."""

    metrics: Metrics

    @cached_property
    def table(self) -> str:
        """What the cells of one table share: data, recipe, and how they were trained and measured. A leaderboard ranks them together."""
        around, numbers = self.record.environment, self.metrics
        machine = (around.data_sha256, around.gpu or around.cpu, around.ranks, around.threads, around.loader, around.scan)
        protocol = (numbers.throughput_batch, numbers.flops_convention, numbers.speed_protocol)
        return text_of([self.ranked_data, self.settings.get("recipe"), self.settings.get("tune"), *machine, *protocol])

    @property
    def ranked_data(self) -> Any:
        """The data settings, those of the published evaluation as one: each official checkpoint has its own, and they are ranked together."""
        given, model = self.settings.get("data"), self.record.spec.get("model", {})
        if not follows_published(str(model.get("name")), model.get("options") or {}, given or {}):
            return given
        return {name: value for name, value in (given or {}).items() if name not in EVALUATION} | {"evaluation": "as published"}

    @cached_property
    def model(self) -> str:
        """The model with its options."""
        return text_of(self.settings.get("model"))


@dataclass(kw_only=True)
class Evidence:
    """All that the given run folders hold."""

    runs: Sequence[RunFolder]
    held: list[Held] = field(default_factory=list)
    unreadable: list[Finding] = field(default_factory=list)
    plugins: bool = False  # True: the code of plug-ins in the run folders may run

    def __post_init__(self) -> None:
        for run in self.runs:
            for path in sorted(run.record_paths()):
                try:
                    self._take(run, path, read_record(path))
                except RecordError as error:
                    self.unreadable.append(Finding(rule=1, where=f"{run.path.name}/{path.parent.name}", text=str(error).splitlines()[0]))

    def _take(self, run: RunFolder, path: Path, record: Record) -> None:
        if record.metrics is None:
            self.held.append(Held(run=run, path=path, record=record, plugins=self.plugins))
        else:
            self.held.append(Measured(run=run, path=path, record=record, plugins=self.plugins, metrics=record.metrics))

    @cached_property
    def measured(self) -> list[Measured]:
        """The records with numbers."""
        return [held for held in self.held if isinstance(held, Measured)]

    def tables(self) -> Iterator[list[Measured]]:
        """The measured cells by table."""
        return iter(grouped(self.measured, "table").values())


def grouped(cells: Sequence[Measured], by: str) -> Mapping[str, list[Measured]]:
    """Cells by an attribute of theirs."""
    groups: dict[str, list[Measured]] = defaultdict(list)
    for cell in cells:
        groups[getattr(cell, by)].append(cell)
    return groups


def text_of(value: Any) -> str:
    """A value as text that is the same for equal values."""
    return json.dumps(value, sort_keys=True, default=str)


def title(cells: Sequence[Measured]) -> str:
    """A table in a few words: its data and where it lies."""
    data = cells[0].record.spec.get("data", {})
    return f"the table of {', '.join(sorted({cell.run.path.name for cell in cells}))} on {data.get('name') or data.get('source')}"
