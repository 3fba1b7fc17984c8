"""The device of a rank: a GPU where there is one. A job that was promised GPUs and sees none says why, and never trains on the CPU instead."""

import os
import socket
import subprocess

import torch
from torch.distributed import Store  # type: ignore[attr-defined]  # torch exports it, but not to type checkers

NO_CUDA_BUILD = "which is a build for CPUs alone: install its CUDA build (https://pytorch.org/get-started/locally), then launch with --retry-failed"

SLICES = "set tasks_per_node and gpus_per_node to 1 (a slice for each job), or ask for whole GPUs"  # the remedy where MIG cuts GPUs


class GpuMissing(RuntimeError):
    """A rank has no GPU of its own, although its job was promised one, or other ranks of its node have one."""


def own_device(local_rank: int, *, promised: bool = False) -> torch.device:
    """The rank's own GPU: number LOCAL_RANK, or the only GPU that SLURM shows to the task. Else the CPU, or GpuMissing if a GPU was `promised`."""
    if not torch.cuda.is_available():
        if promised:
            raise GpuMissing(why_no_gpu())
        os.environ["DS_ACCELERATOR"] = "cpu"
        return torch.device("cpu")
    os.environ["DS_ACCELERATOR"] = "cuda"
    visible = torch.cuda.device_count()
    if visible > 1 and local_rank >= visible:
        raise GpuMissing(f"local rank {local_rank} has no GPU on {socket.gethostname()}: {visible} are visible, and each rank has its own")
    device = torch.device("cuda", local_rank if visible > 1 else 0)
    torch.cuda.set_device(device)
    return device


def check_slices(ranks_of_node: int) -> None:
    """Raises GpuMissing if several ranks of a node would share a GPU that MIG cuts into slices: CUDA shows a process one slice, NCCL joins none."""
    slices = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip().startswith("MIG-")]
    if slices and ranks_of_node > 1:
        raise GpuMissing(f"{ranks_of_node} ranks of {socket.gethostname()} have slices of MIG, which NCCL cannot join: {SLICES}")


def check_own_gpus(store: Store, rank: int, world: int, gpu: str) -> None:
    """Raises GpuMissing on every rank if two ranks have the same GPU, which NCCL would refuse without naming it. `gpu`: this rank's, on its host.

    The ranks meet in torch's store, because NCCL cannot serve them yet: they all wait until every rank has said what it has.
    """
    store.set(f"gpu-{rank}", gpu)
    if rank == 0:
        gpus = [store.get(f"gpu-{other}").decode() for other in range(world)]
        shared = {gpu: [other for other, its in enumerate(gpus) if its == gpu] for gpu in gpus if gpus.count(gpu) > 1}
        store.set("shared-gpus", "; ".join(f"ranks {' and '.join(map(str, ranks))} share {gpu}" for gpu, ranks in shared.items()))
    if problem := store.get("shared-gpus").decode():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        remedy = "each rank needs a GPU of its own: ask for as many GPUs of a node as it has tasks, without binding all of them to one"
        raise GpuMissing(f"{problem}; CUDA_VISIBLE_DEVICES is {visible} here; {remedy}")


def gpu_name(device: torch.device) -> str:
    """The GPU's number that no other has, and its host."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid} of {socket.gethostname()}"


def why_no_gpu() -> str:
    """What torch, the environment and the driver say about GPUs that are not there."""
    asked = f"the job asks for GPUs and runs torch {torch.__version__}"
    if torch.version.cuda is None:
        return f"{asked}, {NO_CUDA_BUILD}"
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = "not set" if shown is None else repr(shown)
    return (
        f"{asked}, built for CUDA {torch.version.cuda}, which sees no GPU on {socket.gethostname()}: {refusal()}; CUDA_VISIBLE_DEVICES is {visible}; "
        f"nvidia-smi says: {nvidia_smi()}. A driver older than that CUDA, a GPU that is gone or a variable that hides it are the usual causes"
    )


def refusal() -> str:
    """torch's own reason for using no GPU."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch has no types for it
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0]
    return "torch gives no reason"


def nvidia_smi() -> str:
    """The driver's list of GPUs, on one line, or why there is none."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: it cannot be run"
    return "; ".join((done.stdout + done.stderr).split("\n")).strip("; ") or "nothing"
