"""The command: what it prints, and its exit codes."""

import json
import shutil
from pathlib import Path

import pytest

from harness import doctor
from harness.doctor import main
from harness.health.finding import Finding, error, ok, warning
from jobs.experiment.specs import ClusterSpec
from tests.support.fake_slurm import FakeSlurm


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What is found; the tests of harness.health look for real."""
    found = [ok("python", "Python 3.11"), warning("queue", "full", "wait")]
    monkeypatch.setattr(doctor, "here", lambda cluster, runs: iter(found))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return found


def test_warnings_leave_it_ready_and_errors_do_not(findings: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok       python: Python 3.11",
        "warning  queue: full",
        "         -> wait",
        "ready: 0 errors, 1 warning",
    ]
    findings.append(error("runs", "cannot be written", "name another"))
    assert main(["--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out).values()
    assert [each["state"] for each in told] == ["ok", "warning", "error"]


def test_a_profile_or_the_cluster_of_a_grid_is_read(tmp_path: Path, findings: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    profile, grid = tmp_path / "gpu.yaml", tmp_path / "grid.yaml"
    profile.write_text("kind: slurm\ngpus_per_node: 4\ntasks_per_node: 4\n")
    assert doctor.cluster_of(str(profile)).gpus_per_node == 4
    grid.write_text("name: a\nmodels: [vim_micro]\ncluster: gpu.yaml\n")
    assert doctor.cluster_of(str(grid)).kind == "slurm"
    assert doctor.file_of(str(grid)) == doctor.file_of(str(profile)) == profile
    profile.write_text("kind: slurm\ngpus_per_nod: 4\n")
    assert main([str(profile)]) == 2 and "unknown key" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere.yaml")]) == 2


def test_a_job_is_looked_at_from_within_one(findings: list[Finding], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--job"]) == 2
    assert "salloc" in capsys.readouterr().err


def test_nodes_look_for_a_mark_in_the_cache_only_where_one_could_be_left(tmp_path: Path, slurm: FakeSlurm) -> None:
    shutil.copy(slurm.folder / "squeue", slurm.folder / "srun")
    for cache in (str(tmp_path), "/proc/cache"):
        doctor.of_all_nodes(ClusterSpec(kind="slurm", cache=cache), None, tmp_path / "runs")
    marked, unmarked = slurm.calls("srun")
    assert "--mark .doctor-" in marked and "--mark" not in unmarked
    assert not [finding for finding in doctor.of_a_node(ClusterSpec(cache="/proc/cache"), tmp_path, None) if "login node" in finding.text]


def test_what_was_found_is_kept_when_a_look_fails() -> None:
    def looks() -> "object":
        yield ok("python", "Python 3.11")
        raise RuntimeError("no such device")

    first, second = doctor.collected(looks())  # type: ignore[arg-type]
    assert first.state == "ok" and second.state == "error" and "no such device" in second.text


def test_the_entries_of_a_grid_are_looked_at_but_not_those_of_a_profile_or_of_a_grid_with_mistakes(tmp_path: Path) -> None:
    grid, text = tmp_path / "grid.yaml", "name: a\nseeds: [0]\npruning: [dense]\nmodels: [{name: vim_micro, cluster: {nodes: 2}}]\n"
    grid.write_text(text + "cluster: {kind: slurm}\n")
    assert doctor.sizes_in(str(grid)) == [(f"{grid}:4: models[0]", ClusterSpec(kind="slurm", nodes=2))]
    grid.write_text(text + "cluster: {kind: slurm}\nmodls: 3\n")
    assert doctor.sizes_in(str(grid)) == [] == doctor.sizes_in("slurm/gpu.yaml") == doctor.sizes_in(None)
