"""Data as each model sees them: official checkpoints are evaluated as their authors do, unless the grid says otherwise."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.grid.axes import Choice
from harness.grid.expansion import given_fields
from harness.grid.yaml_source import Report
from jobs.experiment.identity import canonical, data_identity, plain
from jobs.experiment.published import EVALUATION, evaluated_as_published
from jobs.experiment.specs import DataSpec, ModelSpec


@dataclass(kw_only=True)
class Evaluations:
    """The choices of data with the evaluation of each model. Models of equal evaluation share a choice, so that the data are checked once."""

    resolved: dict[tuple[str, DataSpec], Choice[DataSpec]] = field(default_factory=dict)  # by the entry's key and the data that came of it

    def of(self, model: Choice[ModelSpec], data: Choice[DataSpec]) -> Choice[DataSpec]:
        """`data` as cells of this model have them."""
        given = given_fields(data.entry) if data.entry else set()
        value = evaluated_as_published(model.value, data.value, given)
        if value is data.value:
            return data
        return self.resolved.setdefault((data.key, value), _resolved(data, value))


def _resolved(data: Choice[DataSpec], value: DataSpec) -> Choice[DataSpec]:
    return dataclasses.replace(data, value=value, identity=canonical(data_identity(value)), fields=plain(value))


def note_evaluations(models: Sequence[Choice[ModelSpec]], sets: Sequence[Choice[DataSpec]], evaluations: Evaluations, report: Report) -> None:
    """Notes, for each set of data, the models that are evaluated otherwise than the entry says."""
    for data in sets:
        named: dict[str, list[str]] = {}
        for model in models:
            if (seen := evaluations.of(model, data)) is not data:
                how = ", ".join(
                    f"{name} {getattr(seen.value, name)}" for name in EVALUATION if getattr(seen.value, name) != getattr(data.value, name)
                )
                named.setdefault(how, []).append(model.names[0])
        for how, labels in named.items():
            report.note(data.line, data.key, f"note: {how} for {', '.join(labels)}, as published; a value in the grid takes its place")
