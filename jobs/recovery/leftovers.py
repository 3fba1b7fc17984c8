"""What killed processes leave behind: files that they were writing aside, and checkpoints of stages that are done. They cost space alone."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from jobs.cluster.claims import claimed
from jobs.experiment.run_folder import CHECKPOINTS, UNFINISHED_EXPORT, RunFolder

ASIDE = re.compile(r"\..+\.[0-9a-f]{32}")  # as `jobs.experiment.files.written_aside` names them


def remove_asides(folder: Path) -> None:
    """Removes what was being written in a folder. The caller holds the claim by which this folder has no other writer."""
    if folder.is_dir():
        for name in os.listdir(folder):
            if ASIDE.fullmatch(name):
                (folder / name).unlink(missing_ok=True)


def remove_leftovers(run: RunFolder, stages: Iterable[str]) -> None:
    """Removes what a kill has left in the folders of these stages, unless a process works there. A stage that is done needs no checkpoint."""
    for stage in stages:
        folder = run.stage_dir(stage)
        useless = [folder / name for name in (CHECKPOINTS, UNFINISHED_EXPORT)] if run.done(stage) else []
        if not any(path.exists() for path in useless):
            continue
        with claimed(run.stage_claim(stage), wait=False) as alone:
            if alone:
                remove_asides(folder)
                for path in useless:
                    shutil.rmtree(path, ignore_errors=True)
