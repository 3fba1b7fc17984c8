"""What a status says of cells that a budget leaves out."""

from harness.monitor.budget import budget_notes
from harness.monitor.status_view import notes
from harness.monitor.survey import survey
from tests.support.runs import FakeRun


def test_a_status_tells_what_the_budget_leaves_out(fake: FakeRun) -> None:
    assert budget_notes(fake.run) == []
    path = fake.run.path / "budget.json"
    path.write_text('{"budget": "2h", "chosen": ["a", "b"], "left_out": ["c"], "unit": "core"}')
    assert budget_notes(fake.run) == ["the budget of 2h leaves out 1 of the grid's 3 cells, which are not shown here"]
    assert budget_notes(fake.run)[0] in notes(survey(fake.run))


def test_nothing_left_out_is_no_line_and_a_torn_file_is_one(fake: FakeRun) -> None:
    path = fake.run.path / "budget.json"
    path.write_text('{"budget": "2h", "chosen": ["a"], "left_out": []}')
    assert budget_notes(fake.run) == []
    path.write_text('{"budget": "2')
    assert budget_notes(fake.run)[0].startswith("the cells chosen for the run's budget are not known: ")
