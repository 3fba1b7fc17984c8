"""A launch is killed at every place where it changes a file, then run again: the same weights, one record, nothing left over.

The launch runs in one process. Python announces each operation on files to an audit hook before it happens; the hook kills its process at one that
changes something. Operations that differ in numbers and ids alone, such as those on the files of every checkpoint, are one place: launches are
killed at its first and its last. The files of the code's copy are one place too. A fork of a process that has imported everything saves seconds for
each launch.
"""

import importlib
import os
import random
import re
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from harness.launch import NOTHING_TO_DO, OK, main
from jobs.experiment.records import read_record
from jobs.recovery.leftovers import ASIDE

GRID = """
name: killed
data: {source: synthetic, samples: 48, classes: 2, loader: torch, img_size: 16}
recipe: {epochs: 2, finetune_epochs: 1, batch_size: 8, warmup_epochs: 0, ema: 0.9}
models: [{name: vim_micro, depth: 1, dim: 16}]
pruning: [dense, {method: magnitude, sparsity: 0.5}, {method: iterative_magnitude, rate: 0.5, rounds: 1, rewind_step: 2}]
seeds: [0]
cluster: {kind: debug, checkpoint_steps: 2, profile_s: 0.001, profile_batch: 2, cache: CACHE}
"""
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "os.symlink", "shutil.rmtree")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NUMBERS = re.compile(r"[0-9a-f]{32}|[0-9a-f]{12}|\d+")
COPIED = re.compile(r"(?<=/code/\.)[^/]+/(?!\.version).+")  # a file of the code's copy
PAIRS = 20  # launches that are killed twice, at places drawn once

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


class Kills:
    """An audit hook that counts the changes of files below a folder, and kills this process at one of them."""

    def __init__(self, folder: Path, at: int | None) -> None:
        self.prefix, self.at = f"{folder}/", at
        self.places: list[str] = []  # of all changes so far

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            changes = isinstance(arguments[2], int) and bool(arguments[2] & WRITING)
        else:
            changes = event in CHANGES
        path = os.fsdecode(arguments[0]) if changes and isinstance(arguments[0], str | bytes | os.PathLike) else ""
        path = os.path.join(self.prefix, path) if path else path  # relative ones are relative to the folder
        if not path.startswith(self.prefix):
            return
        self.places.append(NUMBERS.sub("#", COPIED.sub("copy/file", f"{event} {path.removeprefix(self.prefix)}")))
        if len(self.places) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def import_everything() -> None:
    """What a launch needs, so that its forks need not import it. No thread may start here: a fork has none of them."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    from jobs.parallel.engine import load_deepspeed

    for module in (
        "jobs.worker.job",
        "jobs.train.stage",
        "jobs.measure.profiling",
        "jobs.data.torch_loader",
        "models.registry",
        "harness.submit.local",
    ):
        importlib.import_module(module)
    load_deepspeed()


def in_a_fork(folder: Path, at: int | None) -> int:
    """Launches the grid in a fork that dies at the `at`-th change. The exit status of `waitpid`; folder.places has the places of all changes."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 70
    try:
        output = os.open(folder.parent / f"{folder.name}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # pytest has put its own in their stead
        os.chdir(folder)
        kills = Kills(folder, at)
        sys.addaudithook(kills)
        code = main([str(folder / "grid.yaml")])
        (folder.parent / f"{folder.name}.places").write_text("\n".join(kills.places))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def fresh(tmp_path: Path, name: str) -> Path:
    """A new folder with the grid; its cache is its own, so that a kill can meet the writing of the data."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "grid.yaml").write_text(GRID.replace("CACHE", str(folder / "cache")))
    return folder


def outcome(folder: Path) -> dict[str, tuple[Any, ...]]:
    """By label: what must not depend on a kill. One record a cell, and the weights' digest."""
    records = [read_record(path) for path in (folder / "runs" / "killed" / "cells").glob("*/record.json")]
    assert len({record.id for record in records}) == len(records) == 3
    return {record.pruning: (record.id, record.weights_sha256, record.metrics and record.metrics.top1) for record in records}


def leftovers(folder: Path) -> list[str]:
    """Files that only a process in the middle of its work should have."""
    names = {path: path.name for path in (folder / "runs").rglob("*")}
    return sorted(str(path.relative_to(folder)) for path, name in names.items() if name in (".export", "checkpoints") or ASIDE.fullmatch(name))


def check(tmp_path: Path, expected: dict[str, tuple[Any, ...]], name: str, places: tuple[int, ...]) -> list[str]:
    """What is wrong after a launch that is killed at these places, one after the other, and then left alone."""
    folder = fresh(tmp_path, name)
    try:
        for place in places:
            status = in_a_fork(folder, place)
            if os.WIFEXITED(status):  # the rest had fewer changes than that
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
        last = in_a_fork(folder, None)
        if not os.WIFEXITED(last) or os.WEXITSTATUS(last) not in (OK, NOTHING_TO_DO):
            return [f"{places}: the launch after the kill ended with {last}: {(tmp_path / f'{name}.out').read_text()[-2000:]}"]
        wrong = [] if outcome(folder) == expected else [f"{places}: {outcome(folder)} instead of {expected}"]
        return wrong + [f"{places}: left {left}" for left in leftovers(folder)]
    except Exception as error:
        return [f"{places}: {error!r}: {(tmp_path / f'{name}.out').read_text()[-2000:]}"]
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, tuple[Any, ...]], list[str]]:
    """The outcome of a launch that nobody kills, and the places of its changes."""
    import_everything()
    tmp_path = tmp_path_factory.mktemp("undisturbed")
    folder = fresh(tmp_path, "run")
    status = in_a_fork(folder, None)
    assert status == 0, (tmp_path / "run.out").read_text()
    return outcome(folder), (tmp_path / "run.places").read_text().splitlines()


def test_a_kill_at_every_place(tmp_path: Path, undisturbed: tuple[dict[str, tuple[Any, ...]], list[str]]) -> None:
    expected, changes = undisturbed
    first = {place: number for number, place in reversed([*enumerate(changes, 1)])}
    last = {place: number for number, place in enumerate(changes, 1)}
    numbers = sorted({*first.values(), *last.values()})
    assert len(numbers) > 50
    wrong = [line for number in numbers for line in check(tmp_path, expected, f"at-{number}", (number,))]
    assert not wrong, "\n".join(wrong)


def test_two_kills_one_after_the_other(tmp_path: Path, undisturbed: tuple[dict[str, tuple[Any, ...]], list[str]]) -> None:
    expected, changes = undisturbed
    generator = random.Random(0)
    pairs = [(generator.randint(1, len(changes)), generator.randint(1, len(changes))) for _ in range(PAIRS)]
    wrong = [line for number, pair in enumerate(pairs) for line in check(tmp_path, expected, f"pair-{number}", pair)]
    assert not wrong, "\n".join(wrong)
