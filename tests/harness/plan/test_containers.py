"""What the jobs of a grid see in their container, and what is refused before anything is queued."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.grid.read import Grid, read_grid
from harness.grid.yaml_source import GridError
from harness.plan.containers import container_problems, fixed_part, in_container
from harness.plan.gpu_checks import device_problems
from jobs.cluster.slurm import SchedulerError
from jobs.experiment.containers import LINKS, RECORDED
from jobs.experiment.files import sha256_of
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, DataSpec
from tests.support.cells import make_cell

GRID = """
name: t
models: [{name: vim_micro, pretrained: w.safetensors}]
pruning: [dense]
seeds: [0]
recipe: {epochs: 1}
cluster:
  kind: slurm
  cache: CACHE
"""


def read(tmp_path: Path, *lines: str) -> Grid:
    """The grid with these lines in its cluster."""
    (tmp_path / "w.safetensors").touch()
    (tmp_path / "grid.yaml").write_text(GRID.replace("CACHE", str(tmp_path / "cache")) + "".join(f"  {line}\n" for line in lines))
    return read_grid(tmp_path / "grid.yaml")


def image(tmp_path: Path) -> str:
    (tmp_path / "vssm.sif").write_text("an image")
    return f"container: {{image: {tmp_path}/vssm.sif, runtime: apptainer, mounts: MOUNTS}}"


def test_jobs_see_run_cache_code_and_weights_at_the_same_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/this/shell")
    data = DataSpec(source="imagefolder", path=str(tmp_path / "images"))
    (tmp_path / "images").mkdir()
    grid = read(tmp_path, image(tmp_path).replace("MOUNTS", f"['{tmp_path}/images:/data:ro']"), "environment: {A: b}")
    run = RunFolder(tmp_path / "runs" / "t")
    cluster = in_container(grid.cluster, run, [*grid.cells, make_cell(data=data)], run.path / "code" / "1")
    assert cluster.container and set(cluster.container.mounts) == {
        f"{tmp_path}/images:/data:ro",
        f"{tmp_path}/images:{tmp_path}/images:ro",
        f"{tmp_path}/cache:{tmp_path}/cache",
        f"{run.path}:{run.path}",
        f"{tmp_path}/w.safetensors:{tmp_path}/w.safetensors:ro",
    }
    assert cluster.environment == {
        "A": "b",
        "PYTHONPATH": str(run.path / "code" / "1"),
        "PYTHONSAFEPATH": "1",
        "TRITON_CACHE_DIR": f"{tmp_path}/cache/triton",
        RECORDED: f"apptainer {tmp_path}/vssm.sif sha256:{sha256_of(tmp_path / 'vssm.sif')}",
    }
    assert Path(cluster.cache).is_dir()


def test_a_run_folder_behind_a_link_is_seen_at_both_paths(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "real")
    grid = read(tmp_path, image(tmp_path).replace("MOUNTS", "[]"))
    cluster = in_container(grid.cluster, RunFolder(tmp_path / "runs" / "t"), [], tmp_path / "real" / "t" / "code")
    assert cluster.container
    assert {f"{tmp_path}/{name}/t:{tmp_path}/{name}/t" for name in ("runs", "real")} <= {*cluster.container.mounts}


def test_data_behind_a_link_is_seen_at_both_paths_and_jobs_know_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    grid = read(tmp_path, image(tmp_path).replace("MOUNTS", "[]"))
    cell = make_cell(data=DataSpec(source="imagefolder", path=str(tmp_path / "link")))
    cluster = in_container(grid.cluster, RunFolder(tmp_path / "runs"), [cell], tmp_path)
    assert cluster.container and f"{tmp_path}:{tmp_path}" in cluster.container.mounts, "the code's folder shows all"
    cluster = in_container(grid.cluster, RunFolder(tmp_path / "runs"), [cell], tmp_path / "runs" / "code")
    assert cluster.container and {f"{tmp_path}/{name}:{tmp_path}/{name}:ro" for name in ("link", "real")} <= {*cluster.container.mounts}
    assert json.loads(cluster.environment[LINKS]) == {f"{tmp_path}/link": f"{tmp_path}/real"}


def test_without_a_container_everything_is_as_it_was(tmp_path: Path) -> None:
    grid = read(tmp_path)
    assert in_container(grid.cluster, RunFolder(tmp_path), grid.cells, tmp_path) is grid.cluster and container_problems(grid.cluster) == []
    assert not (tmp_path / "cache").exists()


def test_a_mount_that_hides_the_run_ends_the_launch(tmp_path: Path) -> None:
    grid = read(tmp_path, image(tmp_path).replace("MOUNTS", f"['{tmp_path}:{tmp_path}/runs/t']"))
    with pytest.raises(SchedulerError, match=r"cluster\.container: .*the run needs"):
        in_container(grid.cluster, RunFolder(tmp_path / "runs" / "t"), [], tmp_path)
    grid = read(tmp_path, image(tmp_path).replace("MOUNTS", "[]"))
    with pytest.raises(SchedulerError, match="has a comma, colon"):
        in_container(grid.cluster, RunFolder(tmp_path / "a,b"), [], tmp_path)


def test_an_image_and_mounts_that_are_not_there_are_refused(tmp_path: Path) -> None:
    grid = read(tmp_path, image(tmp_path).replace("MOUNTS", f"[{tmp_path}/nowhere]"))
    assert container_problems(grid.cluster) == [
        f"cluster.container.mounts: {tmp_path}/nowhere: there is no {tmp_path}/nowhere to mount: make it, or correct its path"
    ]
    (tmp_path / "vssm.sif").unlink()
    assert f"cluster.container.image: {tmp_path}/vssm.sif is not there: build it" in container_problems(grid.cluster)[0]
    grid = read(tmp_path, "container: {image: 'python:3.11-slim', runtime: pyxis}")
    assert container_problems(grid.cluster) == []
    grid = read(tmp_path, f"container: {{image: 'python:3.11-slim', runtime: pyxis, mounts: ['{tmp_path}:{tmp_path}/w.safetensors']}}")
    assert "the run needs" in container_problems(grid.cluster, grid.cells)[0]


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ("{image: /a.sif, runtime: docker}", "container.runtime: unknown value 'docker'"),
        ("{image: /a.sif}", "container.runtime: missing"),
        ("{runtime: pyxis}", "container.image: missing"),
        ("/a.sif", "container: expected a mapping, such as"),
        ("{image: /a.sif, runtime: apptainer, mount: [/data]}", "container.mount: unknown field; did you mean 'mounts'?"),
        ("{image: /a.sif, runtime: apptainer, mounts: /data}", "container.mounts: expected a list of texts"),
        ("{image: /a.sif, runtime: apptainer, mounts: [data]}", "container: mounts: data: data is not absolute"),
        ("{image: $NO_SUCH/a.sif, runtime: apptainer}", "container: $NO_SUCH is not set on this machine"),
        ("{image: a.sif, runtime: apptainer}", "container: image: a.sif is not absolute"),
    ],
)
def test_mistakes_have_their_lines(tmp_path: Path, container: str, message: str) -> None:
    with pytest.raises(GridError) as refused:
        read(tmp_path, f"container: {container}")
    assert f"{tmp_path}/grid.yaml:10: cluster.{message}" in str(refused.value)


def test_variables_and_home_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SITE", "/site")
    grid = read(tmp_path, "container: {image: ~/a.sif, runtime: apptainer, mounts: ['$SITE/data:/data', /x]}")
    assert grid.cluster.container and (grid.cluster.container.image, grid.cluster.container.mounts) == ("/home/me/a.sif", ("/site/data:/data", "/x"))


def test_an_empty_key_is_no_container(tmp_path: Path) -> None:
    assert read(tmp_path, "container:").cluster.container is None


def test_packages_of_this_machine_say_nothing_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.version.cuda", None)
    cluster = ClusterSpec(kind="slurm", gpus_per_node=1)
    assert device_problems(cluster, [make_cell()])
    grid = read(tmp_path, "container: {image: x, runtime: pyxis}")
    assert device_problems(replace(cluster, container=grid.cluster.container), [make_cell()]) == []


@pytest.mark.parametrize(
    ("path", "folder"),
    [("/a/b", "/a/b"), ("/a/b-{00..31}.tar", "/a"), ("/a/*/b.parquet", "/a"), ("/a/b[0-9]", "/a"), ("/a/b?/c", "/a")],
)
def test_of_a_pattern_the_folder_around_it_is_mounted(path: str, folder: str) -> None:
    assert fixed_part(path) == folder
