"""The test cluster itself."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.slurm.conftest import SCRIPTS, Cluster
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_every_node_runs_a_task_of_its_own(cluster: Cluster) -> None:
    names = cluster.call("srun", "--nodes=4", "--ntasks=4", "sh", "-c", "echo $SLURMD_NODENAME").split()
    assert sorted(names) == ["node1", "node2", "node3", "node4"]


def test_a_killed_node_takes_its_job_along_unheard_whatever_the_order_of_their_numbers(cluster: Cluster, tmp_path: Path) -> None:
    last = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last, os.W_OK):
        pytest.skip("cannot choose the numbers of processes")
    last.write_text("20000")  # the script's process; its srun's, 10000 or so, comes before that where files are listed
    script = f"sleep 1; echo 9999 >{last}; srun sh -c 'touch {tmp_path}/runs; sleep 1200'"
    job = cluster.call("sbatch", "--parsable", "--requeue", "--nodelist=node1", "--mem=100", "--output=/dev/null", f"--wrap={script}").strip()
    wait_until((tmp_path / "runs").exists, "the job to run")
    cluster.node("kill", "node1")
    try:
        wait_until(lambda: cluster.jobs()[job] not in ("RUNNING", "COMPLETING"), "SLURM to notice")
        assert cluster.jobs()[job] == "PENDING"
    finally:
        cluster.node("start", "node1")
        cluster.call("scancel", job)


def test_it_runs_the_version_that_was_asked_for_and_no_other_beside_it(cluster: Cluster) -> None:
    asked = os.environ.get("TESTCLUSTER_SLURM", "own")
    versions = {cluster.call(*command).split()[-1] for command in (("sinfo", "--version"), ("srun", "--mem=10", "sinfo", "--version"))}
    assert len(versions) == 1 and (asked == "own" or versions.pop().startswith(f"{asked}.")), versions
    for version, words in {"own" if asked != "own" else "24.11": f"it runs SLURM {asked} already", "7.3": "valid are own"}.items():
        environment = cluster.environment | {"TESTCLUSTER_SLURM": version}
        up = subprocess.run([SCRIPTS / "up.sh"], env=environment, capture_output=True, text=True, check=False)
        assert up.returncode in (1, 2) and words in up.stderr, up.stdout + up.stderr
