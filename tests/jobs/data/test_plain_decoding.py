"""Boxes in numpy, OpenCV and PIL, which the C++ library is compared with."""

import numpy as np

from jobs.data.decoding import SELECTION
from jobs.data.plain_decoding import boxed


def row(**fields: int) -> np.void:
    """One row of a selection."""
    rows = np.zeros(1, SELECTION)
    for name, value in fields.items():
        rows[name] = value
    return rows[0]


def test_a_box_that_reaches_outside_of_the_image_is_filled_up_with_zeros_and_a_flip_mirrors_it():
    image = np.arange(1, 49, dtype=np.uint8).reshape(4, 4, 3)
    shown = boxed(image, row(top=-1, left=2, rows=4, cols=4), 4)
    assert (shown[1:, :2] == image[:3, 2:]).all() and not shown[0].any() and not shown[:, 2:].any()
    assert (boxed(image, row(top=-1, left=2, rows=4, cols=4, flip=1), 4) == shown[:, ::-1]).all()
    assert not boxed(image, row(top=9, left=9, rows=4, cols=4), 4).any()


def test_a_box_of_another_size_is_resized_by_area():
    image = np.repeat(np.array([[0, 100], [200, 40]], np.uint8).repeat(2, 0).repeat(2, 1)[..., None], 3, axis=2)
    assert boxed(image, row(rows=4, cols=4), 2)[..., 0].tolist() == [[0, 100], [200, 40]]
    assert boxed(image, row(rows=4, cols=4), 1)[..., 0].tolist() == [[85]]
