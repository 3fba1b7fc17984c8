"""What is read of run folders."""

from pathlib import Path

import pytest

from harness.review.evidence import Evidence, title
from jobs.experiment.run_folder import RunFolder
from tests.support.runs import FakeRun

pytestmark = pytest.mark.slow


def test_cells_of_one_grid_are_one_table_with_rows_of_several_seeds(honest: Path) -> None:
    evidence = Evidence(runs=[RunFolder(honest)])
    (table,) = evidence.tables()
    assert len(table) == 10 and len({cell.row for cell in table}) == 5 and len({cell.model for cell in table}) == 1
    assert title(table) == "the table of honest on synthetic"


def test_failed_cells_are_held_and_not_measured(fake: FakeRun) -> None:
    fake.record(fake.paths[0])
    fake.run.record_path(fake.paths[1].cell.id).parent.mkdir(parents=True)
    fake.run.record_path(fake.paths[1].cell.id).write_text("{")
    evidence = Evidence(runs=[fake.run])
    assert len(evidence.held) == 1 and len(evidence.unreadable) == 1
