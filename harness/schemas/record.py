"""The schemas of a cell's record.json, and of the files that verifications of it leave."""

from harness.schemas.values import Schema, comments
from jobs.experiment.records import Environment, Failure, Metrics, Record
from jobs.experiment.verification import Comparison, Difference, RunAgain, Verification

DRAFT = "https://json-schema.org/draft/2020-12/schema"  # pydantic's


def record_schema() -> Schema:
    """The whole file, with the comments of the fields as their descriptions."""
    return described(Record.model_json_schema(), Record, (Failure, Metrics, Environment)) | {"title": "record.json of vssm-bench"}


def verification_schema() -> Schema:
    """The whole file, likewise."""
    schema = described(Verification.model_json_schema(), Verification, (RunAgain, Comparison, Difference))
    return schema | {"title": "verification of a cell by vssm-bench"}


def described(schema: Schema, whole: type, parts: tuple[type, ...]) -> Schema:
    """The schema of a class, with the comments in it and in the classes of its fields."""
    describe(schema, whole)
    for kind in parts:
        describe(schema["$defs"][kind.__name__], kind)
    return {"$schema": DRAFT} | schema


def describe(schema: Schema, kind: type) -> None:
    """Adds the comments of the fields of a class to its schema, in place of the titles, which only repeat the names."""
    described = comments(kind)
    for name, part in schema["properties"].items():
        part.pop("title", None)
        if name in described:
            part["description"] = described[name]
