"""Python, packages and built parts."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.health import software
from harness.health.finding import Finding


def states(findings: Iterator[Finding]) -> list[str]:
    return [finding.state for finding in findings]


@pytest.mark.parametrize(("version", "state"), [((3, 10, 1), "error"), ((3, 11, 7), "ok"), ((3, 14, 0), "ok"), ((3, 15, 0), "warning")])
def test_a_python_that_was_not_tested_is_named(version: tuple[int, ...], state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    assert states(software.python_version()) == [state]


def test_versions_are_held_against_the_constraints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.13.0+cu130", "rich": "15.0", "numpy": "2.0"}
    monkeypatch.setattr(software, "installed", versions.get)
    monkeypatch.setattr(software, "needed", lambda: ["torch", "rich"])
    pinned = tmp_path / "constraints.txt"
    pinned.write_text("torch==2.13.0\nrich==14.0  # pinned\nnumpy==2.0\nabsent==1\n")
    (finding,) = software.packages(pinned)
    assert (finding.state, finding.text) == ("ok", "3 packages as tested; 1 other package in another version")
    versions["torch"] = "2.9.0"
    (finding,) = software.packages(pinned)
    assert finding.state == "warning" and "torch 2.9.0 (tested: 2.13.0)" in finding.text
    monkeypatch.setattr(software, "needed", lambda: ["torch", "gone"])
    assert states(software.packages(pinned)) == ["error", "warning"]
    assert states(software.packages(tmp_path / "nowhere")) == ["error", "warning"]


def test_this_environment_has_what_the_project_needs() -> None:
    assert "torch" in software.needed()
    assert states(software.packages())[-1] != "error"


def test_a_missing_or_broken_decoder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.data.decoding.library", lambda: None)
    assert states(software.built_parts())[0] == "warning"

    def broken() -> None:
        raise ImportError("built from another version of its source")

    monkeypatch.setattr("jobs.data.decoding.library", broken)
    assert next(software.built_parts()).state == "error"


def test_kernels_are_checked_and_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.ssm.backends.scan_backend_used", lambda device, scan: "cpu")
    monkeypatch.setattr("models.ssm.backends.missing_kernels", lambda device, scan: None)
    monkeypatch.setattr("models.ssm.check.fault_of", lambda backend, device: "the C++ kernels are refused: off by half")
    (finding,) = software.scan_kernels()
    assert finding.state == "error" and "off by half" in finding.text
    monkeypatch.setattr("models.ssm.check.fault_of", lambda backend, device: None)
    (finding,) = software.scan_kernels()
    assert finding.state == "ok" and "agrees with the reference" in finding.text
