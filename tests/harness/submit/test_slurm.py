"""The jobs that SLURM's arrays wait for, and what is reported of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.grid.read import read_grid
from harness.submit.dependencies import Array
from harness.submit.slurm import awaited, by_array, parents, progress_marker, submit_arrays, summary
from jobs.experiment.ids import JobId, StageId
from jobs.experiment.run_folder import SUBMITTED, RunFolder
from tests.support.fake_slurm import FakeSlurm
from tests.support.jobs import jobs_of, small_grid, tuned_grid


def test_a_child_waits_for_the_job_of_its_parent(tmp_path: Path) -> None:
    jobs, _ = jobs_of(small_grid(tmp_path), RunFolder(tmp_path))
    for job, before in zip(jobs, parents(jobs, {}, []), strict=True):
        assert {spec.parent for spec in job.stages} - {None} == {spec.id for index in before for spec in jobs[index].stages}


def test_a_parent_that_is_done_is_not_waited_for(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    jobs, _ = jobs_of(small_grid(tmp_path), run)
    for job in jobs:
        if job.stages[0].parent is None:
            (run.stage_dir(job.stages[0].id) / "export").mkdir(parents=True)
    assert parents(jobs_of(small_grid(tmp_path), run)[0], {}, []) == [frozenset()] * 6


def test_a_child_of_a_living_jobs_stage_waits_for_that_job_alone(tmp_path: Path) -> None:
    jobs, _ = jobs_of(small_grid(tmp_path), RunFolder(tmp_path))
    trunks = [job.stages[0].id for job in jobs if job.stages[0].parent is None]
    children = [job for job in jobs if job.stages[0].parent]
    living = {trunks[1]: JobId(number=17, task=3), trunks[0]: JobId(number=17, task=0), StageId("of no interest"): JobId(number=18)}
    queued = awaited(children, living)
    assert sorted(queued) == [JobId(number=17, task=0), JobId(number=17, task=3)]
    assert by_array(queued) == [{job.task: position for position, job in enumerate(queued)}]
    for child, before in zip([None, None, *children], parents(children, living, queued), strict=True):
        assert before == (frozenset({queued.index(living[child.stages[0].parent or StageId("")])}) if child else frozenset())


def test_a_job_that_only_measures_what_a_living_job_trains_waits_for_it(tmp_path: Path) -> None:
    jobs, _ = jobs_of(small_grid(tmp_path), RunFolder(tmp_path))
    living, queued = {jobs[0].stages[0].id: JobId(number=17)}, [JobId(number=17)]
    assert awaited(jobs, living) == queued and by_array(queued) == [{0: 0}]
    before = parents(jobs, living, queued)
    assert before[1] == frozenset({0}), "the stage itself"
    assert {1} in before[2:] and frozenset({0}) not in before[2:], "its children wait for the job that measures it, which waits for the living job"


def test_a_new_checkpoint_is_progress_and_a_torn_checkpoint_is_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    job = jobs_of(small_grid(tmp_path), run)[0][0]
    before = progress_marker(job)
    checkpoints = run.stage_dir(job.stages[0].id) / "checkpoints"
    (checkpoints / ".step-000000010").mkdir(parents=True)
    assert progress_marker(job) == before
    (checkpoints / "step-000000010").mkdir()
    assert progress_marker(job) != before


def test_an_array_is_reported_in_a_line() -> None:
    array = Array(jobs={0: 0, 1: 1, 5: 2}, after=(), level=1)
    ids = [JobId(number=17, task=task) for task in array.jobs]
    assert summary(array, ids, Path("runs/g/jobs/1")) == "level 1: 3 jobs, 17_0 to 17_5, logs in runs/g/jobs/1"
    assert summary(array, [JobId(number=18)], Path("jobs/2")) == "level 1: 1 job, 18, logs in jobs/2"


def dependencies(folder: Path) -> list[str]:
    """What every submitted script of a run folder waits for."""
    texts = [path.read_text() for path in sorted(folder.glob("*/submission.sh"))]
    return [next((line.partition("--dependency=")[2] for line in text.splitlines() if "--dependency=" in line), "") for text in texts]


def test_a_cell_whose_last_stage_a_living_job_has_is_measured_after_that_job(tmp_path: Path, slurm: FakeSlurm) -> None:
    grid, run = small_grid(tmp_path), RunFolder(tmp_path / "run")
    run.jobs_dir.mkdir(parents=True)
    slurm.says("sbatch", "Submitted batch job 20")
    job = next(job for job in jobs_of(grid, run)[0] if job.stages[-1].parent)
    cluster = replace(grid.cluster, kind="slurm")
    lines = submit_arrays(cluster, run, [job], {job.stages[-1].id: JobId(number=17)})
    assert dependencies(run.jobs_dir) == ["afterok:17"] and lines[0].startswith("level 1: 1 job, 20")
    (folder,) = run.jobs_dir.iterdir()
    assert json.loads((folder / SUBMITTED).read_text()) == {"20": [job.stages[-1].id]}


def test_a_job_that_starts_from_nothing_that_others_have_waits_for_nothing(tmp_path: Path, slurm: FakeSlurm) -> None:
    grid, run = small_grid(tmp_path), RunFolder(tmp_path / "run")
    run.jobs_dir.mkdir(parents=True)
    slurm.says("sbatch", "Submitted batch job 20")
    job = next(job for job in jobs_of(grid, run)[0] if job.stages[-1].parent)
    submit_arrays(replace(grid.cluster, kind="slurm"), run, [job], {StageId("of no interest"): JobId(number=17)})
    assert dependencies(run.jobs_dir) == [""]


def test_jobs_of_two_sizes_are_two_arrays_each_with_what_it_needs(tmp_path: Path, slurm: FakeSlurm) -> None:
    path, run = tmp_path / "grid.yaml", RunFolder(tmp_path / "run")
    wide = "{name: vim_tiny, cluster: {gpus_per_node: 4, timeout_min: 600, mem_gb: 64, partition: [big, spare]}}"
    short = "{method: magnitude, sparsity: [0.5, 0.9], cluster: {timeout_min: 30}}"
    path.write_text(
        f"name: g\nseeds: [0]\nmodels: [vim_micro, {wide}]\npruning: [dense, {short}]\n"
        "cluster: {kind: slurm, gpus_per_node: 1, timeout_min: 60, partition: gpu, constraint: h100}\n"
    )
    grid = read_grid(path)
    jobs, _ = jobs_of(grid, run)
    slurm.says("sbatch", "Submitted batch job 20")
    lines = submit_arrays(grid.cluster, run, jobs, {})
    asked = [sbatch_lines(path) for path in sorted(run.jobs_dir.glob("*/submission.sh"))]
    assert asked[0] == {"time": "60", "nodes": "1", "ntasks-per-node": "1", "gpus-per-node": "1", "partition": "gpu", "constraint": "h100"}
    assert asked[1] == asked[0] | {"time": "600", "ntasks-per-node": "4", "gpus-per-node": "4", "partition": "big,spare", "mem": "65536MB"}
    assert asked[2:] == [asked[0], asked[1], asked[0] | {"time": "30"}, asked[1] | {"time": "30"}], "the control; the pruned cells, as one array"
    assert lines[-1].startswith("8 jobs submitted, in 6 arrays")


@pytest.mark.parametrize("largest", ["0", "1"])
def test_where_slurm_has_no_arrays_each_job_is_a_plain_one_behind_its_own_parent(tmp_path: Path, slurm: FakeSlurm, largest: str) -> None:
    grid, run = small_grid(tmp_path), RunFolder(tmp_path / "run")
    slurm.says("sbatch", "Submitted batch job 20")
    slurm.says("scontrol", f"MaxArraySize            = {largest}")
    jobs, _ = jobs_of(grid, run)
    submit_arrays(replace(grid.cluster, kind="slurm"), run, jobs, {})
    scripts = [path.read_text() for path in run.jobs_dir.glob("*/submission.sh")]
    assert len(scripts) == len(jobs) and not any("--array" in script for script in scripts)
    assert sorted(dependencies(run.jobs_dir)) == [""] * 2 + ["afterok:20"] * 6


def sbatch_lines(script: Path) -> dict[str, str]:
    """The sizes that a script asks for."""
    options = dict(
        line.removeprefix("#SBATCH --").split("=", 1) for line in script.read_text().splitlines() if line.startswith("#SBATCH --") and "=" in line
    )
    kept = ("time", "nodes", "ntasks-per-node", "gpus-per-node", "partition", "constraint", "mem")
    return {name: options[name] for name in kept if name in options}


def test_what_was_submitted_stays_when_slurm_takes_no_more(tmp_path: Path, slurm: FakeSlurm) -> None:
    grid, run = small_grid(tmp_path), RunFolder(tmp_path / "run")
    run.jobs_dir.mkdir(parents=True)
    cluster = replace(grid.cluster, kind="slurm")
    slurm.says("sbatch", "Submitted batch job 20")
    sbatch = slurm.folder / "sbatch"
    sbatch.write_text(sbatch.read_text() + f"echo 'sbatch: error: AssocMaxSubmitJobLimit' > {slurm.folder}/sbatch.fails\n")
    sbatch.write_text(sbatch.read_text().replace("exit 0\n", "", 1))  # the first call works, and lets all later ones fail
    lines = submit_arrays(cluster, run, jobs_of(grid, run)[0], {})
    assert len(slurm.calls("sbatch")) == 2
    assert "SLURM takes no more" in lines[1] and "AssocMaxSubmitJobLimit" in lines[1]
    assert "in 1 array;" in lines[2] and "launch again when some have ended" in lines[3]
    assert len(list(run.jobs_dir.glob(f"*/{SUBMITTED}"))) == 1


def test_a_choice_waits_for_any_end_of_its_trials(tmp_path: Path, slurm: FakeSlurm) -> None:
    run = RunFolder(tmp_path / "run")
    run.jobs_dir.mkdir(parents=True)
    slurm.says("sbatch", "Submitted batch job 20")
    grid = tuned_grid(tmp_path)
    submit_arrays(replace(grid.cluster, kind="slurm"), run, jobs_of(grid, run)[0], {})
    assert dependencies(run.jobs_dir) == ["", "afterok:20", "afterany:20_0:20_1:20_2"]


def test_with_its_trials_in_one_job_a_choice_has_none_of_its_own(tmp_path: Path, slurm: FakeSlurm) -> None:
    run = RunFolder(tmp_path / "run")
    run.jobs_dir.mkdir(parents=True)
    slurm.says("sbatch", "Submitted batch job 20")
    grid = tuned_grid(tmp_path, stages_per_job=8)
    jobs = jobs_of(replace(grid, cluster=replace(grid.cluster, kind="slurm", max_parallel=1)), run)[0]
    submit_arrays(jobs[0].cluster, run, jobs, {})
    assert dependencies(run.jobs_dir) == [""] and [spec.stage.name for spec in jobs[0].stages][-1] == "choose"


def test_a_choice_among_trials_of_a_living_job_waits_for_any_end_of_it(tmp_path: Path, slurm: FakeSlurm) -> None:
    run = RunFolder(tmp_path / "run")
    run.jobs_dir.mkdir(parents=True)
    slurm.says("sbatch", "Submitted batch job 20")
    jobs, (planned,) = jobs_of(tuned_grid(tmp_path), run)
    living = {trial.stages[-1]: JobId(number=17, task=number) for number, trial in enumerate(planned.trials)}
    submit_arrays(replace(jobs[-1].cluster, kind="slurm"), run, jobs[-1:], living)
    assert dependencies(run.jobs_dir) == ["afterany:17_0:17_1:17_2"]
