"""What a stage that ran out of time or memory is given, in words for the grid."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from harness.monitor import proposals as module
from harness.monitor.incidents import incidents
from harness.monitor.proposals import Asked, asked_in, checkpoint_advice, megabytes, more_memory, more_time, proposals
from harness.monitor.run_status import Observer
from harness.monitor.status_view import page
from harness.monitor.survey import survey
from harness.submit.previous import previous_jobs
from jobs.cluster.slurm_arrays import submission
from jobs.cluster.slurm_limits import Partition
from jobs.experiment.specs import ClusterSpec
from tests.support.fake_slurm import FakeSlurm
from tests.support.runs import FakeRun

MAIN = Partition(name="main", default=True, up=True, nodes=4, minutes=100, cpus=8, memory_mb=16000, gpus=0)
LONG = replace(MAIN, name="long", default=False, minutes=None, memory_mb=64000)
ASKED = Asked(minutes=60, memory_mb=4096.0, partitions=("main",), tasks=2, cpus=4)
SLURM = ClusterSpec(kind="slurm", timeout_min=60, mem_gb=4, tasks_per_node=2, cpus_per_task=2, slurm={"partition": "main"})
BOTH = {"main": MAIN, "long": LONG}


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "known_partitions", lambda: BOTH)
    module.used_memory_mb.cache_clear()


def test_a_script_of_ours_tells_what_a_job_asked_for(fake: FakeRun) -> None:
    assert asked_in(submission(SLURM, fake.run.path, [0, 1], name="g")) == ASKED
    assert asked_in(submission(ClusterSpec(kind="slurm"), fake.run.path, [0], name="g")) == Asked(
        minutes=1440, memory_mb=None, partitions=(), tasks=1, cpus=1
    )
    assert asked_in("").minutes is None
    assert asked_in("#SBATCH --time=1-00:00:00\n").minutes is None, "a profile's own words"


def test_memory_is_read_as_slurm_writes_it() -> None:
    assert [megabytes(text) for text in ("65536MB", "4G", "1.5Gn", "2048K", "512", "2T", "", "UNLIMITED")] == [
        65536,
        4096,
        1536,
        2,
        512,
        2097152,
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("asked", "known", "words"),
    [
        (ASKED, {}, "more time: cluster: {timeout_min: 120}"),
        (ASKED, BOTH, "more time: cluster: {timeout_min: 100}"),
        (replace(ASKED, partitions=("main", "long")), BOTH, "more time: cluster: {timeout_min: 120}"),
        (replace(ASKED, partitions=()), BOTH, "more time: cluster: {timeout_min: 100}"),
        (replace(ASKED, minutes=100), BOTH, "more time: cluster: {timeout_min: 200, partition: long}"),
        (replace(ASKED, minutes=100), {"main": MAIN, "long": replace(LONG, minutes=150)}, "more time: cluster: {timeout_min: 150, partition: long}"),
        (replace(ASKED, minutes=100), {"main": MAIN, "long": replace(LONG, up=False)}, ""),
        (replace(ASKED, minutes=100), {"main": MAIN}, ""),
    ],
)
def test_time_is_doubled_within_what_partitions_allow(asked: Asked, known: dict[str, Partition], words: str) -> None:
    assert more_time(asked, known) == words


def test_where_no_partition_allows_more_a_checkpoint_has_to_fit() -> None:
    assert checkpoint_advice(ASKED, 2.0) == "no partition allows more than 60 min, so let a checkpoint fit into it: cluster: {checkpoint_steps: 450}"
    assert checkpoint_advice(ASKED, None).endswith(": checkpoint_steps") and "checkpoint_steps: 1}" in checkpoint_advice(ASKED, 1e6)


@pytest.mark.parametrize(
    ("asked", "used_mb", "known", "words"),
    [
        (ASKED, 0.0, BOTH, "more memory: cluster: {mem_gb: 8}"),
        (ASKED, 5000.0, BOTH, "more memory: cluster: {mem_gb: 13}"),  # of a task, and a node has two
        (ASKED, 9000.0, BOTH, "more memory: cluster: {mem_gb: 15}"),  # 16000 MB are less than 16 GB
        (replace(ASKED, memory_mb=16000.0), 0.0, BOTH, "more memory: cluster: {mem_gb: 32, partition: long}"),
        (replace(ASKED, memory_mb=None), 3000.0, {}, "more memory: cluster: {mem_gb: 8}"),
        (replace(ASKED, memory_mb=None), 0.0, {}, "more memory: SLURM gave its default; set mem_gb"),
    ],
)
def test_memory_is_doubled_or_what_was_used_and_more(asked: Asked, used_mb: float, known: dict[str, Partition], words: str) -> None:
    assert more_memory(asked, used_mb, known) == words


def test_slurms_default_is_asked_for_where_a_job_named_none(slurm: FakeSlurm) -> None:
    bare = replace(ASKED, memory_mb=None)
    slurm.says("scontrol", "DefMemPerCPU            = 1024", "DefMemPerNode           = UNLIMITED")
    assert more_memory(bare, 0.0, BOTH) == "more memory: cluster: {mem_gb: 8}", "four CPUs of 1 GB, twice"
    slurm.says("scontrol", "DefMemPerNode           = UNLIMITED")
    assert more_memory(bare, 0.0, BOTH) == "more memory: SLURM gave its default; set mem_gb (a node has 16 GB)"


def test_where_no_node_has_more_that_is_said() -> None:
    assert more_memory(replace(ASKED, memory_mb=16000.0), 0.0, {"main": MAIN}).startswith("no node has more memory than the 16 GB that it had")


def ended(fake: FakeRun, slurm: FakeSlurm, stage: str, state: str) -> None:
    """A job of a stage ended in a state."""
    folder = fake.submit({"17": [stage]})
    (folder / "submission.sh").write_text(submission(SLURM, folder, [0], name="g"))
    slurm.queue(j17=state)
    slurm.says("sacct", "2048K", "3500M", "")


def test_status_and_the_next_launch_propose_more_for_the_entry_that_it_is_for(fake: FakeRun, slurm: FakeSlurm) -> None:
    trunk, child = fake.trunks[0], fake.cells_of(fake.trunks[0])[1].stages[-1]
    ended(fake, slurm, trunk, "TIMEOUT")
    text = "more time: cluster: {timeout_min: 100}   (in the entry of vim_micro under models)"
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(page(Observer(fake.run).look()))
    assert text in console.export_text()
    for cluster, proposed in ((SLURM, True), (replace(SLURM, timeout_min=90), False)):
        assert (text in previous_jobs(fake.run, fake.plan, SLURM, dict.fromkeys(fake.plan.stages, cluster)).messages) is proposed
    fake.finish(trunk)
    ended(fake, slurm, child, "OUT_OF_MEMORY")
    surveyed = survey(fake.run)
    assert proposals(surveyed, incidents(fake.run, surveyed)) == [
        "more memory: cluster: {mem_gb: 9}   (in the entry of magnitude(0.5) under pruning, or of vim_micro under models)"
    ]


def test_a_stage_that_never_reached_a_checkpoint_is_proposed_time_too(fake: FakeRun, slurm: FakeSlurm) -> None:
    stage = fake.trunks[0]
    ended(fake, slurm, stage, "FAILED")
    fake.fail(stage, kind="NoProgress", message="3 runs in a row")
    surveyed = survey(fake.run)
    assert proposals(surveyed, incidents(fake.run, surveyed)) == ["more time: cluster: {timeout_min: 100}   (in the entry of vim_micro under models)"]


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "NODE_FAIL"])
def test_for_other_ends_nothing_is_proposed(fake: FakeRun, slurm: FakeSlurm, state: str) -> None:
    ended(fake, slurm, fake.trunks[0], state)
    surveyed = survey(fake.run)
    assert proposals(surveyed, incidents(fake.run, surveyed)) == []


def test_without_the_script_of_the_job_nothing_is_proposed(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17": [fake.trunks[0]]})
    slurm.queue(j17="TIMEOUT")
    surveyed = survey(fake.run)
    assert proposals(surveyed, incidents(fake.run, surveyed)) == []
