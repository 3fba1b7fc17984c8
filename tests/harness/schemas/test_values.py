"""Types and limits as JSON Schema."""

import itertools
from typing import Annotated, Any, Literal

import pytest

from harness.schemas.values import Texts, bounds, choices_schema, comments, limited, nested_schemas, settings_schema, value_schema, zip_schema
from jobs.experiment.limits import CLUSTER, DATA, PREPARE, RECIPE
from models import configs
from models.typed import AT_LEAST_1, FRACTION, Limit, Mismatch, convert

jsonschema = pytest.importorskip("jsonschema")
VALUES = (None, True, False, 0, 1, -1, 3, 0.5, 1.5, "1e-3", "-2", "x", "h", [], [1, 2], [0.1, 0.9], [1, 2, 3], ["a"], {})
HINTS: tuple[Any, ...] = (int, float, str, bool, int | None, float | None, Literal["a", "x"], Literal[0, 1] | None, tuple[int, ...])
HINTS += (tuple[float, float], Literal["x"] | tuple[int, ...], int | float, tuple[str, ...] | None, Annotated[int, AT_LEAST_1] | None)
NUMBERED = {limit.words: limit for limit in [*RECIPE.values(), *DATA.values(), *CLUSTER.values(), *PREPARE.values(), FRACTION]}


def takes(schema: dict[str, Any], value: Any) -> bool:
    """True if a value fits a schema."""
    return bool(jsonschema.Draft7Validator(schema).is_valid(value))


def fits(hint: Any, value: Any) -> bool:
    """True if a value fits a type, as grids are read."""
    try:
        convert(value, hint)
    except Mismatch:
        return False
    return True


@pytest.mark.parametrize("hint", HINTS, ids=[str(number) for number in range(len(HINTS))])
def test_a_schema_takes_what_the_reading_of_types_takes(hint: Any) -> None:
    plain = int | None if hint == HINTS[-1] else hint
    low = [value for value in VALUES if value not in (0, -1)] if hint == HINTS[-1] else VALUES
    assert [value for value in low if takes(value_schema(hint), value)] == [value for value in low if fits(plain, value)]


@pytest.mark.parametrize("limit", NUMBERED.values(), ids=list(NUMBERED))
def test_the_bounds_of_a_limit_are_what_it_holds(limit: Limit) -> None:
    probes = (-1, -0.5, 0, 0.08, 0.5, 0.999, 1, 1.5, 2, 3, 4, 100, 101)
    of_pairs = limit.words.endswith("each") or "low <=" in limit.words
    for value in itertools.product(probes, probes) if of_pairs else probes:
        if isinstance(value, tuple) and value[0] > value[1]:  # which of two is larger, no schema can say
            continue
        schema = limited(value_schema(tuple[float, float] if of_pairs else float), limit)
        assert takes(schema, list(value) if isinstance(value, tuple) else value) == limit.holds(value), value


def test_a_number_in_text_keeps_its_sign_out_where_it_must_be_positive() -> None:
    schema = limited(value_schema(float), FRACTION)
    assert takes(schema, "1e-3") and not takes(schema, "-1e-3") and takes(value_schema(float), "-1e-3")


def test_limits_in_other_words_are_told_too() -> None:
    pairs, path = (value_schema(hint) for hint in (configs.Pairs, configs.ScanPath))
    assert [value for value in range(6) if takes(pairs, value)] == [2, 4]
    assert [word for word in ("h", "v_flip", "w7", "w1", "d", "hh") if takes(path, word)] == ["h", "v_flip", "w7"]
    assert bounds(Limit(words="blue", holds=bool)) == {}


def test_a_list_expands_unless_the_field_holds_lists() -> None:
    rate = choices_schema(float, value_schema(float))
    assert all(takes(rate, value) for value in (0.1, [0.1, 0.2], ["1e-3"], [[0.1], 0.2])) and not takes(rate, []) and not takes(rate, ["fast"])
    betas = choices_schema(tuple[float, float], value_schema(tuple[float, float]))
    assert takes(betas, [0.9, 0.99]) and takes(betas, [[0.9, 0.99], [0.8, 0.9]]) and not takes(betas, [0.9]) and not takes(betas, [[0.9]])


def test_the_fields_of_a_dataclass_have_defaults_descriptions_and_no_others() -> None:
    schema = settings_schema(configs.S4Config, Texts(descriptions=comments(configs.S4Config), defaults={"d_state": 16}))
    assert schema["properties"]["d_state"]["description"] == "of each channel, in conjugate pairs"
    assert schema["properties"]["d_state"]["default"] == 16
    assert takes(schema, {"d_state": [8, 16], "init": "inv"}) and not takes(schema, {"d_stat": 8}) and not takes(schema, {"d_state": 7})
    assert nested_schemas(configs.VimConfig).keys() == {"SEConfig", "MobilePathConfig", "S4Config", "S5Config"}


def test_zip_pairs_lists_of_fields() -> None:
    schema = zip_schema(["a", "b"])
    assert takes(schema, {"a": [1, 2], "b": [3, 4]}) and takes(schema, [{"a": [1]}, {"b": [2]}])
    assert not takes(schema, {"c": [1]}) and not takes(schema, {"a": 1}) and not takes(schema, {})


class Base:
    """A class with a described field."""

    a: int = 1  # the first


class Derived(Base):
    """One that inherits it."""

    b: int = 2  # the second
    c: int = 3


def test_the_comments_of_a_class_and_of_its_parents_describe_the_fields() -> None:
    assert comments(Derived) == {"a": "the first", "b": "the second"}
