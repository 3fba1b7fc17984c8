"""The runs of a verification: which seeds, in which folder, by which code; and the file that is left of them.

<run>/verified/<cell>/    lock                   claimed while a verification of the cell works
                          unfinished-<hash>/     its runs, as a run folder; a kill leaves it, and the next verification here goes on from it
                          <moment>-<hash>.json   what is left in the end
"""

import hashlib
import json
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.review.again import NotRunError, records_in, run_again, run_by_copy, with_seed
from harness.review.evidence import Evidence, Measured
from jobs.data.beton import DataError
from jobs.data.prepare import prepare
from jobs.experiment.cell import Cell
from jobs.experiment.files import write_json
from jobs.experiment.plugins import load_copies
from jobs.experiment.records import Record, RecordError, read_as
from jobs.experiment.run_folder import STAGES, RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.experiment.verification import Verification
from jobs.worker.code_copy import code_id, digest_of
from jobs.worker.environment import cpu_name, package_versions
from models.plugins.content import PluginError

VERDICT = "verdict.json"  # of an unfinished folder: it has come to its end, and only has to be moved
UNFINISHED, OVER = "unfinished-", ".over."
HASH = 6
OTHER_IMAGES = "the images here are others than those that the recorded run saw: their content hash differs"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A recorded cell that is to run again."""

    run: RunFolder
    path: Path  # of its record
    record: Record

    def row(self) -> dict[int, Record]:
        """The records that differ from this one in the seed alone, of the same machine and measuring, by seed; this one among them.

        Raises NotRunError for a record without numbers.
        """
        measured = Evidence(runs=[self.run]).measured
        own = next((held for held in measured if held.path == self.path), None)
        if own is None:
            raise NotRunError(f"{self.path} is of a cell that is done, and has no numbers: the record was changed")
        return {held.record.seed: held.record for held in reversed(measured) if same_row(held, own)} | {self.record.seed: self.record}

    def copy(self) -> Path | None:
        """The kept copy of the code of the recorded run; None if there is none, or if it is the code here. Raises NotRunError for a changed one."""
        code = self.record.environment.code
        if code is None or not code.isalnum() or code == code_id() or not (copy := self.run.code_dir / code).is_dir():
            return None
        if digest_of(copy) != code:
            raise NotRunError(f"{copy} was changed after the launch, so it is not the code of the recorded run; --code here takes the code here")
        return copy


def same_row(first: Measured, second: Measured) -> bool:
    """True for cells of one line of a leaderboard."""
    return first.row == second.row and first.table == second.table


def seeds_to_run(own: int, row: Mapping[int, Record], count: int) -> list[int]:
    """`count` seeds: the cell's own, the other recorded ones, then new ones."""
    new = max(row) + 1
    return [own, *(seed for seed in sorted(row) if seed != own), *range(new, new + count)][:count]


def unfinished(parent: Path, subject: Subject, copy: Path | None) -> Path:
    """The folder for runs with this code on this machine. Runs of other code, and of another machine, are not mixed with them."""
    surroundings = [copy.name if copy else code_id(), sys.version, cpu_name(), package_versions(), subject.record.environment.threads]
    return parent / f"{UNFINISHED}{short_hash(json.dumps(surroundings))}"


def short_hash(text: str) -> str:
    """A few characters that tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:HASH]


def runs_of(subject: Subject, seeds: list[int], folder: Path, copy: Path | None, report: Callable[[str], None]) -> Iterator[Record]:
    """The records of runs with these seeds, in `folder`; those that are there are not run again. Raises NotRunError."""
    forget_failures(folder)
    done = {record.seed: record for record in records_in(folder) if record.metrics is not None}
    for number, seed in enumerate(seeds, 1):
        report(f"run {number} of {len(seeds)}: seed {seed}" + (", kept from a verification that was stopped" if seed in done else ""))
        record = done.get(seed) or (run_by_copy(copy, subject.path, seed, folder) if copy else run_here(subject, seed, folder))
        if record.metrics is None:
            why = f"{record.failure.kind}: {record.failure.message}" if record.failure else "unknown"
            raise NotRunError(f"seed {seed} has no numbers here, so there is nothing to compare: {why}")
        if record.environment.data_sha256 != subject.record.environment.data_sha256:  # a copy of the code reads its images itself
            shutil.rmtree(folder)
            raise NotRunError(OTHER_IMAGES)
        yield record


def forget_failures(folder: Path) -> None:
    """Lets runs that failed in a verification before run again."""
    run = RunFolder(folder)
    run.forget_failures([path.name for path in (folder / STAGES).glob("*")], [path.parent.name for path in run.record_paths()])


def run_here(subject: Subject, seed: int, folder: Path) -> Record:
    """The record of a run with a seed, by the code of this process. Raises NotRunError where the cell or its images are not known here."""
    record = Record.model_validate(with_seed(json.loads(subject.path.read_bytes()), seed))
    try:
        load_copies(subject.run, record.spec)
        images = prepare(Cell.from_json(record.spec).data, Path(ClusterSpec().cache))
    except (PluginError, DataError, KeyError, ValueError) as error:
        raise NotRunError(f"it cannot run here: {error}") from error
    if images.sha256 != record.environment.data_sha256:
        raise NotRunError(OTHER_IMAGES)
    try:
        return run_again(record, folder)
    except FileNotFoundError as error:
        raise NotRunError(f"seed {seed} left no record: {error}") from error


def keep(folder: Path, verification: Verification) -> Path:
    """The file of a verification whose runs are in `folder`, which is removed."""
    write_json(folder / VERDICT, verification.model_dump(mode="json"))
    path = moved(folder)
    assert path is not None
    return path


def moved(folder: Path) -> Path | None:
    """The file of a verification that has ended in `folder`, which is removed; None for one that has not. A kill loses and doubles nothing."""
    try:
        verification = read_as(Verification, folder / VERDICT)
    except (FileNotFoundError, RecordError):
        return None
    path = folder.parent / f"{moment(verification)}-{short_hash(verification.model_dump_json())}.json"
    write_json(path, verification.model_dump(mode="json"))
    over = folder.with_name(f"{OVER}{uuid.uuid4().hex}")
    folder.rename(over)
    shutil.rmtree(over, ignore_errors=True)
    return path


def moment(verification: Verification) -> str:
    """When it ended, as file systems take it: 20261128T190311Z."""
    return verification.finished.replace("-", "").replace(":", "").replace("+0000", "Z")


def tidy(parent: Path) -> list[Path]:
    """Completes what a kill interrupted after a verification had come to its end; returns the files that it left."""
    for over in parent.glob(f"{OVER}*"):
        shutil.rmtree(over, ignore_errors=True)
    return [path for folder in sorted(parent.glob(f"{UNFINISHED}*")) if (path := moved(folder))]
