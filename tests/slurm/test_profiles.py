"""The profiles that come with the project: they are read, and submitit takes what they say."""

from pathlib import Path

import pytest

from harness.grid.read import read_grid
from jobs.cluster.slurm_arrays import submission

PROFILES = sorted((Path(__file__).parents[2] / "slurm").glob("*.yaml"))


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_a_profile_becomes_a_submission_file(tmp_path: Path, profile: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"name: t\nrecipe: {{batch_size: 64}}\nmodels: [vim_micro]\npruning: [dense]\nseeds: 1\ncluster: {profile}\n")
    cluster = read_grid(grid).cluster
    text = submission(cluster, tmp_path, [0], name="t")
    assert f"#SBATCH --partition={cluster.slurm['partition']}" in text
    assert f"#SBATCH --nodes={cluster.nodes}" in text and f"#SBATCH --ntasks-per-node={cluster.tasks_per_node}" in text
    assert "--kill-on-bad-exit=1" in text and "wckey" not in text
