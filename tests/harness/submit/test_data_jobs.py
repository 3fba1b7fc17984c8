"""The SLURM jobs that write data, and the trainings that wait for them. tests/slurm/test_data_first.py runs them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.grid.read import Grid
from harness.monitor.data_sets import data_notes
from harness.plan.snapshot import save_plugins
from harness.submit.data_first import data_sets, written_here
from harness.submit.data_jobs import data_cluster, submit_data
from harness.submit.slurm import submit_arrays
from jobs.cluster.slurm_arrays import submission
from jobs.data.prepare import data_folder, prepare
from jobs.experiment.ids import JobId
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, DataSpec, PrepareSpec
from jobs.worker.data_job import failure_path
from models.plugins.tables import forget_rows
from tests.harness.submit.test_slurm import dependencies
from tests.support import plugins
from tests.support.fake_slurm import FakeSlurm
from tests.support.grids import read
from tests.support.images import write_folder
from tests.support.jobs import jobs_of, small_grid

GPUS = ClusterSpec(
    kind="slurm",
    nodes=2,
    tasks_per_node=4,
    cpus_per_task=8,
    gpus_per_node=4,
    mem_gb=128,
    slurm={"partition": "gpu", "account": "a", "constraint": "a100", "gres": "gpu:4", "exclusive": True},
    prepare=PrepareSpec(jobs=3, slurm={"partition": "cpu"}),
)


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Six cells on a folder of images, on SLURM."""
    for part in ("train", "val"):
        write_folder(tmp_path / "images" / part, count=8)
    data = DataSpec(source="imagefolder", path=str(tmp_path / "images"), img_size=32, loader="torch", name="images")
    grid = small_grid(tmp_path)
    cells = tuple(replace(cell, data=data) for cell in grid.cells)
    return replace(grid, cells=cells, cluster=replace(GPUS, cache=str(tmp_path / "cache")))


def test_a_job_that_writes_data_asks_for_no_gpu_and_keeps_only_what_concerns_it(tmp_path: Path) -> None:
    cluster = data_cluster(GPUS)
    script = submission(cluster, tmp_path, [0, 1, 2], name="prepare")
    assert "gpu" not in script and "a100" not in script and "exclusive" not in script and not cluster.promised_gpus
    for line in ("--partition=cpu", "--account=a", "--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=32", "--mem=131072MB", "--array=0-2"):
        assert f"#SBATCH {line}" in script
    small = data_cluster(replace(GPUS, prepare=PrepareSpec(cpus_per_task=2, mem_gb=4, timeout_min=60)))
    assert (small.cpus_per_task, small.mem_gb, small.timeout_min, small.slurm["partition"]) == (2, 4, 60, "gpu")


def test_first_trainings_wait_for_the_array_and_later_ones_for_their_parents(grid: Grid, tmp_path: Path, slurm: FakeSlurm) -> None:
    run = RunFolder(tmp_path / "run")
    slurm.says("sbatch", "Submitted batch job 20")
    data_jobs = submit_data(grid.cluster, run, data_sets(grid.cells))
    assert set(data_jobs.values()) == {JobId(number=20)}
    (note,) = data_notes(run)
    assert note.startswith("images: SLURM job 20 writes it before")
    jobs, _ = jobs_of(grid, run)
    slurm.says("sbatch", "Submitted batch job 21")
    submit_arrays(grid.cluster, run, jobs, {}, data_jobs)
    first, *rest = dependencies(run.jobs_dir)
    assert first == "" and rest[0] == "afterok:20" and all("20" not in wait for wait in rest[1:]) and all(rest)


def test_a_job_that_writes_the_data_already_is_waited_for_and_none_is_submitted_again(
    grid: Grid, tmp_path: Path, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.says("sbatch", "Submitted batch job 20")
    data = data_sets(grid.cells)
    submit_data(grid.cluster, RunFolder(tmp_path / "run"), data)
    slurm.says("squeue", "COMPLETED", "PENDING")
    assert set(submit_data(grid.cluster, RunFolder(tmp_path / "another"), data).values()) == {JobId(number=20)}
    assert "images: SLURM job 20 writes it already; the trainings wait for it" in capsys.readouterr().out
    slurm.says("squeue", "FAILED")
    folder = data_folder(data[0], Path(grid.cluster.cache), False)
    assert folder is not None
    failure_path(folder).write_text(json.dumps({"message": "the disk was full"}))
    slurm.says("sbatch", "Submitted batch job 30")
    assert set(submit_data(grid.cluster, RunFolder(tmp_path / "run"), data).values()) == {JobId(number=30)}
    assert "images: it could not be written before: the disk was full" in capsys.readouterr().out
    assert len(slurm.calls("sbatch")) == 2


def test_nothing_is_submitted_for_data_that_is_written(grid: Grid, tmp_path: Path, slurm: FakeSlurm) -> None:
    data = data_sets(grid.cells)
    prepare(data[0], Path(grid.cluster.cache))
    assert submit_data(grid.cluster, RunFolder(tmp_path / "run"), data) == {} and not slurm.calls("sbatch")


@pytest.mark.parametrize(
    ("data", "here"),
    [
        (DataSpec(), True),
        (DataSpec(source="cifar10", path="x"), True),
        (DataSpec(source="synthetic"), True),
        (DataSpec(source="synthetic", samples=10**6), False),
        (DataSpec(source="imagefolder", path="x"), False),
        (DataSpec(source="webdataset", path="x"), False),
    ],
)
def test_a_launch_on_slurm_writes_itself_what_takes_seconds(data: DataSpec, here: bool) -> None:
    assert written_here(data) == here


def test_a_job_that_writes_a_plug_ins_data_loads_the_plug_in_from_the_run_folder(
    tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plugins.written(tmp_path, plugins.MODEL + plugins.METHOD + plugins.SOURCE)
    grid, run = read(plugins.GRID), RunFolder(tmp_path / "run")
    data, cluster = data_sets(grid.cells), replace(GPUS, cache=str(tmp_path / "cache"))
    assert not written_here(data[0]), "a login node does not write what may take hours"
    save_plugins(grid, run)
    slurm.says("sbatch", "Submitted batch job 20")
    submit_data(cluster, run, data)
    (tmp_path / "plugin.py").unlink()
    (job,) = run.jobs_dir.glob("*/20_0_submitted.pkl")
    code = "import pickle, sys; call = pickle.load(open(sys.argv[1], 'rb')).function; call.function(call.argument)"
    done = subprocess.run([sys.executable, "-c", code, str(job)], capture_output=True, text=True, check=True)
    assert "written" in done.stdout and data_folder(data[0], tmp_path / "cache", False).joinpath("train.beton").exists()
    forget_rows()
