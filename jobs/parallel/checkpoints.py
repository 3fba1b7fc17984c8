"""Sharded checkpoints inside a stage: every rank writes its own file, and the folder appears under its name only when all of them are on disk.

    checkpoints/step-000000120/rank-0.pt ...      whole;   .step-000000140/ is one that a kill left half-written

They serve resuming alone and hold tensors and plain values, so that reading them never runs code (torch.load, weights_only).
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
    """A checkpoint cannot be written, or belongs to another number of ranks."""


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], ranks: Ranks) -> None:
    """Writes every rank's `state` as the checkpoint of optimizer step `step`; the last two are kept. A collective.

    Raises CheckpointError on all ranks where one of them cannot write; the checkpoints that stand are not touched.
    """
    final = folder / f"step-{step:09d}"
    aside = folder / f".{final.name}"
    file = aside / f"rank-{ranks.rank}.pt"
    _agree(_attempt(lambda: _fresh(aside)) if ranks.rank == 0 else None, aside, ranks)
    failure = _attempt(lambda: _write(file, state))
    try:
        _agree(failure, file, ranks)
    except CheckpointError:
        if ranks.rank == 0:
            shutil.rmtree(aside, ignore_errors=True)
        raise
    _agree(_attempt(lambda: _publish(aside, final)) if ranks.rank == 0 else None, final, ranks)


def load_checkpoint(folder: Path, ranks: Ranks) -> tuple[int, dict[str, Any]] | None:
    """Step and this rank's state of the newest checkpoint that every rank can read, on the CPU; None where there is none. A collective."""
    for step in ranks.broadcast(_steps(folder)):
        place = folder / f"step-{step:09d}"
        written = ranks.broadcast(len(list(place.glob("rank-*.pt"))))
        if written != ranks.world:
            remedy = f"run with {written}, or delete {folder} to start the stage again"
            raise CheckpointError(f"{place} was written by {written} ranks and this run has {ranks.world}: {remedy}")
        state = _read(place / f"rank-{ranks.rank}.pt")
        if int(ranks.sum(torch.tensor(int(state is None), device=ranks.device))) == 0 and state is not None:
            return step, state
    return None


def drop_checkpoints(folder: Path, ranks: Ranks) -> None:
    """Removes them all, once a stage is exported. A collective."""
    ranks.barrier()
    if ranks.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)


def training_state(engine: Engine, fragments: Fragments) -> dict[str, Any]:
    """This rank's own part of what the next step depends on, besides masks and weights under them: masters, moments, buffers, random numbers."""
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
    """Puts an engine that has not stepped where `training_state` was taken; a collective."""
    for name, master in state["masters"].items():
        fragments.by_name[name].master().copy_(master)
    fragments.write(fragments.weights())
    for owner, moments in zip(fragments.owners(), state["moments"], strict=True):
        engine.optimizer.state[owner] = {key: _on_device_of(owner, value) for key, value in moments.items()}
    for group, saved in zip(engine.optimizer.param_groups, state["groups"], strict=True):
        group.update(saved)
    for name, buffer in engine.module.named_buffers():
        buffer.copy_(state["buffers"][name])
    torch.set_rng_state(state["rng"])
    if engine.ranks.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda_rng"], engine.ranks.device)


def _on_device_of(owner: Tensor, value: Any) -> Any:
    """A saved moment beside its weight; step counters stay on the CPU, where torch keeps them."""
    return value.to(owner.device) if isinstance(value, Tensor) and value.shape == owner.shape else value


def _steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that were renamed into place, newest first."""
    found = [STEP.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(match[1]) for match in found if match), reverse=True)


def _fresh(aside: Path) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)


def _write(path: Path, state: dict[str, Any]) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> dict[str, Any] | None:
    """None where the file is torn: a disk can lose what it said it had."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError):
        return None
    return state


def _publish(aside: Path, final: Path) -> None:
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    handle = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    for step in _steps(final.parent)[KEPT:]:
        shutil.rmtree(final.parent / f"step-{step:09d}", ignore_errors=True)
    for torn in final.parent.glob(".step-*"):
        shutil.rmtree(torn, ignore_errors=True)


def _attempt(action: Callable[[], None]) -> Exception | None:
    """What stopped `action`. torch.save says RuntimeError for a disk that is full, the rest OSError."""
    try:
        action()
    except (OSError, RuntimeError) as error:
        return error
    return None


def _agree(failure: Exception | None, path: Path, ranks: Ranks) -> None:
    """Raises CheckpointError on every rank if one has failed."""
    failed = int(ranks.sum(torch.tensor(int(failure is not None), device=ranks.device)))
    if failure is not None:
        raise CheckpointError(f"cannot write {path}: {failure}. Free space there and start again: earlier checkpoints are whole") from failure
    if failed:
        raise CheckpointError(f"{failed} other rank(s) could not write their part of {path.parent}: see their logs; earlier checkpoints are whole")
