"""What a folder holds; tests/jobs/data/test_folders.py tests it through its source."""

from pathlib import Path

from jobs.data.listing import Listing, ending
from tests.support.images import write_folder


def test_classes_and_images_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=("b", "a"), count=2)
    listing = Listing(tmp_path)
    assert listing.classes == ["a", "b"] and [entry.name for entry in listing.images("a")] == ["0.png", "1.png"]
    assert list(listing.images("c")) == []


def test_endings_are_read_in_lower_case() -> None:
    assert [ending(name) for name in ("a.JPG", "a.tar.Gz", "a")] == [".jpg", ".gz", ""]
