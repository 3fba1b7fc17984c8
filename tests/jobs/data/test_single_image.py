"""One image becomes what evaluation gives to a network: against the loaders, and against timm."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.data.decoding import library
from jobs.data.faults import UnusableImage
from jobs.data.loaders import channels_of
from jobs.data.prepare import prepare
from jobs.data.single_image import evaluated_pixels, network_input
from jobs.data.sources import reader_of
from jobs.experiment.specs import DataSpec
from models.torchvision_shim import load_timm
from tests.support.images import eval_loader, joined


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_it_is_the_image_that_the_evaluation_loader_gives_bit_for_bit(tmp_path: Path) -> None:
    data = DataSpec(source="synthetic", loader="torch", samples=40, classes=2)
    batch = joined(eval_loader(data, prepare(data, tmp_path), "test").batches())[0]
    images = reader_of("synthetic").read(data, 32).test.image
    given = torch.cat([network_input(Image.fromarray(images(number)), data, channels_of(data)) for number in range(4)])
    assert torch.equal(given, batch[:4])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_it_is_resized_and_cut_as_timm_does(interpolation: str) -> None:
    load_timm()
    from timm.data import create_transform

    data = DataSpec(source="imagefolder", img_size=32, interpolation=interpolation, eval_crop=0.9)
    image = noise(90, 61)
    expected = create_transform(32, interpolation=interpolation, crop_pct=0.9, mean=(0, 0, 0), std=(1, 1, 1))(image)
    difference = network_input(image, data, ((0.0,) * 3, (1.0,) * 3))[0] - expected
    assert (255 * difference).abs().max().round() <= (1 if library() else 3)


def test_an_image_that_the_file_would_shrink_or_enlarge_is_shrunk_or_enlarged() -> None:
    import cv2

    data = DataSpec(source="imagefolder", img_size=32, max_resolution=100, eval_crop=1.0)
    large, small = np.asarray(noise(400, 200)), np.asarray(noise(20, 16))
    stored = cv2.resize(large, (50, 100), interpolation=cv2.INTER_AREA)
    assert np.array_equal(evaluated_pixels(large, data), evaluated_pixels(stored, data))
    assert evaluated_pixels(small, data).shape == (32, 32, 3)


def test_colours_and_orientation_are_those_of_a_viewer(tmp_path: Path) -> None:
    data = DataSpec(source="imagefolder", img_size=8)
    grey = network_input(Image.new("L", (8, 8), 255), data, ((0.0,) * 3, (1.0,) * 3))
    assert torch.equal(grey, torch.ones(1, 3, 8, 8))
    clear = network_input(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), data, ((0.0,) * 3, (1.0,) * 3))
    assert torch.equal(clear, torch.ones(1, 3, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = noise(8, 8)
    image.save(tmp_path / "turned.png", exif=exif)
    turned = network_input(Image.open(tmp_path / "turned.png"), data, ((0.0,) * 3, (1.0,) * 3))
    assert torch.equal(turned.flip(2, 3), network_input(image, data, ((0.0,) * 3, (1.0,) * 3)))


def test_numbers_without_a_white_are_refused() -> None:
    with pytest.raises(UnusableImage, match="the image: holds 32-bit floats"):
        network_input(Image.new("F", (8, 8)), DataSpec(source="imagefolder", img_size=8), ((0.0,) * 3, (1.0,) * 3))
