"""What failures have in common, and what is done about each kind."""

import pytest
import torch

from jobs.recovery.triage import LAST_WORDS, STATES, last_words, policy_of


def test_the_cpu_allocators_own_words_mean_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 62, dtype=torch.uint8)
    assert policy_of("RuntimeError", str(caught.value)) == "halve"


@pytest.mark.parametrize(
    ("kind", "message", "policy"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB", "halve"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "halve"),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "halve"),
        ("RuntimeError", "cuFFT error: CUFFT_ALLOC_FAILED", "halve"),
        ("RuntimeError", "GET was unable to find an engine to execute this computation", "halve"),
        ("MemoryError", "Unable to allocate 5.00 GiB for an array with shape (1, 2)", "halve"),
        ("OSError", "[Errno 12] Cannot allocate memory", "halve"),
        ("AcceleratorError", "CUDA error: uncorrectable ECC error encountered", "elsewhere"),
        (
            "DistBackendError",
            "NCCL error in: ../torch/csrc/ProcessGroupNCCL.cpp:1691, unhandled system error (run with NCCL_DEBUG=INFO)",
            "elsewhere",
        ),
        ("RuntimeError", "No CUDA GPUs are available", "elsewhere"),
        ("RuntimeError", "CUDA error: system not yet initialized", "elsewhere"),
        ("AcceleratorError", "CUDA error: unspecified launch failure", "never"),  # as often a fault of a kernel as of a node
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


def test_every_end_of_a_slurm_job_has_its_policy() -> None:
    assert STATES == {
        "OUT_OF_MEMORY": "halve",
        "NODE_FAIL": "elsewhere",
        "BOOT_FAIL": "elsewhere",
        "TIMEOUT": "again",
        "DEADLINE": "again",
        "PREEMPTED": "again",
        "CANCELLED": "again",
        "REVOKED": "again",
        "FAILED": "again",
        "ENDED": "again",
    }
    assert {state for _, state in LAST_WORDS} <= set(STATES)


def test_preemption_is_read_from_the_end_of_a_log() -> None:
    assert last_words("slurmstepd: error: *** JOB 17 ON node1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***") == "PREEMPTED"
