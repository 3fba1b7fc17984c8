"""The schema of a cell's record.json."""

from harness.schemas.values import Schema, comments
from jobs.experiment.records import Environment, Failure, Metrics, Record

DRAFT = "https://json-schema.org/draft/2020-12/schema"  # pydantic's


def record_schema() -> Schema:
    """The whole file, with the comments of the fields as their descriptions."""
    schema = Record.model_json_schema()
    parts = {"Failure": Failure, "Metrics": Metrics, "Environment": Environment}
    describe(schema, Record)
    for name, kind in parts.items():
        describe(schema["$defs"][name], kind)
    return {"$schema": DRAFT} | schema | {"title": "record.json of vssm-bench"}


def describe(schema: Schema, kind: type) -> None:
    """Adds the comments of the fields of a class to its schema, in place of the titles, which only repeat the names."""
    described = comments(kind)
    for name, part in schema["properties"].items():
        part.pop("title", None)
        if name in described:
            part["description"] = described[name]
