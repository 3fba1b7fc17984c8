"""The built C++ library: its functions, and the variant that this CPU runs. `python -m models.ssm.kernel` prints the variant.

The package's install compiles `selective_scan.cpp` and `causal_conv.cpp` three times (pyproject.toml, ext-modules); the files are in this folder.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from models.built import built_file
from models.closed_pipe import ends_with_its_reader

# The fastest first. A CPU runs its own variant and those below. Keys are torch.backends.cpu's names.
VARIANTS = {"AVX512": "avx512", "AVX2": "avx2", "DEFAULT": "portable"}
BUILD = "install a C++ compiler (apt-get install g++) and run `pip install --no-build-isolation -e .` in the project's folder"

SLOW = "backend 'reference', in a grid `recipe: {scan: reference}`"


class KernelMissing(RuntimeError):
    """Raised when the C++ scan is asked for but was not built."""

    def __init__(self) -> None:
        super().__init__(f"the C++ scan is not built: {BUILD}; or use the slow scan: {SLOW}")


class View(ctypes.Structure):
    """A (B, D, L) tensor: address and strides."""

    _fields_ = [("data", ctypes.c_void_p), ("b", ctypes.c_int64), ("d", ctypes.c_int64), ("l", ctypes.c_int64)]


class SharedView(ctypes.Structure):
    """B or C, (B, G, N, L): address and strides."""

    _fields_ = [("data", ctypes.c_void_p), ("b", ctypes.c_int64), ("g", ctypes.c_int64), ("n", ctypes.c_int64), ("l", ctypes.c_int64)]


class ScanArgs(ctypes.Structure):
    """ScanArgs of selective_scan.cpp, field for field."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in "batch channels length states groups softplus reverse threads".split()]
        + [(name, View) for name in "u delta z out grad_out grad_u grad_delta grad_z".split()]
        + [("B", SharedView), ("C", SharedView)]
        + [(name, ctypes.c_void_p) for name in "A D bias grad_last checkpoints last grad_A grad_D grad_bias grad_B grad_C".split()]
    )


class ConvArgs(ctypes.Structure):
    """ConvArgs of causal_conv.cpp, field for field."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in "batch channels length taps left reverse threads".split()]
        + [(name, View) for name in "x out grad_out grad_x".split()]
        + [(name, ctypes.c_void_p) for name in "weight bias grad_weight grad_bias".split()]
    )


class Operators:
    """Whether the operators of the library compute. A trace that counts operations needs their shapes alone, and then no library either."""

    compute = True

    @classmethod
    @contextmanager
    def give_shapes(cls) -> Iterator[None]:
        """Within the block, forward operators return zeros of the right shapes."""
        cls.compute = False
        try:
            yield
        finally:
            cls.compute = True


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A loaded library and the constants of its build."""

    variant: str
    library: ctypes.CDLL
    vector_bytes: int
    chunk: int  # positions between two kept states
    blocks: int  # vectors of channels in a task
    states: int  # N is padded to a multiple
    max_taps: int  # of the convolution

    def scan(self, args: ScanArgs, element_bytes: int, backwards: bool) -> None:
        """Runs the scan. It writes the results to the addresses in `args`."""
        self.library.vssm_scan(ctypes.byref(args), ctypes.c_int64(element_bytes), ctypes.c_int64(backwards))

    def use_large_pages(self, *tensors: torch.Tensor) -> None:
        """Asks the system for large pages for tensors that are about to be written for the first time. The system may ignore it."""
        for tensor in tensors:
            self.library.vssm_use_large_pages(ctypes.c_void_p(tensor.data_ptr()), ctypes.c_int64(tensor.numel() * tensor.element_size()))

    def convolve(self, args: ConvArgs, element_bytes: int, backwards: bool) -> None:
        """Runs the convolution. It writes the results to the addresses in `args`."""
        self.library.vssm_conv(ctypes.byref(args), ctypes.c_int64(element_bytes), ctypes.c_int64(backwards))


def kernel_path(variant: str) -> Path | None:
    """The built file of a variant, or None."""
    return built_file(Path(__file__).parent, f"_kernel_{variant}")


def runnable_variants() -> list[str]:
    """The built variants whose instructions this CPU has, the fastest first."""
    names = list(VARIANTS.values())
    own = names.index(VARIANTS.get(torch.backends.cpu.get_cpu_capability(), "portable"))
    return [name for name in names[own:] if kernel_path(name)]


@cache
def load_kernel(variant: str | None = None) -> Kernel:
    """The kernel, by default the fastest that this CPU runs. KernelMissing; ImportError if the file does not load, or is of another source."""
    variant = variant or next(iter(runnable_variants()), "")
    path = kernel_path(variant)
    if path is None:
        raise KernelMissing
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ImportError(f"{path} does not load ({reason}): {BUILD}; or use the slow scan: {SLOW}") from error
    constants = {name: _constant(library, name) for name in ("vector_bytes", "scan_chunk", "scan_blocks", "scan_states", "conv_max_taps")}
    sizes = {"scan_args_bytes": ScanArgs, "conv_args_bytes": ConvArgs}
    current = hasattr(library, "vssm_use_large_pages") and all(_constant(library, name) == ctypes.sizeof(struct) for name, struct in sizes.items())
    if not current:
        raise ImportError(f"{path} was built from another version of its source: {BUILD}; or use the slow scan: {SLOW}")
    return Kernel(variant=variant, library=library, **{name.removeprefix("scan_").removeprefix("conv_"): value for name, value in constants.items()})


def _constant(library: ctypes.CDLL, name: str) -> int:
    function = getattr(library, f"vssm_{name}", None)
    if function is None:
        return -1
    function.restype = ctypes.c_int64
    return int(function())


@ends_with_its_reader
def main() -> None:
    """Prints the variant that will run, with its file."""
    paths = {variant: kernel_path(variant) for variant in runnable_variants()}
    fastest = next((f"{variant} ({path.name})" for variant, path in paths.items() if path), None)
    print(f"C++ scan: {fastest or KernelMissing()}")


if __name__ == "__main__":
    main()
