"""What sacct remembers of ended jobs, as jobs/cluster/slurm_jobs.py reads it."""

import pytest

from jobs.cluster.slurm_jobs import accounted, queue_state
from jobs.experiment.ids import JobId
from tests.slurm.conftest import Cluster
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_accounts_tell_how_forgotten_jobs_ended(accounting_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    accounting_cluster.reach(monkeypatch)
    script = "test $SLURM_ARRAY_TASK_ID != 1"
    answer = accounting_cluster.call("sbatch", "--array=0-4%2", "--mem=10", "--output=/dev/null", "--parsable", f"--wrap=sleep 1; {script}")
    array = answer.strip()
    accounting_cluster.call("scancel", f"{array}_4")
    jobs = [JobId(int(array), task) for task in range(5)]
    wait_until(lambda: not any(state.alive for state in queue_state(jobs).values()), "the array to end")
    wait_until(lambda: len(accounted(jobs)) >= 4 and accounted(jobs)[jobs[3]].state == "COMPLETED", "slurmdbd to hear of it")
    states = accounted(jobs)
    assert [states[job].state for job in jobs[:4]] == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    assert states[jobs[0]].nodes == "node1" and states[jobs[0]].elapsed_s >= 1
    assert jobs[4] not in states or states[jobs[4]].state == "CANCELLED"
