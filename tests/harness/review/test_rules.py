"""The list of rules."""

from pathlib import Path

import pytest

from harness.check import check
from harness.review.evidence import Evidence
from harness.review.rules import RULES
from jobs.experiment.run_folder import RunFolder


@pytest.mark.slow
def test_an_honest_run_breaks_no_rule(honest: Path) -> None:
    findings = check(Evidence(runs=[RunFolder(honest)]), evaluate=2, cache=str(honest.parents[1] / "cache"))
    assert [finding for finding in findings if finding.weight == "fault"] == []
    assert {rule for rule in RULES if not any(finding.rule == rule and finding.weight == "unchecked" for finding in findings)} >= set(RULES) - {14}


def test_the_page_has_the_rules_as_they_are() -> None:
    page = (Path(__file__).parents[3] / "docs" / "rules.md").read_text(encoding="utf-8")
    for number, rule in RULES.items():
        assert f"| {number} | {rule.text} | {rule.reason} |" in page
