"""The paths along which a scan reads a grid of patches, as LocalMamba names them (arXiv 2403.09338; hunto/LocalMamba, commit 75e5d1f, Apache-2.0,
classification/lib/models/mamba/multi_mamba.py and local_scan.py). No torch.

| path | reads |
|---|---|
| `h` | row by row |
| `v` | column by column |
| `w2`, `w7`, ... | windows of 2 x 2, 7 x 7, ... patches, row by row; in each of them row by row |
| `h_flip`, ... | the same from its last token to its first |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

VIM = ("h", "h_flip")  # Vim's own
FLIP = "_flip"


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A scan of a mixer, and the ending of the names of its parameters."""

    path: str  # without _flip
    reverse: bool
    ending: str

    @property
    def A_log(self) -> str:
        """Name of the logarithms of the state matrix; Vim's file writes the ending in the middle."""
        return "A_b_log" if self.ending == "_b" else f"A_log{self.ending}"


def directions_of(scan: Sequence[str]) -> tuple[Direction, ...]:
    """The directions of a list of paths. Vim's own have Vim's names, without an ending and with `_b`; any other list LocalMamba's: `_0`, `_1`, ..."""
    endings = ("", "_b") if tuple(scan) == VIM else tuple(f"_{number}" for number in range(len(scan)))
    named = zip(scan, endings, strict=True)
    return tuple(Direction(path=name.removesuffix(FLIP), reverse=name.endswith(FLIP), ending=ending) for name, ending in named)


def by_path(directions: Sequence[Direction]) -> dict[str, list[Direction]]:
    """The directions that read the same path, from either end."""
    return {path: [each for each in directions if each.path == path] for path in dict.fromkeys(each.path for each in directions)}


def tokens_along(path: str, side: int) -> list[int]:
    """The tokens of a grid of side x side patches as a path reads them, by their positions in Vim's sequence.

    That sequence is row by row, with the class token behind half of the patches, rounded down. A path keeps the class token there: behind half of its
    own patches. ValueError: windows that do not divide the grid.
    """
    patches, middle = sorted(range(side * side), key=_rank(path, side)), side * side // 2
    tokens = [patch + (patch >= middle) for patch in patches]
    return [*tokens[:middle], middle, *tokens[middle:]]


def _rank(path: str, side: int) -> Callable[[int], tuple[int, ...]]:
    """The key by which a path sorts patches."""
    if path == "h":
        return lambda patch: divmod(patch, side)
    if path == "v":
        return lambda patch: (patch % side, patch // side)
    window = int(path.removeprefix("w"))
    if side % window:
        valid = ", ".join(f"w{size}" for size in range(2, side + 1) if side % size == 0) or "none"
        raise ValueError(f"scan: windows of {window} x {window} do not divide {side} x {side} patches; windows that do: {valid}")
    return lambda patch: (patch // side // window, patch % side // window, patch // side % window, patch % side % window)
