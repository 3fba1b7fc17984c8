"""All images that cannot be used are named at once."""

import pytest

from jobs.data.beton import DataError
from jobs.data.faults import NAMED, Faults, UnusableImage, listed, printable


def unusable(name: str, fault: str = "cannot be decoded") -> UnusableImage:
    return UnusableImage(name, fault=fault, detail="it is empty", remedy="replace or remove {it}")


def test_one_image_has_its_own_error() -> None:
    faults = Faults()
    faults.raise_if_any()
    faults.add(unusable("a.png"))
    with pytest.raises(DataError, match=r"^a\.png: cannot be decoded \(it is empty\): replace or remove it$"):
        faults.raise_if_any()


def test_several_are_named_by_kind_and_the_rest_is_counted() -> None:
    faults = Faults()
    for number in range(NAMED + 2):
        faults.add(unusable(f"{number:02}.png"))
    faults.add(unusable("b.png", fault="is too large"))
    with pytest.raises(DataError, match="13 images cannot be used, so nothing was written") as caught:
        faults.raise_if_any()
    text = str(caught.value)
    assert "00.png (it is empty)" in text and "10.png" not in text and "and 2 more" in text and "is too large: b.png" in text


def test_names_of_any_bytes_can_be_printed() -> None:
    assert printable("a\x1b\udcff") == r"a\x1b\udcff" and listed(["b", "a"]) == "a, b"
