"""Images and mounts of a profile: what is taken, what is refused, and which mounts a job gets."""

import json
import os
from itertools import permutations
from pathlib import Path

import pytest

from jobs.experiment.containers import (
    LINKS,
    Mount,
    arranged,
    container_conflicts,
    covered,
    image_problem,
    is_file,
    links_of,
    parsed_mount,
    real_path,
    same_path,
)
from jobs.experiment.specs import ClusterSpec, ContainerSpec

SIF = "/shared/vssm.sif"


def of(image: str = SIF, runtime: str = "apptainer", mounts: tuple[str, ...] = ()) -> ContainerSpec:
    return ContainerSpec(image=image, runtime=runtime, mounts=mounts)  # type: ignore[arg-type]


def conflicts(container: ContainerSpec, **fields: object) -> dict[str, str]:
    """What is wrong, by field."""
    return dict(container_conflicts(ClusterSpec(**{"kind": "slurm", "container": container, **fields})))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("/data", "/data:/data"),
        ("/data:/mnt", "/data:/mnt"),
        ("/data:/mnt:ro", "/data:/mnt:ro"),
        ("/data/:/mnt/:rw", "/data:/mnt"),
        ("/a b", "/a b:/a b"),
    ],
)
def test_a_mount_is_written_as_both_runtimes_take_it(text: str, written: str) -> None:
    assert str(parsed_mount(text)) == written and parsed_mount(written) == parsed_mount(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data:/data", "data is not absolute"),
        ("./data", "./data is not absolute"),
        ("/data:data", "data is not absolute"),
        ("~/data:/data", "~/data is not absolute"),
        ("/a,/b", "has a comma"),
        ("/a:/b:wo", "expected SOURCE"),
        ("/a:/b:ro:x", "expected SOURCE"),
        ("", "expected SOURCE"),
        (":/b", "expected SOURCE"),
        ("/a:", "expected SOURCE"),
        ("/a:/", "the image itself is at /"),
        ("/a\n/b", "line break"),
    ],
)
def test_what_is_no_mount_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parsed_mount(text)


@pytest.mark.parametrize(
    ("image", "runtime", "reason"),
    [
        (SIF, "apptainer", None),
        ("/shared/sandbox", "apptainer", None),
        ("vssm.sif", "apptainer", "is not absolute"),
        ("docker://python:3.11", "apptainer", "apptainer build vssm.sif docker://python:3.11"),
        ("", "apptainer", "is empty"),
        ("/a b.sif", "apptainer", "has a blank"),
        ("/shared/vssm.sqsh", "pyxis", None),
        ("python:3.11-slim", "pyxis", None),
        ("nvidia/cuda:13.0.0-base-ubuntu24.04", "pyxis", None),
        ("docker://python:3.11", "pyxis", None),
        ("oras://me/vssm", "pyxis", "enroot imports docker://"),
        ("./vssm.sqsh", "pyxis", "is not absolute"),
        ("vssm.sqsh", "pyxis", "is not absolute"),
        (SIF, "pyxis", "is a file of apptainer's"),
    ],
)
def test_an_image_is_what_its_runtime_takes(image: str, runtime: str, reason: str | None) -> None:
    problem = image_problem(of(image, runtime))
    assert problem is None if reason is None else reason in (problem or "")
    assert is_file(of(image, runtime)) == (runtime == "apptainer" or "/shared" in image or image.endswith((".sqsh", ".sif")))


@pytest.mark.parametrize(
    "line",
    ["module load python", "module load gcc; module add Anaconda3/2024", "source /x/.venv/bin/activate", ". venv/bin/activate", "conda activate v"],
)
def test_a_line_that_chooses_a_python_has_no_effect_inside_and_is_refused(line: str) -> None:
    assert "the image's own does" in conflicts(of(), setup=(line,))["setup"]


def test_other_lines_and_variables_stay() -> None:
    assert conflicts(of(), setup=("module load apptainer", "ulimit -n 4096", "cp python.tar /tmp"), environment={"NCCL_DEBUG": "INFO"}) == {}
    assert "PATH would hide" in conflicts(of(), environment={"PATH": "/x"})["environment"]


def test_a_container_is_of_slurm_and_is_given_once() -> None:
    assert "kind: local" in conflicts(of(), kind="local")["container"]
    assert "srun_args" in conflicts(of(), slurm={"srun_args": ["--container-image=x"]})["container"]
    assert "use_srun" in conflicts(of("x", "pyxis"), slurm={"use_srun": False})["container"] and not conflicts(of(), slurm={"use_srun": False})
    assert "/data is mounted there too" in conflicts(of(mounts=("/data", "/other:/data")))["container"]
    assert [*container_conflicts(ClusterSpec())] == []


def test_a_nodes_own_disk_is_mounted_where_it_is_used() -> None:
    assert "mount the node's disk" in conflicts(of(), cache_local="/scratch/me")["cache_local"]
    assert "cache_local" in conflicts(of(mounts=("/scratch",)), cache_local="$TMPDIR/me")
    assert not conflicts(of(mounts=("/scratch",)), cache_local="/scratch/me")
    assert covered("/scratch/me", ["no mount", "/a", "/scratch"]) and not covered("/scratch/me", ["/scratch:/scratch:ro"])


def seen(mounts: tuple[Mount, ...], path: str) -> tuple[str, bool]:
    """The file of this machine at a path inside, and whether it can only be read: by doing one mount after the other."""
    content, read_only = f"image:{path}", True
    for mount in mounts:
        if path == mount.target or path.startswith(mount.target + "/"):
            content, read_only = os.path.normpath(mount.source + path[len(mount.target) :]), mount.read_only
    return content, read_only


NEEDED = (
    same_path("/data/me/runs/small"),
    same_path("/data/sets", read_only=True),
    same_path("/data/sets/imagenet", read_only=True),
    same_path("/data/me/cache"),
    same_path("/w.safetensors", read_only=True),
)


@pytest.mark.parametrize("own", [(), ("/data",), ("/data:/data:ro",), ("/elsewhere:/data/sets",), ("/data/me:/home",), ("/x:/data/me:ro", "/y:/w")])
@pytest.mark.parametrize("turn", range(3))
def test_whatever_a_profile_mounts_a_job_sees_what_it_needs_and_can_write_where_it_must(own: tuple[str, ...], turn: int) -> None:
    needed = [*permutations(NEEDED)][37 * turn]
    if own == ("/elsewhere:/data/sets",):
        with pytest.raises(ValueError, match="the run needs /data/sets there"):
            arranged(map(parsed_mount, own), needed)
        return
    mounts = arranged(map(parsed_mount, own), needed)
    for mount in needed:
        content, read_only = seen(mounts, f"{mount.target}/file")
        assert content == f"{mount.source}/file" and (mount.read_only or not read_only)
    assert len(mounts) == len({mount.target for mount in mounts}) and {*map(parsed_mount, own)} <= {*mounts}


def test_nothing_is_mounted_twice() -> None:
    assert arranged([], [same_path("/a/b"), same_path("/a"), same_path("/a/b/c", read_only=True)]) == (same_path("/a"),)
    assert arranged([parsed_mount("/a")], [same_path("/a/b")]) == (same_path("/a"),)
    with pytest.raises(ValueError, match="leave :ro out"):
        arranged([parsed_mount("/a:/a:ro")], [same_path("/a")])


def test_a_link_that_is_mounted_as_a_folder_leads_where_it_led_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LINKS, raising=False)
    (tmp_path / "real" / "train").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    mounts = [same_path(tmp_path / "link"), same_path(tmp_path / "real"), parsed_mount(f"{tmp_path}/link:/data")]
    assert links_of(mounts) == {f"{tmp_path}/link": f"{tmp_path}/real"}
    outside = real_path(tmp_path / "link" / "train")
    monkeypatch.setenv(LINKS, json.dumps(links_of(mounts)))
    (tmp_path / "link").unlink()  # as inside, where it is a folder
    (tmp_path / "link" / "train").mkdir(parents=True)
    assert real_path(tmp_path / "link" / "train") == outside == f"{tmp_path}/real/train"
    assert real_path(tmp_path / "link") == f"{tmp_path}/real" and real_path(tmp_path / "linked") == f"{tmp_path}/linked"
