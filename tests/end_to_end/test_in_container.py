"""Jobs in a container: launched as ever, their script run as SLURM would run it, and their tasks in a root of their own."""

import json
import os
import subprocess
from pathlib import Path
from typing import Literal

import pytest
import yaml

from harness import doctor, launch
from harness.plan import preflight
from harness.plan.containers import in_container
from jobs.cluster.slurm_arrays import submit_array
from jobs.experiment.files import sha256_of
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, ContainerSpec
from jobs.worker.environment import ROOT
from tests.support.changed_root import can_change_root, write_commands, write_image
from tests.support.fake_slurm import FakeSlurm
from tests.support.honest_run import GRID
from tests.support.waiting import PATIENCE_S

JOB = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "1", "SLURM_JOB_NODELIST": "here", "SLURMD_NODENAME": "here"}
RUNTIMES = {"apptainer": "vssm.sif", "pyxis": "vssm.sqsh"}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_change_root(), reason="needs root, and the right to make mounts")]


@pytest.fixture
def commands(slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """SLURM's commands, apptainer, and an srun with pyxis."""
    monkeypatch.setattr(preflight, "scheduler_problems", lambda cluster: [])
    slurm.says("sbatch", "Submitted batch job 17")
    write_commands(slurm.folder)
    return slurm


def run_script(script: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A batch script, run to its end."""
    return subprocess.run(["bash", str(script)], env=os.environ | JOB | environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_a_cell_that_trains_in_a_container_has_the_weights_of_one_that_does_not(tmp_path: Path, commands: FakeSlurm, honest: Path) -> None:
    image = write_image(tmp_path / "vssm.sif")
    settings = {"kind": "slurm", "stages_per_job": 2, "profile_s": 0.001, "profile_batch": 2, "cache": str(tmp_path / "cache")}
    cluster = {**settings, "container": {"image": str(image), "runtime": "apptainer"}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({**GRID, "pruning": ["dense"], "seeds": [0], "cluster": cluster}))
    assert launch.main([str(tmp_path / "grid.yaml"), "--runs", str(tmp_path / "runs")]) == launch.OK
    run = tmp_path / "runs" / "honest"
    done = run_script(run / "jobs" / "1" / "submission.sh")
    log = (run / "jobs" / "1" / "17_0_log.out").read_text()
    (cell,) = run.glob("cells/*")
    record, other = (json.loads((folder / "record.json").read_bytes()) for folder in (cell, honest / "cells" / cell.name))
    assert done.returncode == 0 and record["status"] == "done", done.stderr + log
    assert (cell / "model.safetensors").read_bytes() == (honest / "cells" / cell.name / "model.safetensors").read_bytes()
    assert record["environment"]["container"] == f"apptainer {image} sha256:{sha256_of(image)}" and other["environment"]["container"] is None


@pytest.mark.parametrize("runtime", ["apptainer", "pyxis"])
def test_a_task_sees_what_is_mounted_and_nothing_else_and_its_job_is_queued_again_from_inside(
    tmp_path: Path, commands: FakeSlurm, runtime: Literal["apptainer", "pyxis"]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "image").write_text("pixels")
    image = write_image(tmp_path / RUNTIMES[runtime])
    (tmp_path / "link").symlink_to("data")
    container = ContainerSpec(image=str(image), runtime=runtime, mounts=(f"{tmp_path}/data:/mnt:ro", f"{tmp_path}/link"))
    cluster = ClusterSpec(kind="slurm", container=container, cache=str(tmp_path / "cache"), environment={"GREETING": "hello to all"})
    run, folder = RunFolder(tmp_path / "run"), tmp_path / "run" / "jobs" / "1"
    folder.mkdir(parents=True)
    look = f"cat /mnt/image; echo; echo x >/mnt/image; echo x >{run.path}/written; ls {tmp_path} | tr '\\n' ' '; env; pwd"
    ask = f"from jobs.experiment.containers import real_path; print(real_path('{tmp_path}/link/image'))"
    leave = f"{ask}; import os, signal; os.system({look!r}); signal.raise_signal(signal.SIGUSR2)"
    submit_array(in_container(cluster, run, [], ROOT), folder, exec, {0: leave}, name="t")
    done = run_script(folder / "submission.sh", CUDA_VISIBLE_DEVICES="2,3")
    log = (folder / "17_0_log.out").read_text() + done.stderr
    assert "pixels" in log and "Read-only file system" in log and (run.path / "written").exists(), log
    assert "\ncache link run " in log, "this machine's folder has more"
    assert f"\n{tmp_path}/data/image\n" in log, "where the link leads on this machine"
    for line in ("CUDA_VISIBLE_DEVICES=2,3", "SLURM_JOB_ID=17", "GREETING=hello to all", "PYTHONSAFEPATH=1", f"PYTHONPATH={ROOT}", f"{folder}"):
        assert f"\n{line}\n" in log, line
    assert done.returncode == 255 and "Caught signal SIGUSR2" in log, log
    assert commands.calls("scontrol") == ["requeue 17"] and commands.calls("squeue") == ["--noheader --jobs=17"]


def test_the_doctor_looks_at_a_node_from_inside(tmp_path: Path, commands: FakeSlurm) -> None:
    image, profile, runs = write_image(tmp_path / "vssm.sqsh"), tmp_path / "profiles" / "gpu.yaml", tmp_path / "runs"
    profile.parent.mkdir()
    grid = tmp_path / "grids" / "grid.yaml"
    grid.parent.mkdir()
    grid.write_text("name: a\nmodels: [vim_micro]\ncluster: ../profiles/gpu.yaml\n")
    (runs / "look").mkdir(parents=True)
    profile.write_text(f"kind: slurm\ncache: {tmp_path}/cache\ncontainer: {{image: {image}, runtime: pyxis}}\n")
    words = doctor.look(doctor.cluster_of(str(grid)), str(grid), runs, runs / "look")
    at = words.index("python3") + 1
    assert words[at : at + 4] == ["-m", "harness.doctor", "--node", f"{runs}/look"] and words[-1] == str(profile), words
    quick = f"from importlib.util import find_spec; print(find_spec('harness.doctor').origin, open('{profile}').read())"
    subprocess.run(["srun", "--output", str(tmp_path / "log"), *words[:at], "-c", quick], env=os.environ | JOB, check=True, timeout=PATIENCE_S)
    assert (tmp_path / "log").read_text() == f"{ROOT}/harness/doctor.py {profile.read_text()}\n"
