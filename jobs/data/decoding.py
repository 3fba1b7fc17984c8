"""From the bytes of a .beton file to batches: boxes of images as uint8, and normalised tensors. Both loaders call these two functions.

The C++ library does the work (`decoding.cpp`; the package's install builds it where libjpeg-turbo is). It decodes no row or column of a JPEG that a
box does not need. Without it, `jobs.data.plain_decoding` does the same with OpenCV and PIL, slower, and equal to within a few grey levels.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from jobs.data.augment import BOX
from jobs.data.beton import INDEX, DataError
from models.built import built_file
from models.closed_pipe import ends_with_its_reader

if TYPE_CHECKING:
    from torch import Tensor

Interpolation = Literal["area", "bilinear", "bicubic"]
Channels = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and standard deviation, in units of white

# where an image lies in a file, what is needed of it, and where the starts of its rows lie in theirs (`jobs.data.row_starts`; 0: nowhere)
SELECTION: Final = np.dtype([*INDEX.descr, *BOX.descr, ("starts", "<i8")])
START: Final = np.dtype([("bit", "<u4"), ("last", "<i2", 3)])  # where the codes of a row of MCUs start, and the first coefficients before it
FILTERS: Final[tuple[Interpolation, ...]] = get_args(Interpolation)
VERSION: Final = 3  # of the arguments of the library's functions; decoding.cpp has the same number
MOST_ROWS: Final = 8192  # of MCUs, which are 8 pixels high or more: no JPEG has more than 65,535 pixels
BUILD: Final = "install a C++ compiler and libjpeg-turbo (apt-get install g++ libjpeg-dev), and run `pip install --no-build-isolation -e .` again"


@cache
def library() -> ctypes.CDLL | None:
    """The C++ library; None where it is not built. ImportError if it does not load, or is of another source."""
    path = built_file(Path(__file__).parent, "_decoding")
    if path is None:
        return None
    try:
        built = ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(f"{path} does not load ({str(error).removeprefix(f'{path}: ')}): {BUILD}, or remove the file") from error
    if not hasattr(built, "vssm_version") or (built.vssm_version(), built.vssm_row_bytes()) != (VERSION, SELECTION.itemsize):
        raise ImportError(f"{path} was built from another version of its source: {BUILD}")
    word, address = ctypes.c_int64, ctypes.c_void_p
    built.vssm_fill.argtypes, built.vssm_fill.restype = [address, address, address, word, word, word, word, word, address], word
    built.vssm_row_starts.argtypes, built.vssm_row_starts.restype = [address, word, word, address], word
    built.vssm_normalise.argtypes, built.vssm_normalise.restype = [address, word, word, address, address, word, address], None
    built.vssm_turn.argtypes, built.vssm_turn.restype = [address, word, word, address, word, address], None
    return built


def fill(
    content: NDArray[np.uint8],
    rows: NDArray[np.void],
    out: NDArray[np.uint8],
    interpolation: Interpolation,
    threads: int,
    scaled: bool = False,
    starts: NDArray[np.uint8] | None = None,
) -> None:
    """Fills `out`, (b, S, S, 3), with the boxes of `rows`, SELECTION (b,), resized to S x S. `content`: the bytes of the whole file.

    A box that lies partly outside of its image is zero there. Equal for any number of threads. DataError: a JPEG is damaged.

    scaled: a JPEG whose box has d S pixels or more on both sides is decoded at 1/d of its size, d = 2, 4 or 8: libjpeg then transforms fewer
    frequencies. That saves time and changes pixels a little. `whole` rows, which evaluation uses, are never scaled.

    starts: the bytes of the file's row starts, if there are some (`jobs.data.row_starts`); they save time, and change nothing.
    """
    built = library()
    if built is None:
        from jobs.data.plain_decoding import fill_plainly

        return fill_plainly(content, rows, out, interpolation)
    rows = np.ascontiguousarray(rows)
    assert rows.dtype == SELECTION and out.flags.c_contiguous and len(out) == len(rows)
    files = content.ctypes.data, None if starts is None else starts.ctypes.data
    damaged = built.vssm_fill(*files, rows.ctypes.data, len(rows), out.shape[1], FILTERS.index(interpolation), scaled, threads, out.ctypes.data)
    if damaged >= 0:
        raise damaged_image(rows[damaged])


def row_starts(jpeg: NDArray[np.uint8]) -> NDArray[np.void]:
    """Where the codes of each row of MCUs start in the bytes of a JPEG, START (rows,). Empty where that cannot be known: progressive, damaged."""
    built, room = library(), np.empty(MOST_ROWS, START)
    return room[: built.vssm_row_starts(jpeg.ctypes.data, len(jpeg), len(room), room.ctypes.data)] if built else room[:0]


def damaged_image(row: np.void) -> DataError:
    """The error for a row whose JPEG cannot be decoded."""
    return DataError(f"damaged: the image at byte {row['ptr']} is no whole JPEG of {row['width']} x {row['height']}: copy or write the file again")


def normalised(images: NDArray[np.uint8], channels: Channels) -> "Tensor":
    """`images`, (b, S, S, 3), as a new tensor (b, 3, S, S) float32: (value - mean) / deviation in one pass, equal to torch's bit for bit."""
    import torch

    mean, deviation = (255 * torch.tensor(values) for values in channels)
    built, images = library(), np.ascontiguousarray(images)
    if built is None:
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return tensor.sub_(mean.view(3, 1, 1)).div_(deviation.view(3, 1, 1))
    out = torch.empty(len(images), 3, *images.shape[1:3])
    built.vssm_normalise(images.ctypes.data, len(images), images.shape[1] * images.shape[2], mean.data_ptr(), deviation.data_ptr(), 1, out.data_ptr())
    return out


@ends_with_its_reader
def main() -> None:
    """Prints whether the C++ library is built."""
    print("C++ decoding: built" if library() else f"C++ decoding: not built, so OpenCV and PIL decode, slower: {BUILD}")


if __name__ == "__main__":
    main()
