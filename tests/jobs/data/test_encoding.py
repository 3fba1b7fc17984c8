"""Images as a .beton holds them."""

import numpy as np
import pytest

from jobs.data.encoding import fitted
from jobs.data.sources import READERS
from jobs.experiment.specs import DataSpec


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((8, 8), None, (32, 32)),
        ((32, 32), None, (32, 32)),
        ((16, 48), None, (32, 96)),
        ((300, 200), None, (300, 200)),
        ((300, 200), 150, (150, 100)),
        ((400, 40), 100, (320, 32)),
        ((31, 64), 64, (32, 66)),
    ],
)
def test_images_are_enlarged_to_the_networks_size_and_shrunk_to_the_limit(size, limit, expected):
    assert fitted(np.zeros((*size, 3), np.uint8), 32, limit).shape == (*expected, 3)


def test_enlarging_keeps_a_digits_brightness():
    content = READERS["digits"].read(DataSpec(), 32)
    small, large = content.train.image(0), fitted(content.train.image(0), 32, None)
    assert abs(small.mean() - large.mean()) < 5
    assert abs(large.reshape(8, 4, 8, 4, 3).mean((1, 3)) - small).mean() < 15
