"""Rules on the cells of a table: each kind of forgery is found by its own rule."""

from pathlib import Path

import pytest

from harness.check import check
from harness.review.evidence import Evidence
from jobs.experiment.run_folder import RunFolder
from tests.support.forgeries import Falsify, broken, cells, edit, forget

pytestmark = pytest.mark.slow
FORGERIES: dict[str, tuple[set[int], Falsify]] = {  # the rules that must be found broken, and how
    "other images": ({8}, lambda run: edit(cells(run, "random")[0], environment__data_sha256="0" * 64)),
    "fewer test images": ({8}, lambda run: edit(cells(run, "random")[0], metrics__test_samples=lambda n: n // 2)),
    "another version of torch": (
        {11},
        lambda run: edit(cells(run, "random")[0], environment__versions=lambda versions: versions | {"torch": "1.0"}),
    ),
    "no dense network": ({12}, lambda run: forget(run, lambda spec: spec["pruning"]["method"] == "dense")),
    "no random masks": ({12}, lambda run: forget(run, lambda spec: spec["pruning"]["method"] == "random")),
    "a bad seed left out": ({13}, lambda run: forget(run, lambda spec: spec["pruning"]["method"] == "magnitude" and spec["seed"] == 1)),
    "code that was edited between two cells, without a commit": ({14}, lambda run: edit(cells(run, "random")[0], environment__code="0" * 16)),
    "a copy of the code that was edited": ({14}, lambda run: next(run.glob("code/*/jobs/worker/cell.py")).write_text("# edited")),
    "other code for one method": ({14}, lambda run: edit(cells(run, "random")[0], environment__commit="0" * 40)),
    "an edited table": (
        {15},
        lambda run: (run / "leaderboard.csv").write_text((run / "leaderboard.csv").read_text().replace("magnitude", "ours", 1)),
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_is_found_by_its_rule(run: Path, forgery: str) -> None:
    rules, falsify = FORGERIES[forgery]
    falsify(run)
    assert rules <= broken(run, rules=rules)


def test_the_same_cell_with_two_results_is_found(run: Path, honest: Path) -> None:
    both = [RunFolder(honest), RunFolder(run)]
    assert not any(finding.weight == "fault" for finding in check(Evidence(runs=both), rules=[13]))
    edit(cells(run, "dense")[0], metrics__train_s=0.5)
    findings = check(Evidence(runs=both), rules=[13])
    assert any(finding.rule == 13 and "results that differ" in finding.text for finding in findings)
