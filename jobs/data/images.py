"""Image files as RGB pixels. Every mode of Pillow is converted so that its meaning stays, or the file is refused by name.

16-bit grey        scaled: the largest number that the file's bits hold becomes white
32-bit numbers     refused: no rule says which number is white
alpha              laid over white, as a browser shows it; a colour that is marked as transparent likewise
EXIF orientation   applied, so that an image is upright as a viewer shows it
several frames     the first
colour profiles    ignored
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.data.faults import UnusableImage

if TYPE_CHECKING:
    from PIL.Image import Image

# Others are not opened, whatever a file is called: Pillow would start Ghostscript for a PostScript file.
FORMATS: Final = ("JPEG", "PNG", "PPM", "BMP", "DIB", "TIFF", "WEBP", "GIF", "JPEG2000")
GREY_16: Final = ("I;16", "I;16L", "I;16B", "I;16N")
PLAIN: Final = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")  # Pillow converts them without a loss of meaning
CONVERTED: Final = ("LAB", "LA", "La", "PA", "RGBA", "RGBa")  # by rules of their own
NUMBERS: Final = {"I": "32-bit integers", "F": "32-bit floats"}
DARKEST_WHITE: Final = 1 / 16  # of the range of 16 bits: an image that stays below has another range, and would become black
GIT_LFS: Final = b"version https://git-lfs"  # the beginning of a pointer that stands in a file's place
ORIENTATION, PHOTOMETRIC, BITS = 0x0112, 262, 258  # tags of EXIF and TIFF
WHITE_IS_ZERO: Final = 0


def decoded(path: str) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) RGB. UnusableImage where it cannot be decoded or converted."""
    with opened(path) as image:
        image.load()
        return upright(rgb(image, path), orientation(image))


def decoded_bytes(content: bytes, name: str) -> NDArray[np.uint8]:
    """The content of an image file as (H, W, 3) RGB; `name` is what a message calls it. UnusableImage where it cannot be decoded or converted."""
    with opened(name, content) as image:
        image.load()
        return upright(rgb(image, name), orientation(image))


def size_in_header(path: str) -> tuple[int, int]:
    """Rows and columns of an image file, whose pixels are not read. UnusableImage where its first bytes tell that it cannot be used."""
    with opened(path) as image:
        if not (holds_16_bits(image) or image.mode in (*PLAIN, *CONVERTED)):
            raise unread_mode(image, path, f"mode {image.mode}")
        return image.height, image.width


@contextmanager
def opened(path: str, content: bytes | None = None) -> Iterator["Image"]:
    """An image file of which the header is read. `content`: of the file, if it is in memory. Whatever fails is raised as an UnusableImage."""
    from PIL import Image

    try:
        with Image.open(path if content is None else BytesIO(content), formats=FORMATS) as image:
            yield image
    except UnusableImage:
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        remedy = "shrink {it} before; data.max_resolution shrinks only images that can be decoded"
        raise UnusableImage(path, fault=f"has more than {limit:,} pixels", detail=str(error).split(" exceeds")[0], remedy=remedy) from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise UnusableImage(path, fault="cannot be decoded", detail=reason(path, error, content), remedy="replace or remove {it}") from error


def reason(path: str, error: Exception, content: bytes | None = None) -> str:
    """Why a file cannot be decoded."""
    from PIL import UnidentifiedImageError

    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if not (os.path.getsize(path) if content is None else content):
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        pointer = first_bytes(path, content, len(GIT_LFS)) == GIT_LFS
        return "it is a pointer of Git LFS; git lfs pull gets the file itself" if pointer else "its content is no image of a known format"
    return str(error) or type(error).__name__


def first_bytes(path: str, content: bytes | None, count: int) -> bytes:
    """The first bytes of a file, which may be in memory."""
    if content is not None:
        return content[:count]
    with open(path, "rb") as file:
        return file.read(count)


def rgb(image: "Image", path: str) -> NDArray[np.uint8]:
    """The pixels of a loaded image, (H, W, 3)."""
    if holds_16_bits(image):
        return np.repeat(grey_of_16_bits(image, path)[..., None], 3, axis=2)
    if image.mode in NUMBERS:
        low, high = image.getextrema()
        raise unread_mode(image, path, f"from {low:g} to {high:g}")
    if image.mode == "LAB":
        return np.array(rgb_of_lab(image))
    if image.has_transparency_data:
        return np.array(over_white(image))
    if image.mode in PLAIN:
        return np.array(image.convert("RGB"))
    raise unread_mode(image, path, image.mode)


def holds_16_bits(image: "Image") -> bool:
    """True for 16-bit grey, which Pillow holds in mode I for some formats."""
    return image.mode in GREY_16 or (image.mode == "I" and image.format in ("PNG", "PPM"))


def unread_mode(image: "Image", path: str, detail: str) -> UnusableImage:
    """The error for an image whose numbers have no rule that makes them colours."""
    if image.mode in NUMBERS:
        remedy = "choose the numbers that are black and white in all images, and save {it} with 8 or 16 bits"
        return UnusableImage(path, fault=f"holds {NUMBERS[image.mode]}", detail=detail, remedy=remedy)
    return UnusableImage(path, fault="has a colour mode that is not read", detail=detail, remedy="save {it} as RGB or grey")


def grey_of_16_bits(image: "Image", path: str) -> NDArray[np.uint8]:
    """The pixels of an image of 16-bit grey, scaled to 8 bits, (H, W)."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = int(np.ravel(tags.get(BITS, 16))[0])  # a TIFF may hold 12
    white = 2**bits - 1
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < grey.max() < DARKEST_WHITE * white:
        remedy = "save {it} with 8 bits, or scale the numbers of all images so that white is 65535"
        raise UnusableImage(path, fault=f"holds {bits}-bit grey that would become black", detail=f"from {grey.min()} to {grey.max()}", remedy=remedy)
    scaled: NDArray[np.uint8] = np.rint(grey * (255 / white)).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        scaled = 255 - scaled
    if isinstance(transparent := image.info.get("transparency"), int):
        scaled[grey == transparent] = 255
    return scaled


def rgb_of_lab(image: "Image") -> "Image":
    """An image of L*a*b* in sRGB."""
    from PIL import ImageCms

    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is None only for a change in place
    return converted


def over_white(image: "Image") -> "Image":
    """An image with transparent pixels, in RGB over white."""
    from PIL import Image

    if isinstance(transparent := image.info.get("transparency"), tuple) and max(transparent) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in transparent)  # of 16 bits, of which Pillow keeps 8 in a pixel
    straight = image.convert("LA") if image.mode == "La" else image
    clear = straight.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")


def orientation(image: "Image") -> int:
    """The EXIF orientation of a loaded image, 1 to 8; 1 where there is none, or none that can be read. Pillow has applied that of a TIFF."""
    try:
        return 1 if image.format == "TIFF" else int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # EXIF of any content stands in photographs that can be decoded
        return 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """`pixels`, (H, W, 3), turned and mirrored as an EXIF orientation asks."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
