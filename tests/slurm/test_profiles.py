"""The profiles that come with the project: they are read, and submitit takes what they say."""

from pathlib import Path

import pytest
from submitit.slurm.slurm import _make_sbatch_string

from harness.grid import read_grid
from jobs.cluster import slurm_parameters
from jobs.specs import ClusterSpec

PROFILES = sorted((Path(__file__).parents[2] / "slurm").glob("*.yaml"))


def cluster_of(tmp_path: Path, cluster: str) -> ClusterSpec:
    """The cluster of a grid that says so."""
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"name: t\nrecipe: {{batch_size: 64}}\nmodels: [vim_micro]\npruning: [dense]\nseeds: 1\ncluster: {cluster}\n")
    return read_grid(grid).cluster


def sbatch(tmp_path: Path, cluster: ClusterSpec, after: tuple[str, ...] = ()) -> str:
    """The submission file that submitit makes of a cluster."""
    parameters = slurm_parameters(cluster, "t", after)
    parameters.pop("max_num_timeout", None)
    return _make_sbatch_string(command="run", folder=tmp_path, **parameters)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_a_profile_becomes_a_submission_file(tmp_path: Path, profile: Path) -> None:
    cluster = cluster_of(tmp_path, str(profile))
    text = sbatch(tmp_path, cluster)
    assert f"#SBATCH --partition={cluster.slurm['partition']}" in text
    assert f"#SBATCH --nodes={cluster.nodes}" in text and f"#SBATCH --ntasks-per-node={cluster.tasks_per_node}" in text
    assert "--kill-on-bad-exit=1" in text and "wckey" not in text


def test_a_level_waits_for_the_one_before_it_however_that_ended(tmp_path: Path) -> None:
    text = sbatch(tmp_path, cluster_of(tmp_path, "{kind: slurm, partition: p}"), after=("12", "13"))
    assert "#SBATCH --dependency=afterany:12:13" in text


def test_submitits_names_come_with_and_without_their_prefix(tmp_path: Path) -> None:
    text = sbatch(tmp_path, cluster_of(tmp_path, "{kind: slurm, slurm_partition: p, qos: long, additional_parameters: {reservation: r}}"))
    assert "#SBATCH --partition=p" in text and "#SBATCH --qos=long" in text and "#SBATCH --reservation=r" in text
