"""The test cluster itself."""

import pytest

from tests.slurm.conftest import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_every_node_runs_a_task_of_its_own(cluster: Cluster) -> None:
    names = cluster.call("srun", "--nodes=4", "--ntasks=4", "sh", "-c", "echo $SLURMD_NODENAME").split()
    assert sorted(names) == ["node1", "node2", "node3", "node4"]
