"""SLURM's limits as its commands print them, and what a profile asks beyond them. tests/slurm/test_limits.py asks real daemons."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from jobs.cluster.slurm_limits import Partition, broken_limits, free_jobs, gpus, max_array_size, minutes, number, partitions, slurm_problems
from jobs.experiment.specs import ClusterSpec
from tests.support.fake_slurm import SILENT, FakeSlurm

FITS = ClusterSpec(kind="slurm", nodes=2, tasks_per_node=2, mem_gb=2, timeout_min=30, slurm={"partition": "main"})
MAIN = Partition(name="main", default=True, up=True, nodes=4, minutes=None, cpus=2, memory_mb=5000, gpus=2)
SHORT = replace(MAIN, name="short", default=False, nodes=2, minutes=30)
DOWN = replace(MAIN, name="night", default=False, up=False)


def test_numbers_are_read_as_slurm_writes_them() -> None:
    assert gpus("gpu:a100:4(S:0-1),gpu:v100:2,shard:8") == 6 and gpus("gpu:2") == 2 and gpus("(null)") == 0
    assert minutes("1-02:30:00") == 1590 and minutes("00:30:00") == 30 and minutes("30:00") == 30 and minutes("2-00:00:00") == 2880
    assert number("8") == number("8+") == 8


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"slurm": {}}, []),
        ({"slurm": {"partition": "main,short"}, "nodes": 3}, []),
        ({"slurm": {"partition": "main, short"}, "nodes": 3}, []),
        ({"slurm": {"partition": "shrt"}}, ["cluster.partition: no partition 'shrt'; did you mean 'short'? valid: main, short, night"]),
        ({"slurm": {"partition": "night"}}, ["cluster.partition: 'night' is down; valid: main, short"]),
        ({"nodes": 5}, ["cluster.nodes: 5 nodes asked for; main up to 4; no partition has more"]),
        ({"nodes": 3, "slurm": {"partition": "short"}}, ["cluster.nodes: 3 nodes asked for; short up to 2; enough in main"]),
        ({"mem_gb": 6, "cpus_per_task": 2}, ["cluster.tasks_per_node x cpus_per_task: 4 CPUs", "cluster.mem_gb: 6144 MB of a node asked for"]),
    ],
)
def test_a_profile_is_held_against_its_partitions(changes: Mapping[str, object], expected: list[str]) -> None:
    problems = list(broken_limits(replace(FITS, **changes), {"main": MAIN, "short": SHORT, "night": DOWN}))  # type: ignore[arg-type]
    assert len(problems) == len(expected) and all(problem.startswith(start) for problem, start in zip(problems, expected, strict=True)), problems


def test_of_several_partitions_one_has_to_take_the_whole_job() -> None:
    wide, long = replace(MAIN, name="wide", minutes=30), replace(MAIN, name="long", nodes=1)
    asked = replace(FITS, nodes=3, timeout_min=60, slurm={"partition": "wide,long"})
    (problem,) = broken_limits(asked, {"wide": wide, "long": long})
    assert problem == "cluster.partition: no one of them takes the whole job: wide has 30 minutes of 60; long has 1 nodes of 3"
    assert not list(broken_limits(replace(asked, nodes=1), {"wide": wide, "long": long}))


def test_without_a_default_partition_a_profile_has_to_name_one() -> None:
    (problem,) = broken_limits(replace(FITS, slurm={}), {"short": SHORT})
    assert problem == "cluster.partition: missing, and this cluster has no default partition; valid: short"


def test_a_partition_has_the_largest_numbers_of_its_nodes(slurm: FakeSlurm) -> None:
    slurm.says("sinfo", "main|2|5000|gpu:2", "main|64+|9000|(null)")
    slurm.says("scontrol", "PartitionName=main Default=YES State=UP MaxTime=UNLIMITED MaxNodes=UNLIMITED TotalNodes=2")
    expected = Partition(name="main", default=True, up=True, nodes=2, minutes=None, cpus=64, memory_mb=9000, gpus=2)
    assert partitions() == {"main": expected}
    slurm.says("scontrol", "PartitionName=main Default=NO State=DOWN MaxTime=1-00:00:00 MaxNodes=1 TotalNodes=2")
    assert partitions() == {"main": replace(expected, default=False, up=False, nodes=1, minutes=1440)}


def test_what_is_no_matter_of_size_is_left_to_sbatch_and_told_in_its_words(slurm: FakeSlurm) -> None:
    slurm.says("sinfo", "main|2|5000|gpu:2", "main|2|5000|gpu:2")
    slurm.says("scontrol", "PartitionName=main Default=YES State=UP MaxTime=UNLIMITED MaxNodes=UNLIMITED TotalNodes=2")
    assert slurm_problems(FITS) == [] and slurm.calls("sbatch")[0].startswith("--test-only ")
    slurm.fails("sbatch", "allocation failure: Invalid feature specification")
    assert slurm_problems(FITS) == ["cluster: SLURM would refuse these jobs: allocation failure: Invalid feature specification"]


def test_a_silent_controller_is_a_problem_of_its_own(slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.cluster.slurm_limits.ask", lambda *command, **options: silent(*command))
    assert slurm_problems(FITS) == [f"cluster: SLURM's controller does not answer ({SILENT}); launch again when it does"]


def silent(*command: str) -> str:
    """A controller that is asked once."""
    from jobs.cluster.slurm import SchedulerSilent

    raise SchedulerSilent(f"SLURM's controller does not answer ({SILENT})")


def test_room_is_left_by_the_tightest_limit_and_endless_without_any(slurm: FakeSlurm) -> None:
    slurm.says("squeue", "17_0", "17_1", "18")
    slurm.fails("sacctmgr", "You are not running a supported accounting_storage plugin")
    slurm.says("scontrol", "ClusterName             = test")
    assert free_jobs() is None and max_array_size() == 1001
    slurm.says("scontrol", "ClusterName             = test", "MaxArraySize            = 0", "MaxJobCount             = 10")
    assert free_jobs() == 7 and max_array_size() == 1
    slurm.says("sacctmgr", "5|normal")
    assert free_jobs() == 2
