"""Weights that a stage keeps at some of its steps, for stages that rewind to them. No torch: the launcher asks which are missing.

rewind-000000100.safetensors    weights after step 100: in the stage's folder while it trains, in its export afterwards
rewind-000000100.refused        in the export: the reason why these weights cannot be made again
replay.todo                     the finished stage must be trained again, up to a step that it has not kept; it is not done until then
replay-100/                     this second training
"""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from jobs.experiment.files import written_aside
from jobs.experiment.run_folder import EXPORT, METRICS, REPLAY_TODO, RESULT

NAME = re.compile(r"rewind-(\d{9})\.safetensors")


def rewind_name(step: int) -> str:
    """The name of the file with the weights after a step."""
    return f"rewind-{step:09d}.safetensors"


def kept_steps(folder: Path) -> dict[int, Path]:
    """The files of weights in a folder by step, in ascending sequence."""
    files = {int(match[1]): path for path in folder.glob("rewind-*") if (match := NAME.fullmatch(path.name))}
    return dict(sorted(files.items()))


def missing_steps(folder: Path, steps: Iterable[int]) -> tuple[int, ...]:
    """Those of `steps` that the finished stage in `folder` has made but not kept, and that are not refused."""
    export = folder / EXPORT
    made = json.loads((export / RESULT).read_bytes())["steps"]
    kept = kept_steps(export)
    return tuple(step for step in steps if step <= made and step not in kept and not refusal(export, step).exists())


def refusal(export: Path, step: int) -> Path:
    """The file with the reason why the weights after a step cannot be made again."""
    return (export / rewind_name(step)).with_suffix(".refused")


def ask_for_replay(folder: Path) -> None:
    """Marks a finished stage as not done, so that it is trained again."""
    (folder / REPLAY_TODO).touch()


def replay_folder(folder: Path, steps: Iterable[int]) -> Path:
    """The folder in which a finished stage is trained again to keep these steps."""
    return folder / f"replay-{'-'.join(map(str, steps))}"


def adopt_replay(folder: Path, steps: tuple[int, ...]) -> None:
    """Moves the weights that a replay kept into the export, or writes down where the replay differs from the stage; then removes the replay."""
    export, replay = folder / EXPORT, replay_folder(folder, steps)
    difference = first_difference(folder / METRICS, replay / METRICS)
    for step in steps:
        if difference is None:
            (replay / rewind_name(step)).replace(export / rewind_name(step))
        else:
            with written_aside(refusal(export, step)) as aside:
                remedy = f"delete this file and launch with --retry-failed on that machine, or remove {folder} to train the stage anew"
                text = f"trained again, the stage is not what it was on its first machine: {difference}; {remedy}\n"
                aside.write_text(text, encoding="utf-8", errors="backslashreplace")
    for done in folder.glob("replay-*"):
        shutil.rmtree(done)


def first_difference(recorded: Path, again: Path) -> str | None:
    """The first epoch in which two trainings differ, as text; None if every epoch of the second is in the first, bit for bit."""
    before = epochs_of(recorded)
    for epoch, values in epochs_of(again).items():
        if before.get(epoch) != values:
            return f"loss, val_loss and val_top1 of epoch {epoch} were {before.get(epoch, 'not recorded')} and are {values}"
    return None


def epochs_of(path: Path) -> dict[int, tuple[float, ...]]:
    """Training loss, validation loss and accuracy of every epoch in a metrics.jsonl; empty without the file."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return {line["epoch"]: (line["loss"], line["val_loss"], line["val_top1"]) for line in lines if line["event"] == "epoch"}
