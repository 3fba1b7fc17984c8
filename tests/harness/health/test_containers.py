"""What is said of a profile's container, with runtimes that the tests make up."""

from pathlib import Path

import pytest

from harness.health.containers import container
from jobs.experiment.specs import ClusterSpec, ContainerSpec


def states(tmp_path: Path, runtime: str, image: str, *mounts: str) -> list[tuple[str, str]]:
    spec = ContainerSpec(image=image, runtime=runtime, mounts=mounts)  # type: ignore[arg-type]
    return [(finding.state, finding.text) for finding in container(ClusterSpec(kind="slurm", container=spec))]


def command(folder: Path, name: str, lines: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
    (folder / name).chmod(0o755)


@pytest.fixture(autouse=True)
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of commands."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "vssm.sif").touch()
    return tmp_path


def test_there_is_nothing_to_say_without_one() -> None:
    assert [*container(ClusterSpec(kind="slurm"))] == []


def test_a_runtime_an_image_and_mounts_that_are_there(tmp_path: Path) -> None:
    command(tmp_path, "apptainer", "echo apptainer version 1.4.0")
    told = states(tmp_path, "apptainer", f"{tmp_path}/vssm.sif", str(tmp_path))
    assert told == [("ok", "apptainer version 1.4.0"), ("ok", f"{tmp_path}/vssm.sif, with 1 mount beside those of a run")]
    command(tmp_path, "srun", "echo '      --container-image=[USER@][REGISTRY#]IMAGE[:TAG]|PATH'")
    assert states(tmp_path, "pyxis", "python:3.11-slim")[0] == ("ok", "srun has pyxis")


@pytest.mark.parametrize("srun", ["echo --help", "exit 1", None])
def test_a_runtime_that_this_machine_lacks_may_be_on_the_nodes(tmp_path: Path, srun: str | None) -> None:
    if srun:
        command(tmp_path, "srun", srun)
    assert states(tmp_path, "pyxis", "python:3.11-slim")[0] == ("warning", "pyxis is not on this machine")
    assert states(tmp_path, "apptainer", f"{tmp_path}/vssm.sif")[0] == ("warning", "apptainer is not on this machine")


def test_an_image_and_a_mount_that_are_not_there_are_errors(tmp_path: Path) -> None:
    told = states(tmp_path, "apptainer", f"{tmp_path}/other.sif", f"{tmp_path}/nowhere:/data")
    assert [state for state, _ in told] == ["warning", "error", "error"]
    assert "image: " in told[1][1] and "there is no" in told[2][1]
