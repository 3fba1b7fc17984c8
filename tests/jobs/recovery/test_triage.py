"""What failures have in common, and what is done about each kind."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.monitor.incidents import cases, grouped, incident_of, place_of, remedy
from harness.monitor.survey import survey
from jobs.experiment.records import Failure
from jobs.recovery.triage import last_words, policy_of
from tests.support.fake_slurm import FakeSlurm
from tests.support.runs import fake_run

ROOT = Path(__file__).resolve().parents[3]


def test_the_cpu_allocators_own_words_mean_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 62, dtype=torch.uint8)
    assert policy_of("RuntimeError", str(caught.value)) == "halve"


@pytest.mark.parametrize(
    ("kind", "message", "policy"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB", "halve"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "halve"),
        ("MemoryError", "Unable to allocate 5.00 GiB for an array with shape (1, 2)", "halve"),
        ("OSError", "[Errno 12] Cannot allocate memory", "halve"),
        ("AcceleratorError", "CUDA error: uncorrectable ECC error encountered", "elsewhere"),
        (
            "DistBackendError",
            "NCCL error in: ../torch/csrc/ProcessGroupNCCL.cpp:1691, unhandled system error (run with NCCL_DEBUG=INFO)",
            "elsewhere",
        ),
        ("OSError", "[Errno 116] Stale file handle: '/data'", "elsewhere"),
        ("ValueError", "top_k is out of range", "never"),
        ("KeyError", "'lr'", "never"),
        ("Diverged", "the loss is nan at epoch 1 of 3", "never"),
        ("PermissionError", "[Errno 13] Permission denied: '/data'", "never"),
    ],
)
def test_each_exception_has_its_policy(kind: str, message: str, policy: str) -> None:
    assert policy_of(kind, message) == policy


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=17.0. Some of the step tasks have been OOM Killed.", "OUT_OF_MEMORY"),
        ("slurmstepd-node4: error: StepId=17.0 exceeded memory limit (550857728 > 314572800), being killed", "OUT_OF_MEMORY"),
        ("slurmstepd-node3: error: Exceeded job memory limit\nsrun: error: node3: task 0: Killed", "OUT_OF_MEMORY"),
        ("slurmstepd: error: *** JOB 17 ON node1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***", "TIMEOUT"),
        (
            "slurmstepd: error: *** JOB 17 ON node1 CANCELLED AT 2026-01-01T00:00:00 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***",
            "NODE_FAIL",
        ),
        ("slurmstepd: error: *** STEP 17.0 ON node1 CANCELLED AT 2026-01-01T00:00:00 ***", "CANCELLED"),
        ("epoch 1 loss 0.5", None),
    ],
)
def test_the_end_of_a_log_tells_how_slurm_ended_a_job(text: str, state: str | None) -> None:
    assert last_words(f"something\n{text}\n") == state


def test_a_failure_is_placed_in_our_code_even_when_a_library_raised_it() -> None:
    code = "from models.registry import create_model\ncreate_model('vim_micro', 'ten', 32)"
    traceback = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False).stderr
    assert "site-packages/torch" in traceback
    place = place_of(traceback)
    assert place.startswith("models/") and " in " in place and "site-packages" not in place


def test_failures_of_one_exception_and_place_are_one_group_the_largest_first() -> None:
    frame = f'  File "{ROOT}/jobs/data/prepare.py", line {{}}, in prepare\nValueError: no'
    here, there = frame.format(10), frame.format(20)
    failures = [Failure(kind="ValueError", message=str(n), stage=f"s{n}", traceback=here if n else there, host=f"node{n % 2}") for n in range(4)]
    first, second = grouped(incident_of(failure, cells=2) for failure in failures)
    assert (first.place, first.cells, len(first.cases)) == ("jobs/data/prepare.py:10 in prepare", 6, 3)
    assert (second.place, second.cells) == ("jobs/data/prepare.py:20 in prepare", 2)
    assert first.policy == "never" and first.cases[0].excerpt[-1] == "ValueError: no"
    assert remedy(first, "python -m harness.launch grid.yaml").endswith("python -m harness.launch grid.yaml --retry-failed")


def test_a_job_that_slurm_ended_is_a_case_of_the_stage_that_it_was_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, slurm = fake_run(tmp_path), FakeSlurm(tmp_path / "slurm", monkeypatch)
    one, two = fake.trunks
    folder = fake.submit({"17_0": [one, fake.cells_of(one)[0].stages[1]], "17_1": [two]})
    slurm.queue(j17_0="OUT_OF_MEMORY", j17_1="FAILED")
    fake.log(
        folder,
        "17_1",
        "Starting with a\nCANCELLED AT x DUE TO TIME LIMIT\nStarting with b\nepoch 1\nslurmstepd: error: Detected 2 oom_kill events in StepId=17.1\n",
    )
    found = cases(fake.run, survey(fake.run))
    assert {(case.what, case.policy, case.stage, case.cells) for case in found} == {
        ("OUT_OF_MEMORY", "halve", one, 3),
        ("OUT_OF_MEMORY", "halve", two, 3),
    }


def test_without_accounts_the_log_tells_and_without_a_log_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, slurm = fake_run(tmp_path), FakeSlurm(tmp_path / "slurm", monkeypatch)
    one, two = fake.trunks
    folder = fake.submit({"17": [one], "18": [two]})
    slurm.fails("squeue", "slurm_load_jobs error: Invalid job id specified")
    slurm.fails("sacct", "Slurm accounting storage is disabled")
    fake.log(folder, "17", "slurmstepd: error: *** JOB 17 ON node1 CANCELLED AT 2026 DUE TO TIME LIMIT ***\n")
    assert {case.stage: (case.what, case.policy) for case in cases(fake.run, survey(fake.run))} == {
        one: ("TIMEOUT", "again"),
        two: ("ENDED", "again"),
    }


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "ENDED"])
def test_of_several_ranks_the_log_of_the_one_that_ran_out_of_memory_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    fake, slurm = fake_run(tmp_path), FakeSlurm(tmp_path / "slurm", monkeypatch)
    folder = fake.submit({"17": [fake.trunks[0]]})
    slurm.queue(j17=state)
    fake.log(folder, "17", "slurmstepd-node3: error: *** STEP 17.0 ON node3 CANCELLED AT 2026-11-22T21:38:51 ***\n", rank=0)
    told = fake.log(folder, "17", "slurmstepd-node4: error: StepId=17.0 exceeded memory limit (550857728 > 314572800), being killed\n", rank=1)
    (case,) = cases(fake.run, survey(fake.run))
    assert (case.what, case.policy, case.log) == ("OUT_OF_MEMORY", "halve", told) and "exceeded memory limit" in case.excerpt[0]


def test_a_torn_failure_is_named(tmp_path: Path) -> None:
    fake = fake_run(tmp_path)
    fake.run.stage_dir(fake.trunks[0]).mkdir(parents=True)
    (fake.run.stage_dir(fake.trunks[0]) / "failure.json").write_text('{"kind": ')
    (case,) = cases(fake.run, survey(fake.run))
    assert case.what == "torn file" and "failure.json" in case.excerpt[0] and case.policy == "never"
