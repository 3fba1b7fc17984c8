"""Ways to time a network: compiled, by CUDA graphs, in another layout or number format. Each is a protocol, and never part of a training."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from jobs.experiment.specs import ProfileSpec

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WARM_CALLS = 3  # before a capture, which must not meet work that is done only once
Network = Callable[[Tensor], object]


class NotMeasurable(RuntimeError):
    """This device or network cannot be timed in this way."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way. The plain one is that of a network as it was loaded."""

    compile: bool = False
    cuda_graphs: bool = False
    channels_last: bool = False
    tf32: bool | None = None  # None: as the recipe trains
    dtype: str | None = None  # None: the network's own

    @property
    def words(self) -> tuple[str, ...]:
        """What is not plain and no number format."""
        named = {"torch.compile": self.compile, "CUDA graphs": self.cuda_graphs, "channels last": self.channels_last}
        return tuple(word for word, used in named.items() if used)

    def name(self, device: torch.device) -> str:
        """The way in a few words."""
        tf32 = () if self.tf32 is None or device.type != "cuda" else ("TF32" if self.tf32 else "no TF32",)
        return ", ".join((self.dtype or "fp32", *tf32, *self.words))


PLAIN = Protocol()


def further_protocols(profile: ProfileSpec | None) -> tuple[Protocol, ...]:
    """Every combination of a profile's axes but the plain one."""
    if profile is None:
        return ()
    axes = (profile.compile, profile.cuda_graphs, profile.channels_last, profile.tf32 or (None,), profile.dtype)
    ways = [
        Protocol(compile=compiled, cuda_graphs=graphs, channels_last=last, tf32=tf32, dtype=None if dtype == "fp32" else dtype)
        for compiled, graphs, last, tf32, dtype in product(*axes)
    ]
    return tuple(dict.fromkeys(way for way in ways if way != PLAIN))


@contextmanager
def tf32_of(protocol: Protocol) -> Iterator[None]:
    """Within the block, fp32 products and convolutions of a GPU use TF32 as the protocol says."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    if protocol.tf32 is not None:
        cudnn.allow_tf32 = matmul.allow_tf32 = protocol.tf32
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def images_for(protocol: Protocol, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in the protocol's number format and layout."""
    images = images.to(DTYPES[protocol.dtype]) if protocol.dtype else images
    return images.contiguous(memory_format=torch.channels_last) if protocol.channels_last else images


def prepared(network: nn.Module, protocol: Protocol, images: Tensor) -> Network:
    """A network that runs as the protocol says; `images` for it: see `images_for`. The network itself stays as it is. Raises NotMeasurable."""
    if protocol == PLAIN:
        return network
    if protocol.cuda_graphs and images.device.type != "cuda":
        raise NotMeasurable("CUDA graphs need a GPU")
    changed = copy.deepcopy(network).eval()
    if protocol.dtype:
        changed = changed.to(DTYPES[protocol.dtype])
    if protocol.channels_last:
        changed = changed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has no types for it
    run: Network = torch.compile(changed, dynamic=False) if protocol.compile else changed
    try:
        for batch in (images[:1], images):
            run(batch)
    except Exception as error:  # a compiler, a kernel or the code of a model may raise any
        raise NotMeasurable(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}") from error
    return Graphs(run, (images[:1], images)) if protocol.cuda_graphs else run


class Graphs:
    """A network whose launches were captured once for each of some batches, and are replayed on them."""

    def __init__(self, run: Network, batches: tuple[Tensor, ...]) -> None:
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        for batch in batches:
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no types for it
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_CALLS):
                    run(batch)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                run(batch)
            self.graphs[len(batch)] = graph

    def __call__(self, batch: Tensor) -> None:
        """Replays the launches of the captured batch of this size."""
        self.graphs[len(batch)].replay()
