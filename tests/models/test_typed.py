"""Plain values become typed settings, or every mistake is named with its path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from models.typed import (
    AT_LEAST_1,
    FRACTION,
    Mismatch,
    RowOf,
    SettingsError,
    between,
    build,
    convert,
    fields_of,
    item_types,
    nested,
    shown,
    type_in_words,
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A nested dataclass."""

    ratio: Annotated[int, AT_LEAST_1] = 4

    def __post_init__(self) -> None:
        if self.ratio == 13:
            raise ValueError("ratio must not be 13")


@dataclass(frozen=True, kw_only=True)
class Whole:
    """One field of each kind."""

    count: Annotated[int, between(1, 9)]
    rate: Annotated[float, FRACTION] = 0.0
    kind: Literal["a", "b"] = "a"
    sizes: tuple[Annotated[int, AT_LEAST_1], ...] = (1,)
    part: Part | None = None
    limit: Annotated[int, AT_LEAST_1] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    made: int = field(default=0, init=False)


def errors(**values: Any) -> dict[str, str]:
    """The messages by path."""
    with pytest.raises(SettingsError) as caught:
        build(Whole, values)
    return {".".join(path): message for path, message in caught.value.errors}


def test_mappings_become_dataclasses_and_lists_tuples() -> None:
    assert build(Whole, {"count": 3, "rate": "5e-1", "sizes": [1, 2], "part": {"ratio": 2}}) == Whole(
        count=3, rate=0.5, sizes=(1, 2), part=Part(ratio=2)
    )


def test_a_whole_number_in_a_field_of_fractions_becomes_a_float() -> None:
    assert type(build(Whole, {"count": 1, "rate": 0}).rate) is float


@pytest.mark.parametrize(("given", "part"), [(True, Part()), ({}, Part()), (None, None), (Part(ratio=2), Part(ratio=2))])
def test_a_nested_dataclass_may_be_true_or_null_or_there_already(given: Any, part: Part | None) -> None:
    assert build(Whole, {"count": 1, "part": given}).part == part


def test_every_mistake_is_named_with_its_path() -> None:
    assert errors(count=True, rte=1, kind="c", sizes=[1, 0], part={"rato": 1}, limit=0) == {
        "count": "expected a whole number, got true",
        "rte": "unknown field; did you mean 'rate'? valid: count, rate, kind, sizes, part, limit, more",
        "kind": "unknown value 'c'; valid: a, b",
        "sizes": "must be 1 or more, got 0",
        "part.rato": "unknown field; did you mean 'ratio'? valid: ratio",
        "limit": "must be 1 or more, got 0",
    }


def test_a_field_without_a_default_is_missed() -> None:
    assert errors() == {"count": "missing"}


def test_the_type_comes_before_the_limit_and_the_limit_before_the_dataclass_itself() -> None:
    assert errors(count="12") == {"count": "expected a whole number, got text '12'"}
    assert errors(count=12) == {"count": "must be from 1 to 9, got 12"}
    assert errors(count=1, part={"ratio": 0}) == {"part.ratio": "must be 1 or more, got 0"}
    assert errors(count=1, part={"ratio": 13}) == {"part": "ratio must not be 13"}


def test_a_field_that_is_computed_cannot_be_set() -> None:
    assert "made" not in fields_of(Whole) and "made" in errors(count=1, made=3)


def test_the_error_has_a_line_for_each_mistake() -> None:
    with pytest.raises(SettingsError) as caught:
        build(Whole, {"count": 0, "rate": 1})
    assert str(caught.value) == "Whole.count: must be from 1 to 9, got 0\nWhole.rate: must be 0 or more and below 1, got 1.0"


@pytest.mark.parametrize(
    ("value", "hint", "converted"),
    [
        (3, int, 3),
        (3, float, 3.0),
        ("1e-3", float, 1e-3),
        ("1e-3", str, "1e-3"),
        ([1, 2.5], tuple[float, float], (1.0, 2.5)),
        ((1, 2), tuple[int, ...], (1, 2)),
        ([[1], [2]], tuple[tuple[int, ...], ...], ((1,), (2,))),
        (None, int | None, None),
        ("a", Literal["a", 1], "a"),
        ({"a": 1}, Mapping[str, Any], {"a": 1}),
        ([1], Any, [1]),
    ],
)
def test_a_value_is_converted_to_its_fields_type(value: Any, hint: Any, converted: Any) -> None:
    result = convert(value, hint)
    assert result == converted and type(result) is type(converted)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, int, "expected a whole number, got true"),
        (1, bool, "expected true or false, got 1"),
        (1.0, int, "expected a whole number, got 1.0"),
        (float("nan"), float, "expected a number, got nan"),
        ("none", float | None, "expected a number or null, got text 'none'"),
        ("c", Literal["a", "b"] | None, "unknown value 'c'; valid: a, b"),
        ([1], tuple[int, int], "expected a list of 2 whole numbers, got a list of 1"),
        ([1, "a"], tuple[int, ...], "expected a whole number, got text 'a'"),
        (None, str, "expected text, got nothing"),
        ([1], Mapping[str, int], "expected a mapping, got a list"),
    ],
)
def test_a_value_of_another_type_is_refused_in_plain_words(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        convert(value, hint)
    assert str(caught.value) == message


def test_hints_are_taken_apart() -> None:
    assert nested(Part | None) is Part and nested(int | None) is None
    assert item_types(tuple[int, str] | None, 2) == [int, str] and item_types(tuple[int, ...], 2) == [int, int] and item_types(Any, 1) == [Any]
    assert type_in_words(tuple[float, ...] | None) == "a list of numbers or null"
    assert [shown(value) for value in ((1,), {}, False)] == ["a list", "a mapping", "false"]


def test_a_name_is_one_of_a_table_that_may_grow() -> None:
    table: dict[str, int] = {"digits": 1}

    @dataclass(frozen=True, kw_only=True)
    class Named:
        source: Annotated[str, RowOf(table=table, others=lambda: ["grey"])] = "digits"

    with pytest.raises(SettingsError, match=r"Named\.source: unknown value 'grex'; did you mean 'grey'\? valid: digits, grey"):
        build(Named, {"source": "grex"})
    with pytest.raises(SettingsError, match="expected text, got 3"):
        build(Named, {"source": 3})
    table["grex"] = 2
    assert build(Named, {"source": "grex"}).source == "grex"
