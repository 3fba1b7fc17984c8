"""The schemas of a cell's record.json, and of the files that verifications of it leave."""

from pydantic import BaseModel

from harness.schemas.values import Schema, comments
from jobs.experiment.records import Environment, Failure, Metrics, Record
from jobs.experiment.verification import Comparison, Difference, RunAgain, Verification

DRAFT = "https://json-schema.org/draft/2020-12/schema"  # pydantic's


def record_schema() -> Schema:
    """The whole file, with the comments of the fields as their descriptions."""
    return described(Record, (Failure, Metrics, Environment)) | {"title": "record.json of vssm-bench"}


def verification_schema() -> Schema:
    """The whole file, likewise."""
    return described(Verification, (RunAgain, Comparison, Difference)) | {"title": "verification of a cell by vssm-bench"}


def described(whole: type[BaseModel], parts: tuple[type, ...]) -> Schema:
    """The schema of a class and of the classes of its fields, with the comments of all."""
    schema = whole.model_json_schema()
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
