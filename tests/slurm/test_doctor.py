"""The doctor on a real SLURM: from the login side, and from within an allocation."""

import json
import sys
from pathlib import Path

import pytest

from tests.slurm.conftest import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_it_reads_a_real_slurm_and_looks_at_every_node_of_a_job(cluster: Cluster, tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"kind: slurm\nnodes: 2\ncpus_per_task: 1\nmem_gb: 0.5\ncache: {tmp_path}/cache\n")
    doctor = [sys.executable, "-m", "harness.doctor", profile, "--json", "--runs", tmp_path / "runs"]
    reports = json.loads(cluster.call("salloc", "--quiet", "--nodes=2", "--ntasks-per-node=1", *doctor, "--job"))
    first, *nodes = reports.values()
    topics = {finding["topic"]: finding for finding in first}
    assert topics["slurm"]["state"] == "ok" and "cluster " in topics["slurm"]["text"]
    assert topics["partitions"]["state"] == topics["profile"]["state"] == "ok", topics
    assert topics["accounting"]["text"] == "SLURM keeps no accounts" and topics["limits of a job"]["text"].startswith("no cgroups")
    assert reports["nodes"][0]["text"].startswith("2 nodes wrote to"), reports["nodes"]
    for node in nodes[:-1]:
        assert {finding["topic"] for finding in node} >= {"python", "runs", "cache", "network", "kernels"}
        assert not [finding for finding in node if finding["state"] == "error"]
        assert node[0]["text"] == f"{tmp_path}/cache is the folder that the login node sees", node[0]
