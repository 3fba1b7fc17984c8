"""How the Triton kernels are launched: sizes of tiles, programs, warps and workspaces, by the shapes of the tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

CHUNK = 32  # positions between two kept states; the workspace of a chunk then stays in the second-level cache
DEPTH = 2  # positions that the backward pass has in registers at a time; more do not fit
CHANNELS = 32  # of a program of the scan
LENGTHS, WIDTH = 32, 64  # positions and channels in a tile of the convolution


@dataclass(frozen=True, kw_only=True)
class ScanShape:
    """A launch of the scan. A program has 32 channels of one group, of one sample, of one side."""

    batch: int
    length: int
    channels: int
    groups: int
    states: int
    sides: int
    padded: int  # states, a power of two
    warps: int

    @property
    def most_registers(self) -> int | None:
        """A limit of a thread's registers in the backward pass, without which the compiler aims too low and spills; None: the hardware's."""
        return 184 if self.padded == 8 else None

    @property
    def blocks(self) -> int:
        """Blocks of channels in a group."""
        return -(-(self.channels // self.groups) // CHANNELS)

    @property
    def programs(self) -> int:
        """All programs of the launch."""
        return self.sides * self.batch * self.groups * self.blocks

    @property
    def chunks(self) -> int:
        """Chunks of a sequence."""
        return -(-self.length // CHUNK)

    def kept_elements(self) -> int:
        """Elements of the states at the chunks' starts but the first, for each program."""
        return self.programs * max(0, self.chunks - 1) * self.padded * CHANNELS

    def noted_elements(self) -> int:
        """Elements of the backward pass's workspace: for each program the states at every DEPTH-th position of a chunk."""
        return self.programs * (CHUNK // DEPTH) * self.padded * CHANNELS

    def sizes(self) -> tuple[int, ...]:
        """The kernels' sizes."""
        return self.batch, self.length, self.channels, self.groups, self.states, self.blocks

    def constants(self) -> dict[str, int]:
        """The kernels' constants."""
        return {"N": self.padded, "PADDED": self.padded != self.states, "W": CHANNELS, "CHUNK": CHUNK}


def scan_shape(u: Sequence[int], B: Sequence[int], *, sides: int) -> ScanShape:
    """The launch for u (B, D, L) and B (B, G, N, L). A warp has up to 16 states of its 32 channels."""
    batch, channels, length = u
    groups, states = B[1], B[2]
    padded = 1 << (states - 1).bit_length()
    return ScanShape(
        batch=batch,
        length=length,
        channels=channels,
        groups=groups,
        states=states,
        sides=sides,
        padded=padded,
        warps=1 if padded <= 16 else min(16, padded // 8),
    )


def conv_grid(x: Sequence[int]) -> tuple[int]:
    """The programs of a convolution of x (B, D, L)."""
    batch, channels, length = x
    return (batch * -(-length // LENGTHS) * -(-channels // WIDTH),)
