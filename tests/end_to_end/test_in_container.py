"""Jobs in a container: launched as ever, their script run as SLURM would run it, and their tasks in a root of their own."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import doctor, launch
from harness.plan import preflight
from harness.plan.containers import in_container
from jobs.cluster.slurm_arrays import submit_array
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, ContainerSpec
from jobs.worker.environment import ROOT
from tests.support.changed_root import can_change_root, write_commands, write_image
from tests.support.commands import SMALL
from tests.support.fake_slurm import FakeSlurm
from tests.support.waiting import PATIENCE_S

GRID = f"""
name: small
recipe: {{epochs: 1, finetune_epochs: 0, batch_size: 256}}
models: [{SMALL}]
pruning: [dense]
seeds: [0]
cluster: {{CLUSTER, profile_s: 0.01, stages_per_job: 2, cache: CACHE}}
"""
JOB = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "1", "SLURM_JOB_NODELIST": "here", "SLURMD_NODENAME": "here"}
RUNTIMES = {"apptainer": "vssm.sif", "pyxis": "vssm.sqsh"}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_change_root(), reason="needs root, and the right to make mounts")]
every_runtime = pytest.mark.parametrize("runtime", RUNTIMES)


@pytest.fixture
def commands(slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """SLURM's commands, apptainer, and an srun with pyxis."""
    monkeypatch.setattr(preflight, "scheduler_problems", lambda cluster: [])
    slurm.says("sbatch", "Submitted batch job 17")
    write_commands(slurm.folder)
    return slurm


def launched(folder: Path, cluster: str, cache: Path) -> Path:
    """The run folder of the grid, launched on a cluster."""
    folder.mkdir()
    (folder / "grid.yaml").write_text(GRID.replace("CLUSTER", cluster).replace("CACHE", str(cache)))
    assert launch.main([str(folder / "grid.yaml"), "--runs", str(folder)]) == launch.OK
    return folder / "small"


def run_script(script: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A batch script, run to its end."""
    return subprocess.run(["bash", str(script)], env=os.environ | JOB | environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def job(tmp_path: Path, runtime: str, function: Callable[[Any], object], argument: object, *mounts: str) -> tuple[int, str]:
    """Exit code and log of a job whose task calls a function inside."""
    run, image = RunFolder(tmp_path / "run"), write_image(tmp_path / RUNTIMES[runtime])
    container = ContainerSpec(image=str(image), runtime=runtime, mounts=mounts)  # type: ignore[arg-type]
    cluster = ClusterSpec(kind="slurm", container=container, cache=str(tmp_path / "cache"), environment={"GREETING": "hello to all"})
    folder = run.jobs_dir / "1"
    folder.mkdir(parents=True)
    submit_array(in_container(cluster, run, [], ROOT), folder, function, {0: argument}, name="t")  # type: ignore[arg-type]
    done = run_script(folder / "submission.sh", CUDA_VISIBLE_DEVICES="2,3")
    return done.returncode, (folder / "17_0_log.out").read_text() + done.stderr


def test_a_cell_that_trains_in_a_container_has_the_weights_of_one_that_does_not(tmp_path: Path, commands: FakeSlurm) -> None:
    image, cache = write_image(tmp_path / "vssm.sif"), tmp_path / "cache"
    run = launched(tmp_path / "inside", f"kind: slurm, container: {{image: {image}, runtime: apptainer}}", cache)
    (script,) = run.glob("jobs/*/submission.sh")
    done = run_script(script)
    log = next(run.glob("jobs/*/17_0_log.out")).read_text()
    (record,) = (json.loads(path.read_bytes()) for path in run.glob("cells/*/record.json"))
    assert done.returncode == 0 and record["status"] == "done", done.stderr + log
    assert record["environment"]["container"].startswith(f"apptainer {image} sha256:") and record["environment"]["code"]
    own = launched(tmp_path / "own", "kind: debug", cache)
    assert next(run.glob("cells/*/model.safetensors")).read_bytes() == next(own.glob("cells/*/model.safetensors")).read_bytes()
    (other,) = (json.loads(path.read_bytes()) for path in own.glob("cells/*/record.json"))
    assert other["environment"]["container"] is None and other["id"] == record["id"]


@every_runtime
def test_a_task_sees_what_is_mounted_and_nothing_else_and_has_the_variables_of_its_job(tmp_path: Path, commands: FakeSlurm, runtime: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "image").write_text("pixels")
    look = f"cat /mnt/image; echo; echo x >/mnt/image; echo x >{tmp_path}/run/written; ls {tmp_path} | tr '\\n' ' '; env; pwd"
    code, log = job(tmp_path, runtime, os.system, look, f"{tmp_path}/data:/mnt:ro")
    assert code == 0 and "pixels" in log and "Read-only file system" in log and (tmp_path / "run" / "written").exists(), log
    assert "\ncache run " in log, "this machine's folder has more"
    for line in ("CUDA_VISIBLE_DEVICES=2,3", "SLURM_JOB_ID=17", "GREETING=hello to all", "PYTHONSAFEPATH=1", f"PYTHONPATH={ROOT}", "SLURM_PROCID=0"):
        assert f"\n{line}\n" in log
    assert log.split("\n").count(f"{tmp_path}/run/jobs/1") == 1, "where it starts"


@every_runtime
def test_a_job_that_must_leave_its_nodes_is_queued_again_from_inside(tmp_path: Path, commands: FakeSlurm, runtime: str) -> None:
    code, log = job(tmp_path, runtime, signal.raise_signal, signal.SIGUSR2)
    assert code == 255 and "Caught signal SIGUSR2" in log, log
    assert commands.calls("scontrol") == ["requeue 17"] and commands.calls("squeue") == ["--noheader --jobs=17"]


@every_runtime
def test_the_exit_code_of_a_task_is_that_of_the_job(tmp_path: Path, commands: FakeSlurm, runtime: str) -> None:
    assert job(tmp_path, runtime, os._exit, 7)[0] == 7


@every_runtime
def test_the_doctor_looks_at_a_node_from_inside(tmp_path: Path, commands: FakeSlurm, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image, profile = write_image(tmp_path / RUNTIMES[runtime]), tmp_path / "profiles" / "gpu.yaml"
    profile.parent.mkdir()
    profile.write_text(f"kind: slurm\ncache: {tmp_path}/cache\ncontainer: {{image: {image}, runtime: {runtime}}}\n")
    words = doctor.look(doctor.cluster_of(str(profile)), str(profile), tmp_path / "runs", tmp_path / "runs" / "look")
    (tmp_path / "runs" / "look").mkdir(parents=True)
    at = words.index("python3")
    assert words[at + 1 : at + 3] == ["-m", "harness.doctor"]
    quick = [*words[: at + 1], "-c", "from importlib.util import find_spec; print(find_spec('harness.doctor').origin)"]
    log = tmp_path / "log"
    subprocess.run(["srun", "--output", str(log), *quick], env=os.environ | JOB, check=True, timeout=PATIENCE_S)
    assert f"{ROOT}/harness/doctor.py" in log.read_text()
