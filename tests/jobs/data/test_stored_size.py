"""The size at which a .beton stores an image, against the definition in words."""

import pytest

from jobs.data.beton import PAGE_BYTES
from jobs.data.stored_size import fits, fitted_size, stored_as_jpg, too_large
from jobs.experiment.specs import DataSpec


@pytest.mark.parametrize("height", [1, 7, 224, 500, 2000])
@pytest.mark.parametrize("width", [1, 31, 224, 1999])
@pytest.mark.parametrize("most", [None, 224, 300])
def test_the_longer_side_is_shrunk_and_the_shorter_side_is_the_networks_at_least(height: int, width: int, most: int | None) -> None:
    stored = fitted_size(height, width, 224, most)
    assert min(stored) >= 224
    if min(height, width) >= 224 and (most is None or max(height, width) <= most):
        assert stored == (height, width)
    elif most is not None and min(height, width) * most >= 224 * max(height, width):
        assert max(stored) <= max(most, 224)
    assert abs(stored[0] / stored[1] - height / width) <= height / width / 100


def test_a_page_and_the_widths_of_two_bytes_are_the_limits() -> None:
    assert fits(1, PAGE_BYTES // 3, jpg=False) is (PAGE_BYTES // 3 <= 65535)
    assert fits(1672, 1672, jpg=False) and not fits(1673, 1673, jpg=False) and fits(1673, 1673, jpg=True)
    assert fits(1, 65535, jpg=False) and not fits(1, 65536, jpg=False) and not fits(1, 65501, jpg=True)


def test_an_image_of_the_networks_size_is_stored_raw() -> None:
    data = DataSpec(source="imagefolder", path="x", img_size=224, write_mode="jpg")
    assert stored_as_jpg(data, 224, 225) and not stored_as_jpg(data, 224, 224)


def test_the_error_names_both_sizes_and_a_remedy() -> None:
    error = too_large("a.png", 3000, 2000, DataSpec(source="imagefolder", path="x", img_size=224))
    assert str(error) == (
        "a.png: too large for a .beton file at 224 pixels (2000 x 3000, stored as 2000 x 3000): set data.max_resolution to at most 1672, "
        "or data.write_mode: jpg"
    )
