"""The schemas of models and pruning methods."""

from dataclasses import fields
from typing import Any

import pytest

from harness.schemas.entries import KNOBS, family_schema, for_names, method_schema, model_definitions, one_or_more, only_known, purposes
from models.configs import MambaVisionConfig
from models.pruning.registry import METHODS, create_method, required
from models.typed import fields_of

jsonschema = pytest.importorskip("jsonschema")
PROBES: tuple[Any, ...] = (-1, -0.5, 0, 0.5, 1, 1.0, 2, 3, 1.5, 64, "text", True, None)
GIVEN = {"sparsity": 0.5, "ratio": 0.5, "rounds": 2, "r": 2}


def made(method: str, knobs: dict[str, Any]) -> bool:
    """True if a method can be made with these knobs."""
    try:
        create_method(method, **knobs)
    except (ValueError, TypeError):
        return False
    return True


@pytest.mark.parametrize("name", METHODS)
def test_no_schema_refuses_a_knob_that_its_method_takes(name: str) -> None:
    needed = {field.name: GIVEN[field.name] for field in fields(METHODS[name]) if required(field)}
    schema = method_schema(name, METHODS[name])
    check = jsonschema.Draft7Validator(schema)
    for knob in set(fields_of(METHODS[name])) & KNOBS.keys():
        hint = fields_of(METHODS[name])[knob]
        right = [value for value in PROBES if isinstance(value, int if hint in (int, int | None) else int | float) and not isinstance(value, bool)]
        refused = [value for value in right if not check.is_valid({"method": name, **needed, knob: value})]
        taken = [value for value in refused if made(name, {**needed, knob: value})]
        assert taken == [], f"{knob}: {taken}"
        assert refused, f"{knob} has no bound"


def test_a_method_needs_its_required_knobs_here_or_in_zip() -> None:
    check = jsonschema.Draft7Validator(method_schema("magnitude", METHODS["magnitude"]))
    assert check.is_valid({"method": "magnitude", "sparsity": 0.5}) and check.is_valid({"method": "magnitude", "zip": {"sparsity": [0.5]}})
    assert not check.is_valid({"method": "magnitude"})


def test_options_and_methods_are_described() -> None:
    properties = family_schema(MambaVisionConfig)["properties"]
    assert properties["convnext"]["description"] == "principles of ConvNeXt (arXiv 2201.03545), for the convolutional part"
    assert [name for name, part in properties.items() if "description" not in part] == ["name"]
    assert purposes().keys() == METHODS.keys()
    assert {"model", "VimConfig", "SEConfig", "SWAConfig"} <= model_definitions().keys()


def test_rules_are_for_their_names_and_names_for_grids_without_plugins() -> None:
    rule = jsonschema.Draft7Validator(for_names("name", {"enum": ["a"]}, {"required": ["x"]}))
    assert [rule.is_valid(entry) for entry in ({"name": "b"}, {"name": "a"}, {"name": "a", "x": 1}, {"name": ["b", "a"]})] == [
        True,
        False,
        True,
        False,
    ]
    known = jsonschema.Draft7Validator(only_known("name", ["a"], "^timm/"))
    assert all(known.is_valid(entry) for entry in ("a", ["a", {"name": ["a", "timm/x"]}], ["a", ["a"]], {"name": "a"}))
    assert not any(known.is_valid(entry) for entry in ("b", ["b"], {"name": "b"}, [{"name": ["a", "b"]}]))
    assert one_or_more({"type": "string"})["anyOf"][1]["type"] == "array"
