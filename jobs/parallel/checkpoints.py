"""Sharded checkpoints of a stage: every rank writes its own file, and the folder gets its name only when all of them are on disk.

    checkpoints/step-000000120/rank-0.pt ...      complete
    checkpoints/.step-000000140/rank-0.pt ...     incomplete, because the stage was killed while writing

Checkpoints only serve to resume a stage. They hold tensors and plain values, so reading them never runs code (torch.load, weights_only).
"""

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.parallel.engine import Engine, Ranks
from jobs.parallel.fragments import Fragments

KEPT = 2
STEP = re.compile(r"step-(\d{9})")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or was written by another number of ranks."""


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], ranks: Ranks) -> None:
    """Writes every rank's `state` as the checkpoint of optimizer step `step`, and keeps the last two checkpoints. A collective.

    Raises CheckpointError on all ranks when a rank cannot write. The previous checkpoints stay as they are.
    """
    final = folder / f"step-{step:09d}"
    aside = folder / f".{final.name}"
    file = aside / f"rank-{ranks.rank}.pt"
    agree(attempt(lambda: make_empty(aside)) if ranks.rank == 0 else None, aside, ranks)
    failure = attempt(lambda: write_state(file, state))
    try:
        agree(failure, file, ranks)
    except CheckpointError:
        if ranks.rank == 0:
            shutil.rmtree(aside, ignore_errors=True)
        raise
    agree(attempt(lambda: publish(aside, final)) if ranks.rank == 0 else None, final, ranks)


def load_checkpoint(folder: Path, ranks: Ranks) -> tuple[int, dict[str, Any]] | None:
    """Step and this rank's state, on the CPU, of the newest checkpoint that every rank can read. None without such a checkpoint. A collective."""
    for step in ranks.broadcast(complete_steps(folder)):
        checkpoint = folder / f"step-{step:09d}"
        written = ranks.broadcast(len(list(checkpoint.glob("rank-*.pt"))))
        if written != ranks.world:
            remedy = f"run with {written}, or delete {folder} to start the stage again"
            raise CheckpointError(f"{checkpoint} was written by {written} ranks and this run has {ranks.world}: {remedy}")
        state = read_state(checkpoint / f"rank-{ranks.rank}.pt")
        if int(ranks.sum(torch.tensor(int(state is None), device=ranks.device))) == 0 and state is not None:
            return step, state
    return None


def drop_checkpoints(folder: Path, ranks: Ranks) -> None:
    """Removes all checkpoints of a stage. A collective."""
    ranks.barrier()
    if ranks.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)


# what is in them


def training_state(engine: Engine, fragments: Fragments) -> dict[str, Any]:
    """This rank's part of the state that the next step depends on: masters, moments, buffers, random generators.

    Masks and the weights under them are not included.
    """
    device = engine.ranks.device
    return {
        "masters": {name: fragment.master().clone() for name, fragment in fragments.by_name.items()},
        "moments": [dict(engine.optimizer.state[owner]) for owner in fragments.owners()],
        "groups": [{key: value for key, value in group.items() if key != "params"} for group in engine.optimizer.param_groups],
        "buffers": dict(engine.module.named_buffers()),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


@torch.no_grad()
def restore_training(engine: Engine, fragments: Fragments, state: dict[str, Any]) -> None:
    """Sets an engine that has not stepped to a `training_state`; a collective."""
    for name, master in state["masters"].items():
        fragments.by_name[name].master().copy_(master)
    fragments.write(fragments.weights())
    for owner, moments in zip(fragments.owners(), state["moments"], strict=True):
        engine.optimizer.state[owner] = {key: on_device_of(owner, value) for key, value in moments.items()}
    for group, saved in zip(engine.optimizer.param_groups, state["groups"], strict=True):
        group.update(saved)
    for name, buffer in engine.module.named_buffers():
        buffer.copy_(state["buffers"][name])
    torch.set_rng_state(state["rng"])
    if engine.ranks.device.type == "cuda":
        restore_gpu_generator(state["cuda_rng"], engine.ranks.device)


def restore_gpu_generator(saved: Tensor | None, device: torch.device) -> None:
    """Sets the generator of a GPU. A checkpoint of a CPU has no state of one: then the seed is the CPU generator's, so that a resumption repeats."""
    if saved is None:
        torch.cuda.manual_seed(torch.initial_seed())
    else:
        torch.cuda.set_rng_state(saved, device)


def on_device_of(owner: Tensor, value: Any) -> Any:
    """A saved moment on the device of its weight. Step counters stay on the CPU, where torch keeps them."""
    return value.to(owner.device) if isinstance(value, Tensor) and value.shape == owner.shape else value


# on disk


def complete_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints, newest first."""
    matches = [STEP.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def make_empty(aside: Path) -> None:
    """Makes the folder, without files that a killed attempt left there."""
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Writes a rank's file and syncs it to disk."""
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def read_state(path: Path) -> dict[str, Any] | None:
    """A rank's state; None where the file is damaged, because a disk can lose data that it has confirmed."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError):
        return None
    return state


def publish(aside: Path, final: Path) -> None:
    """Gives a written folder its name, and removes older checkpoints and incomplete ones."""
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    handle = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    for step in complete_steps(final.parent)[KEPT:]:
        shutil.rmtree(final.parent / f"step-{step:09d}", ignore_errors=True)
    for incomplete in final.parent.glob(".step-*"):
        shutil.rmtree(incomplete, ignore_errors=True)


# agreement of all ranks


def attempt(action: Callable[[], None]) -> Exception | None:
    """Runs `action` and returns its error. On a full disk, torch.save raises RuntimeError, and everything else OSError."""
    try:
        action()
    except (OSError, RuntimeError) as error:
        return error
    return None


def agree(failure: Exception | None, path: Path, ranks: Ranks) -> None:
    """Raises CheckpointError on every rank if any has failed."""
    failed = int(ranks.sum(torch.tensor(int(failure is not None), device=ranks.device)))
    if failure is not None:
        raise CheckpointError(f"cannot write {path}: {failure}. Free space there and start again: earlier checkpoints are whole") from failure
    if failed:
        raise CheckpointError(f"{failed} other rank(s) could not write to {path.parent}: see their logs; earlier checkpoints are whole")
