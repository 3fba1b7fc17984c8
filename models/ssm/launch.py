"""How the Triton kernels are launched: sizes of tiles, programs, warps and workspaces, by the shapes of the tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

CHUNK = 64  # positions between two kept states
LENGTHS, WIDTH = 32, 64  # positions and channels in a tile of the convolution


@dataclass(frozen=True, kw_only=True)
class ScanShape:
    """A launch of the scan. A program has 32 channels of one group, of one sample, of one side: `rows` x `lanes`."""

    batch: int
    length: int
    channels: int
    groups: int
    states: int
    sides: int
    padded: int  # states, a power of two
    rows: int
    lanes: int
    depth: int  # positions that the backward pass has in registers at a time
    warps: int

    @property
    def blocks(self) -> int:
        """Blocks of channels in a group."""
        return -(-(self.channels // self.groups) // (self.rows * self.lanes))

    @property
    def programs(self) -> int:
        """All programs of the launch."""
        return self.sides * self.batch * self.groups * self.blocks

    @property
    def chunks(self) -> int:
        """Chunks of a sequence."""
        return -(-self.length // CHUNK)

    def kept_shape(self) -> tuple[int, ...]:
        """The shape of the states at the chunks' starts but the first: (S, B, chunks - 1, N, D)."""
        return self.sides, self.batch, max(0, self.chunks - 1), self.states, self.channels

    def noted_elements(self) -> int:
        """Elements of the backward pass's workspace: for each program the states at every `depth`-th position of a chunk."""
        return self.programs * (CHUNK // self.depth) * self.padded * self.rows * self.lanes

    def sizes(self) -> tuple[int, ...]:
        """The kernels' sizes."""
        return self.batch, self.length, self.channels, self.groups, self.states, self.blocks

    def constants(self) -> dict[str, int]:
        """The kernels' constants that both directions have."""
        return {"N": self.padded, "K": self.rows, "W": self.lanes, "CHUNK": CHUNK}


def scan_shape(u: Sequence[int], B: Sequence[int], *, sides: int, backwards: bool) -> ScanShape:
    """The launch for u (B, D, L) and B (B, G, N, L).

    Forwards a warp's lanes hold 32 channels, each with up to 16 states in registers, so a sum over states needs no exchange between lanes.
    Backwards they hold 16 channels x 2 rows x half of the states: sums over channels, of which there are more, then take fewer exchanges.
    """
    batch, channels, length = u
    groups, states = B[1], B[2]
    padded = 1 << (states - 1).bit_length()
    rows, lanes = (2, 16) if backwards else (1, 32)
    return ScanShape(
        batch=batch,
        length=length,
        channels=channels,
        groups=groups,
        states=states,
        sides=sides,
        padded=padded,
        rows=rows,
        lanes=lanes,
        depth=4,
        warps=min(16, max(1, padded // 16)),
    )


def conv_grid(x: Sequence[int]) -> tuple[int]:
    """The programs of a convolution of x (B, D, L)."""
    batch, channels, length = x
    return (batch * -(-length // LENGTHS) * -(-channels // WIDTH),)
