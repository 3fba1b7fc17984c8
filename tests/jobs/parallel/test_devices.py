"""Which device a rank takes, and what a job says that was promised GPUs and has none."""

import os
from threading import Thread

import pytest
import torch
from torch.distributed import HashStore

from jobs.parallel.devices import GpuMissing, check_own_gpus, check_slices, own_device
from jobs.recovery.triage import policy_of
from tests.support.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


def sees(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    """Lets torch see a number of GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


@pytest.mark.parametrize(("gpus", "local_rank", "taken"), [(4, 0, 0), (4, 3, 3), (1, 0, 0), (1, 3, 0)])
def test_a_rank_takes_its_own_gpu_or_the_only_one_that_it_sees(monkeypatch: pytest.MonkeyPatch, gpus: int, local_rank: int, taken: int) -> None:
    sees(monkeypatch, gpus)
    assert own_device(local_rank, promised=True) == torch.device("cuda", taken)
    assert os.environ["DS_ACCELERATOR"] == "cuda"


def test_without_a_promise_a_machine_without_gpus_computes_on_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    sees(monkeypatch, 0)
    assert own_device(0) == torch.device("cpu")


def test_a_build_of_torch_for_cpus_is_named_and_no_node_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    sees(monkeypatch, 0)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(GpuMissing, match="is a build for CPUs alone: install its CUDA build") as caught:
        own_device(0, promised=True)
    assert policy_of("GpuMissing", str(caught.value)) == "never"


@pytest.mark.parametrize(
    ("reason", "policy"),
    [
        ("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from\nhttp://x", "elsewhere"),
        ("No CUDA GPUs are available", "elsewhere"),
        ("CUDA initialization: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized", "elsewhere"),
        ("The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver", "never"),
    ],
)
def test_a_node_whose_gpus_are_gone_is_named_with_the_drivers_words(monkeypatch: pytest.MonkeyPatch, tmp_path, reason: str, policy: str) -> None:
    def refuse() -> None:
        raise RuntimeError(reason)

    sees(monkeypatch, 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", refuse)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(GpuMissing) as caught:
        own_device(0, promised=True)
    message = str(caught.value)
    assert reason.splitlines()[0] in message and "built for CUDA 13.0" in message
    assert "CUDA_VISIBLE_DEVICES is ''" in message and "NVIDIA-SMI has failed" in message
    assert policy_of("GpuMissing", message) == policy


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    sees(monkeypatch, 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(GpuMissing, match=r"FileNotFoundError: it cannot be run.*older than that CUDA"):
        own_device(0, promised=True)


def test_a_rank_beyond_the_gpus_of_its_node_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sees(monkeypatch, 3)
    with pytest.raises(GpuMissing, match="local rank 3 has no GPU on .*: 3 are visible") as caught:
        own_device(3, promised=True)
    assert policy_of("GpuMissing", str(caught.value)) == "elsewhere"


def gpus_of(*gpus: str) -> list[str]:
    """What each rank says of its GPUs: its error, or nothing."""
    store, told = HashStore(), [""] * len(gpus)

    def rank(number: int) -> None:
        try:
            check_own_gpus(store, number, len(gpus), gpus[number])
        except GpuMissing as error:
            told[number] = str(error)

    threads = [Thread(target=rank, args=(number,)) for number in range(len(gpus))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return told


def test_ranks_with_a_gpu_each_go_on() -> None:
    assert gpus_of("GPU-a of node1", "GPU-b of node1", "GPU-a of node2") == ["", "", ""]


def test_two_ranks_of_one_gpu_are_named_on_every_rank() -> None:
    told = gpus_of("GPU-a of node1", "GPU-b of node1", "GPU-a of node1", "GPU-a of node1")
    assert all(line.startswith("ranks 0 and 2 and 3 share GPU-a of node1; CUDA_VISIBLE_DEVICES is") for line in told)
    assert {policy_of("GpuMissing", line) for line in told} == {"never"}


@pytest.mark.parametrize(
    ("shown", "ranks", "refused"),
    [("MIG-a", 1, False), ("MIG-a,MIG-b", 1, False), ("MIG-a,MIG-b", 2, True), ("0,1", 2, False), ("GPU-a,GPU-b", 2, False)],
)
def test_slices_of_mig_serve_one_rank_of_a_node(monkeypatch: pytest.MonkeyPatch, shown: str, ranks: int, refused: bool) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    if not refused:
        check_slices(ranks)
        return
    with pytest.raises(GpuMissing, match="NCCL cannot join: set tasks_per_node and gpus_per_node to 1") as caught:
        check_slices(ranks)
    assert policy_of("GpuMissing", str(caught.value)) == "never", "another node would not help"
