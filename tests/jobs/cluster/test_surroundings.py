"""Variables of a job around a command are forgotten; those that say how to reach SLURM stay."""

import os
import subprocess
import sys

import pytest

from harness import reproduce
from harness.launch import main as launch
from jobs.cluster.slurm import ask, restarts, this_job
from jobs.cluster.slurm_arrays import stated
from jobs.cluster.surroundings import forget_outer_job, sbatch_options
from jobs.experiment.specs import ClusterSpec
from tests.support.fake_slurm import FakeSlurm

OUTER = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
    "MEETING_FILE": "/none",
    "TORCHELASTIC_RUN_ID": "a",
    "SLURM_JOB_ID": "17",
    "SLURM_ARRAY_JOB_ID": "17",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_RESTART_COUNT": "2",
    "SLURM_NTASKS": "4",
    "SLURMD_NODENAME": "node1",
    "SUBMITIT_EXECUTOR": "slurm",
    "VSSM_ATTEMPT": "17.1",
}
SITE = {"SLURM_CONF": "/etc/slurm.conf", "SLURM_JWT": "token", "SLURM_CLUSTERS": "a", "OMP_NUM_THREADS": "3", "RANKING": "1"}


@pytest.fixture
def outer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a shell within a job, which ends with the test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.update({**OUTER, **SITE})


@pytest.mark.usefixtures("outer")
def test_a_job_around_this_process_is_forgotten() -> None:
    forget_outer_job()
    assert not OUTER.keys() & os.environ.keys() and {name: os.environ[name] for name in SITE} == SITE
    assert this_job() is None and restarts() == 0


@pytest.mark.parametrize(
    ("given", "left"), [("error", None), ("ignore,error::FutureWarning", None), ("ignore", "ignore"), ("default::Warning", "default::Warning")]
)
def test_warnings_stay_warnings(given: str, left: str | None) -> None:
    code = (
        "import os, sys, warnings; from jobs.cluster.surroundings import forget_outer_job; forget_outer_job(); warnings.warn('a', FutureWarning);"
        "warnings.warn('b', RuntimeWarning); print(os.environ.get('PYTHONWARNINGS'))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONWARNINGS": given}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{left}\n"), done.stderr


@pytest.mark.usefixtures("outer")
@pytest.mark.parametrize("command", [lambda: launch(["no.yaml"]), lambda: reproduce.main(["3f2a", "--runs", "nowhere"])])
def test_commands_that_run_cells_forget_it_first(command) -> None:  # type: ignore[no-untyped-def]
    assert command() == 2 and not OUTER.keys() & os.environ.keys()


@pytest.mark.usefixtures("outer")
def test_slurms_commands_take_no_options_from_the_environment(slurm: FakeSlurm) -> None:
    os.environ |= {"SQUEUE_PARTITION": "a", "SINFO_FORMAT": "b", "SBATCH_TIMELIMIT": "1", "SBATCH_ACCOUNT": "mine", "SLURM_TIME_FORMAT": "relative"}
    (slurm.folder / "squeue").write_text("#!/bin/sh\nenv\n")
    seen = dict(line.split("=", 1) for line in ask("squeue").splitlines() if "=" in line)
    assert not {"SQUEUE_PARTITION", "SINFO_FORMAT", "SBATCH_TIMELIMIT", "SLURM_TIME_FORMAT"} & seen.keys()
    assert seen["SBATCH_ACCOUNT"] == "mine" and seen["SLURM_CONF"] == "/etc/slurm.conf" and seen["LC_ALL"] == "C"


def test_the_profile_comes_before_the_users_own_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = ClusterSpec(kind="slurm", slurm={"partition": "gpu", "additional_parameters": {"account": "ours"}})
    assert sbatch_options(stated(cluster)) == []  # the script says it
    for option in ("PARTITION", "ACCOUNT", "QOS"):
        monkeypatch.setenv(f"SBATCH_{option}", "other")
    assert sbatch_options(stated(cluster)) == ["--account=ours", "--partition=gpu"]
