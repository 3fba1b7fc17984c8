"""Rules on the cells of a table: each kind of forgery is found by its own rule."""

import json
from pathlib import Path

import pytest

from harness.check import check
from harness.review.evidence import Evidence
from jobs.experiment.run_folder import RunFolder
from tests.support.forgeries import Falsify, broken, cells, edit, forget
from tests.support.records import fake_environment, fake_record, fake_run

pytestmark = pytest.mark.slow


def digest(cell: Path) -> str:
    """The digest of a cell's weights, by its record."""
    return str(json.loads((cell / "record.json").read_bytes())["weights_sha256"])


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
    "one seed under the name of another": ({13}, lambda run: edit(cells(run, "random")[1], weights_sha256=digest(cells(run, "random")[0]))),
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


def test_a_set_whose_size_is_known_is_tested_whole(tmp_path: Path) -> None:
    records = [fake_record(100 * 300 / images, seed=images, test_samples=images) for images in (359, 310)]
    findings = check(Evidence(runs=[RunFolder(fake_run(tmp_path, records))]), rules=[8])
    assert "it was tested on 310 images, and digits has 359" in [finding.text for finding in findings]
    assert len([finding for finding in findings if "digits has" in finding.text]) == 1


def test_code_that_was_not_handed_on_is_noted(tmp_path: Path) -> None:
    records = [fake_record(90.0, seed=seed, environment=fake_environment(code="c" * 16)) for seed in range(2)]
    (note,) = check(Evidence(runs=[RunFolder(fake_run(tmp_path, records))]), rules=[14])
    assert note.weight == "note" and note.where.endswith(f"code/{'c' * 16}") and "no copy of the code" in note.text
