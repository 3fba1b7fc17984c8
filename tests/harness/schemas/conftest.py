"""The committed schemas, as validators."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.grid.yaml_source import read_yaml

Faults = Callable[[str], list[str]]


def validator(name: str) -> Any:
    """The validator of a committed schema."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).resolve().parents[3] / "harness" / "schemas" / name).read_text())
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


@pytest.fixture(scope="session")
def of_grids() -> Any:
    """The validator of grids."""
    return validator("grid.schema.json")


@pytest.fixture(scope="session")
def of_profiles() -> Any:
    """The validator of cluster profiles."""
    return validator("cluster.schema.json")


@pytest.fixture(scope="session")
def of_records() -> Any:
    """The validator of records."""
    return validator("record.schema.json")


@pytest.fixture(scope="session")
def of_verifications() -> Any:
    """The validator of verifications."""
    return validator("verification.schema.json")


def read(path: Path) -> Any:
    """A YAML file as we read it."""
    return read_yaml(path)[1].plain
