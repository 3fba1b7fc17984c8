"""Options of a source, typed by the dataclass of its row."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from jobs.experiment.sources import SOURCES, SourceEntry, typed_options
from jobs.experiment.specs import DataSpec
from models.typed import SettingsError


@dataclass(frozen=True, kw_only=True)
class Tiles:
    size: int = 4
    names: tuple[str, ...] = ("a",)

    def check(self) -> None:
        """Tiles of one pixel are refused."""
        if self.size == 1:
            raise ValueError("size 1 is no tile")


@pytest.fixture(autouse=True)
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "tiles", SourceEntry(img_size=8, options=Tiles(size=8)))


def test_a_row_has_the_defaults_and_a_mapping_changes_them() -> None:
    assert DataSpec(source="tiles").options == Tiles(size=8) and DataSpec().options is None
    data = DataSpec(source="tiles", options={"names": ["b", "c"]})
    assert data.options == Tiles(size=8, names=("b", "c")) and replace(data, flip=True).options == data.options
    assert hash(data) == hash(replace(data))


@pytest.mark.parametrize(
    ("source", "given", "message"),
    [
        ("tiles", {"siz": 1}, "data.options.siz: unknown field; did you mean 'size'"),
        (
            "tiles",
            {"size": "x", "names": 3},
            "data.options.size: expected a whole number, got text 'x'\ndata.options.names: expected a list of texts",
        ),
        ("tiles", {"size": 1}, "data.options: size 1 is no tile"),
        ("tiles", 3, "data.options: expected a mapping, got 3"),
        ("digits", {"size": 3}, "data.options: source digits has no options"),
    ],
)
def test_mistakes_are_named_by_their_path(source: str, given: Any, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        typed_options(source, given)
    assert str(refused.value).startswith(message)
