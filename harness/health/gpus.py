"""The GPUs of this machine, and what torch and NCCL were built for."""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.health.finding import Finding, error, ok, warning
from harness.text import counted
from jobs.experiment.specs import ClusterSpec
from jobs.parallel.devices import SLICES, refusal

GIB = 2**30
BUSY = 0.1  # of its memory: somebody else uses the GPU
BUILD = "install a CUDA build of torch in the environment that the jobs use"


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU as its driver tells of it."""

    name: str
    memory_bytes: int
    used_bytes: int
    mig: bool  # cut into slices, each a device of its own


def gpus(cluster: ClusterSpec, *, on_node: bool) -> Iterator[Finding]:
    """The GPUs of this machine, and torch's build. on_node: the jobs of `cluster` run here."""
    import torch

    from models.ssm.backends import compiler_problem
    from models.ssm.check import COMPILER_REMEDY

    driver, cards = seen()
    if not cards:
        yield from without_cards(cluster, on_node=on_node)
        return
    built = torch.version.cuda
    names = ", ".join(sorted({f"{card.name}, {card.memory_bytes / GIB:.0f} GiB" for card in cards}))
    text = f"{counted(len(cards), 'GPU')}: {names}; driver {driver}"
    if built is None:
        yield error("gpus", f"{text}; torch {torch.__version__} is built for CPUs", BUILD)
        return
    if not torch.cuda.is_available():
        yield error("gpus", f"{text}; torch cannot use them: {refusal()}", f"install a driver that knows CUDA {built}, or a torch for an older CUDA")
        return
    nccl = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]  # torch gives it no types
    yield ok("gpus", f"{text}; CUDA {built}, NCCL {nccl}")
    if lacking := compiler_problem():
        yield warning("gpus", f"the scan's Triton kernels need a C compiler at their first call, and {lacking}", COMPILER_REMEDY)
    if busy := [card for card in cards if card.used_bytes > BUSY * card.memory_bytes]:
        yield warning("gpus", f"{counted(len(busy), 'GPU')} in use by others", "speeds that are measured now are not to be published")
    if any(card.mig for card in cards):
        yield warning("gpus", "MIG cuts GPUs into slices, which NCCL cannot join", SLICES)


def without_cards(cluster: ClusterSpec, *, on_node: bool) -> Iterator[Finding]:
    """What there is to say on a machine without a GPU."""
    import torch

    if not cluster.promised_gpus:
        yield ok("gpus", "no NVIDIA GPU here; jobs run on the CPU")
    elif on_node:
        yield error("gpus", f"no NVIDIA GPU here, and the jobs ask for some: {refusal()}", "see that the job asks for GPUs; nvidia-smi on the node")
    elif cluster.container:
        yield ok("gpus", "none on this machine; --job, within an allocation, looks at a node's from inside the container")
    elif torch.version.cuda is None:
        yield error("gpus", f"the jobs ask for GPUs, and torch {torch.__version__} is built for CPUs", BUILD)
    else:
        yield ok("gpus", f"none on this machine; torch is built for CUDA {torch.version.cuda}; --job, within an allocation, looks at a node's")


def seen() -> tuple[str, list[Card]]:
    """The driver's version and the GPUs, by NVML; an empty text and none without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return text(pynvml.nvmlSystemGetDriverVersion()), [card_of(pynvml.nvmlDeviceGetHandleByIndex(n)) for n in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return "", []


def card_of(handle: object) -> Card:
    """A GPU."""
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        mig = pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    except pynvml.NVMLError:  # cards that know no MIG
        mig = False
    return Card(name=text(pynvml.nvmlDeviceGetName(handle)), memory_bytes=memory.total, used_bytes=memory.used, mig=mig)


def text(value: str | bytes) -> str:
    """NVML's words; older bindings give bytes."""
    return value.decode() if isinstance(value, bytes) else value
