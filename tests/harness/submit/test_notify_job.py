"""The SLURM job that waits for all others."""

import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.submit.notify_job import submit_end_job
from harness.submit.slurm import submit_arrays
from jobs.cluster.submitit_jobs import ResumableCall
from jobs.experiment.ids import JobId, StageId
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, NotifySpec, PrepareSpec
from jobs.worker.notify import EndJob, save_notice, tell_end
from tests.support.fake_slurm import FakeSlurm
from tests.support.jobs import jobs_of, small_grid

GPUS = ClusterSpec(kind="slurm", gpus_per_node=1, mem_gb=64, slurm={"partition": "gpu"}, prepare=PrepareSpec(slurm={"partition": "cpu"}))


def test_it_waits_for_every_array_however_it_ends_on_one_cpu_without_a_gpu(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.says("sbatch", "Submitted batch job 41")
    run = RunFolder(tmp_path / "runs" / "small")
    run.path.mkdir(parents=True)
    launch = save_notice(run, NotifySpec(command="true"))
    jobs = [JobId(number=17, task=0), JobId(number=17, task=3), JobId(number=18)]
    (line,) = submit_end_job(GPUS, run, jobs)
    assert line.startswith("job 41 waits")
    (script,) = run.jobs_dir.glob("*/submission.sh")
    text = script.read_text()
    for option in ("dependency=afterany:17:18", "partition=cpu", "cpus-per-task=1", "mem=2048MB", "job-name=notify"):
        assert f"#SBATCH --{option}\n" in text
    assert not re.search(r"#SBATCH.*gpu", text)
    (pickled,) = script.parent.glob("*_submitted.pkl")
    call = pickle.loads(pickled.read_bytes()).function
    assert isinstance(call, ResumableCall) and (call.function, call.argument) == (tell_end, EndJob(run=str(run.path), launch=launch or ""))


@pytest.mark.parametrize("spec", [None, NotifySpec(command="true", on=("first_failure",))])
def test_there_is_none_where_nobody_wants_to_be_told_of_the_end(tmp_path: Path, slurm: FakeSlurm, spec: NotifySpec | None) -> None:
    run = RunFolder(tmp_path)
    save_notice(run, spec)
    assert submit_end_job(GPUS, run, [JobId(number=17)]) == [] and not slurm.calls("sbatch")


def test_a_launch_submits_it_last_and_says_so_if_slurm_has_no_room(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.says("sbatch", "Submitted batch job 17")
    slurm.says("scontrol", "MaxArraySize = 1001")
    run = RunFolder(tmp_path / "runs" / "small")
    run.path.mkdir(parents=True)
    save_notice(run, NotifySpec(command="true"))
    grid = replace(small_grid(tmp_path), cluster=GPUS)
    jobs, _ = jobs_of(grid, run)
    lines = submit_arrays(GPUS, run, jobs, {StageId("before"): JobId(number=5, task=2)})
    assert sum("waits for all of them" in line for line in lines) == 1
    scripts = [path.read_text() for path in sorted(run.jobs_dir.glob("*/submission.sh"), key=lambda path: int(path.parent.name))]
    assert "dependency=afterany:17:5" in scripts[-1] and all("afterany" not in script for script in scripts[:-1])
    slurm.fails("sbatch", "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy")
    (line,) = submit_end_job(GPUS, run, [JobId(number=17)])
    assert "no job waits for the end (sbatch" in line and "the last job tells of it" in line
