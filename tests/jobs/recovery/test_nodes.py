"""Nodes are blamed for the jobs that they ended, and avoided after the second failure."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.experiment.files import write_json
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.recovery.nodes import around_bad_nodes, blame, blame_lost_nodes, faults, left_out
from tests.support.fake_slurm import FakeSlurm
from tests.support.runs import FakeRun

SLURM = ClusterSpec(kind="slurm")


NODE = "NodeName={} State={} BootTime=2020-01-01T00:00:00 SlurmdStartTime={}"


LONG_AGO, LATER = "2026-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"


def attempt(fake: FakeRun, job: str, restarts: int = 0, started: str = LONG_AGO) -> Path:
    """A stage whose last attempt was this job's, on node1 and node2."""
    folder = fake.run.stage_dir(fake.trunks[0])
    write_json(folder / "stage.json", {"job": job, "restarts": restarts, "nodes": "node[1-2]", "started": started})
    return folder


def test_of_a_lost_jobs_nodes_the_one_that_is_down_is_blamed(fake: FakeRun, slurm: FakeSlurm) -> None:
    slurm.says("scontrol", NODE.format("node1", "MIXED", "2025-01-01T00:00:00"), NODE.format("node2", "DOWN*+NOT_RESPONDING", "2025-01-01T00:00:00"))
    assert blame_lost_nodes(fake.run, attempt(fake, "17_0"), SLURM) == ["node2"] and faults(fake.run) == {"node2": 1}
    assert blame_lost_nodes(fake.run, attempt(fake, "17_0"), SLURM) == ["node2"] and faults(fake.run) == {"node2": 1}, "one attempt counts once"


def test_a_node_whose_slurmd_came_back_after_the_job_began_is_blamed(fake: FakeRun, slurm: FakeSlurm) -> None:
    slurm.says("scontrol", NODE.format("node1", "IDLE", "2026-01-02T00:00:00"), NODE.format("node2", "IDLE", "2025-01-01T00:00:00"))
    assert blame_lost_nodes(fake.run, attempt(fake, "17_0"), SLURM) == ["node1"]


def test_a_preempted_job_blames_no_node(fake: FakeRun, slurm: FakeSlurm) -> None:
    slurm.says("scontrol", NODE.format("node1", "MIXED", "2025-01-01T00:00:00"), NODE.format("node2", "IDLE", "None"))
    assert blame_lost_nodes(fake.run, attempt(fake, "17_0"), SLURM) == [] and faults(fake.run) == {}


def test_a_node_that_fails_twice_is_left_out_of_what_waits_and_of_what_comes(
    fake: FakeRun, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.submit({"17_0": [fake.trunks[0]], "18": [fake.trunks[1]]})
    slurm.says("scontrol", NODE.format("node2", "DOWN", "None"))
    blame_lost_nodes(fake.run, attempt(fake, "17_0", restarts=0), SLURM)
    assert left_out(fake.run) == () and around_bad_nodes(fake.run, SLURM) == SLURM
    blame_lost_nodes(fake.run, attempt(fake, "18"), SLURM)
    assert faults(fake.run) == {"node2": 1}, "both jobs went with the node at once"
    blame_lost_nodes(fake.run, attempt(fake, "17_0", restarts=1, started=LATER), SLURM)
    assert left_out(fake.run) == ("node2",)
    assert [call for call in slurm.calls("scontrol") if call.startswith("update")] == [
        "update JobId=17 ExcNodeList=node2",
        "update JobId=18 ExcNodeList=node2",
    ]
    kept = replace(SLURM, slurm={"exclude": "node9", "partition": "main"})
    assert around_bad_nodes(fake.run, kept).slurm == {"exclude": "node9,node2", "partition": "main"}
    assert "left out, having failed 2 times or more: node2" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_failure_that_cannot_be_read_does_not_count(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(tmp_path)
    blame(run, "node1", "17-0", "2026-01-01", "it is gone")
    (run.node_dir("node1") / "18-0.json").write_bytes(content)
    assert faults(run) == {"node1": 1}
