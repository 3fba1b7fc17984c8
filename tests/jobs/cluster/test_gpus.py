"""Which GPUs local jobs get, on machines with counts that are made up."""

import pynvml
import pytest

from jobs.cluster.gpus import gpu_problems, gpus_of_slot, installed_gpus, visible_gpus
from jobs.experiment.specs import ClusterSpec


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine of 8 GPUs, and nothing said about them."""
    monkeypatch.setattr("jobs.cluster.gpus.installed_gpus", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, ("0", "1", "2", "3", "4", "5", "6", "7")),
        ("", ()),
        ("3", ("3",)),
        (" 5, 1 ", ("5", "1")),
        ("GPU-8932f937-d72c,MIG-1e2f", ("GPU-8932f937-d72c", "MIG-1e2f")),
        ("0,8,1", ("0",)),  # CUDA sees none behind a number that does not exist
        ("1,-1,2", ("1",)),
        ("NoDevFiles", ()),  # SLURM's word
        ("2,2,3", ("2", "3")),
        ("²", ()),
    ],
)
def test_the_variable_names_gpus_as_cuda_reads_it(eight: pytest.MonkeyPatch, given: str | None, names: tuple[str, ...]) -> None:
    if given is not None:
        eight.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == names


@pytest.mark.parametrize("given", [None, "7,5,3,1", "GPU-a,GPU-b,GPU-c,GPU-d"])
def test_jobs_side_by_side_have_gpus_that_exist_and_no_two_share_one(eight: pytest.MonkeyPatch, given: str | None) -> None:
    if given is not None:
        eight.setenv("CUDA_VISIBLE_DEVICES", given)
    cluster = ClusterSpec(gpus_per_node=2, tasks_per_node=2)
    slots = [gpus_of_slot(cluster, slot) for slot in range(len(visible_gpus()) // 2)]
    assert sorted(name for gpus in slots for name in gpus) == sorted(visible_gpus())
    with pytest.raises(ValueError, match="GPUs are needed for"):
        gpus_of_slot(cluster, len(slots))
    assert gpus_of_slot(ClusterSpec(), 1000) == ()


@pytest.mark.parametrize(
    ("given", "settings", "problem"),
    [
        (None, {"max_parallel": 8}, None),
        (None, {"max_parallel": 9}, "cluster.max_parallel: 9 jobs at a time with 1 GPUs each need 9, and this machine has 8, by NVML; use at most 8"),
        ("3,4", {"gpus_per_node": 2}, None),
        (
            "3",
            {"gpus_per_node": 2, "max_parallel": 4},
            "cluster.gpus_per_node: a job needs 2, and this machine has 1, by CUDA_VISIBLE_DEVICES='3' and NVML",
        ),
        ("", {"kind": "debug"}, "cluster.gpus_per_node: a job needs 1, and this machine has 0, by CUDA_VISIBLE_DEVICES='' and NVML"),
        ("", {"kind": "slurm"}, None),
        ("", {"gpus_per_node": 0, "max_parallel": 100}, None),
    ],
)
def test_a_launch_is_refused_if_it_needs_more_gpus_than_there_are(eight: pytest.MonkeyPatch, given: str | None, settings, problem) -> None:  # type: ignore[no-untyped-def]
    if given is not None:
        eight.setenv("CUDA_VISIBLE_DEVICES", given)
    assert gpu_problems(ClusterSpec(**{"gpus_per_node": 1, **settings})) == ([problem] if problem else [])


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    assert installed_gpus() == 0


def test_slices_of_mig_are_named_each_and_whole_gpus_by_number(eight: pytest.MonkeyPatch) -> None:
    """GPU 1 has three places for slices, of which the middle one is empty; GPU 2 is of a kind that knows no MIG."""
    slices = {(1, 0): "MIG-a", (1, 2): b"MIG-b"}

    def mode(handle: int) -> tuple[int, int]:
        if handle == 2:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return int(handle == 1), 0

    def slice_at(handle: int, position: int) -> tuple[int, int]:
        if (handle, position) not in slices:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return handle, position

    eight.setattr("jobs.cluster.gpus.installed_gpus", lambda: 3)
    answers = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetMigMode": mode,
        "nvmlDeviceGetMaxMigDeviceCount": lambda handle: 3,
        "nvmlDeviceGetMigDeviceHandleByIndex": slice_at,
        "nvmlDeviceGetUUID": slices.__getitem__,
    }
    for name, answer in answers.items():
        eight.setattr(pynvml, name, answer)
    assert visible_gpus() == ("0", "MIG-a", "MIG-b", "2")
    assert [gpus_of_slot(ClusterSpec(gpus_per_node=1), slot) for slot in range(4)] == [("0",), ("MIG-a",), ("MIG-b",), ("2",)]
