"""The text of --dry-run."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.grid.read import Grid, read_grid
from harness.launch import OK, USAGE, main
from harness.plan.dry_run import describe
from harness.plan.jobs import divide
from harness.plan.stages import make_graph
from jobs.cluster.slurm import ask
from jobs.experiment.job import JobSpec
from jobs.experiment.specs import StageSpec
from models.plugins.tables import forget_rows
from tests.support import plugins
from tests.support.commands import written
from tests.support.fake_slurm import FakeSlurm

TEXT = """name: shown
models: [vim_micro, {name: vim_micro, se: true}]
pruning: [dense, {method: magnitude, sparsity: [0.5, 0.9]}]
recipe: {epochs: 6, finetune_epochs: 2}
seeds: [0, 1]
exclude: [{model: {se: true}, pruning: {sparsity: 0.9}}]
cluster: {stages_per_job: 4, tasks_per_node: 2}
"""


def jobs_of(grid: Grid, stages: Sequence[StageSpec], stages_per_job: int) -> list[JobSpec]:
    """Jobs with stages alone."""
    return [JobSpec(run="", grid=grid.name, stages=part, cells=(), cluster=grid.cluster) for part in divide(stages, stages_per_job)]


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    (tmp_path / "grid.yaml").write_text(TEXT)
    return read_grid(tmp_path / "grid.yaml")


def test_a_dry_run_shows_cells_stages_epochs_and_jobs(grid: Grid) -> None:
    graph = make_graph(grid.cells)
    assert describe(graph, grid, jobs_of(grid, [*graph.stages.values()], 4)).splitlines() == [
        "shown: 10 cells (seeds 0, 1)",
        "  cells           vim_micro  vim_micro+se",
        "  dense                   2             2",
        "  magnitude(0.5)          2             2",
        "  magnitude(0.9)          2             -",
        "",
        "  stage       pruning  epochs  stages  cells sharing each",
        "  train             -       6       4              2 to 3",
        "  finetune          -       2       4                   1",
        "  finetune  magnitude       2       6                   1",
        "",
        "training epochs: 44, 36 saved by sharing (45% of 80)",
        "",
        "stages: 14, 0 done, 14 to do",
        "jobs: 4, up to 4 stages each, 2 ranks each (1 x 2), local",
    ]


def test_a_dry_run_leaves_out_what_is_done(grid: Grid) -> None:
    graph = make_graph(grid.cells)
    done = {stage for stage, spec in graph.stages.items() if spec.parent is None}
    jobs = jobs_of(grid, [spec for stage, spec in graph.stages.items() if stage not in done], 4)
    text = describe(graph, grid, jobs, done=done)
    assert "; 24 done, 20 to do" in text and "stages: 14, 4 done, 10 to do\njobs: 3, " in text


def test_a_dry_run_says_when_there_is_nothing_to_do(grid: Grid) -> None:
    graph = make_graph(grid.cells)
    assert describe(graph, grid, (), done=graph.stages.keys()).endswith("stages: 14, 14 done, 0 to do\njobs: none")


def test_a_dry_run_shows_levels_of_jobs(grid: Grid) -> None:
    graph = make_graph(grid.cells)
    text = describe(graph, grid, jobs_of(grid, [*graph.stages.values()], 1))
    assert "jobs: 14 in 2 levels of 4, 10, up to 1 stage each" in text


def test_a_dry_run_counts_many_seeds_and_several_recipes(tmp_path: Path) -> None:
    text = TEXT.replace("[0, 1]", "12").replace("{epochs: 6, finetune_epochs: 2}", "{epochs: [6, 7], finetune_epochs: 2}")
    (tmp_path / "grid.yaml").write_text(text)
    grid = read_grid(tmp_path / "grid.yaml")
    assert describe(make_graph(grid.cells), grid, ()).startswith("shown: 120 cells (seeds 0 to 11, 12 of them, 2 recipes)\n")


def test_sharing_with_rewinding_cells_is_counted_in_the_epochs_saved(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(
        "name: g\nmodels: vim_micro\nseeds: [0]\nrecipe: {epochs: 6, finetune_epochs: 2}\n"
        "pruning: [dense, {method: iterative_magnitude, rounds: [1, 2]}, {method: iterative_magnitude, rounds: 1, rewind_step: 9}]\n"
    )
    grid = read_grid(path)
    assert "training epochs: 26, 24 saved by sharing (48% of 50)" in describe(make_graph(grid.cells), grid, ())


def test_a_dry_run_shows_what_plug_ins_add(tmp_path: Path) -> None:
    path = plugins.written(tmp_path, plugins.MODEL + plugins.SOURCE)
    (tmp_path / "grid.yaml").write_text(TEXT + f"plugins: {path}\n")
    grid = read_grid(tmp_path / "grid.yaml")
    graph, (loaded,) = make_graph(grid.cells), grid.plugins
    shown = describe(graph, grid, jobs_of(grid, [*graph.stages.values()], 4)).splitlines()
    line = next(number for number, line in enumerate(shown) if line.split() == ["plug-in", "sha256", "adds"])
    assert shown[line + 1] == f"  plugin.py  {loaded.plugin.sha256[:12]}  model outside_net, source of data grey"
    forget_rows()


CLUSTER_GRID = """
name: big
data: {source: imagefolder, path: /nowhere/imagenet}
recipe: {epochs: 1, finetune_epochs: 0}
models: [vim_micro]
pruning: [dense]
seeds: [0]
cluster: {kind: slurm, partition: gpu}
"""


def planned_and_refused(folder: Path, capsys: pytest.CaptureFixture[str], why: str) -> None:
    """Holds that a dry run plans a cluster's grid and says what it could not check, and that a launch says why it cannot run it."""
    grid = str(written(folder, CLUSTER_GRID))
    assert main([grid, "--dry-run"]) == OK
    plan, _, unchecked = capsys.readouterr().out.partition("not checked, because no SLURM answers on this machine:")
    assert "big: 1 cell (seeds 0)" in plan and "jobs: 2 in 2 levels" in plan
    assert "/nowhere/imagenet" in unchecked and unchecked.count(why) == 1, unchecked
    assert main([grid]) == USAGE and why in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_a_clusters_grid_is_planned_on_a_machine_without_slurm_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no srun
    planned_and_refused(tmp_path, capsys, "no srun on this machine")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("sinfo: error: fetch_config: DNS SRV lookup failed\nsinfo: fatal: Could not establish a configuration source", "finds no cluster"),
        ("sinfo: error: ClusterName needs to be specified\nsinfo: fatal: Unable to process configuration file", "finds no cluster"),
        ("slurm_load_partitions: Unable to contact slurm controller (connect failure)", "SLURM's controller does not answer"),
    ],
)
def test_a_clusters_grid_is_planned_where_slurms_commands_reach_no_cluster(
    tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], message: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (slurm.folder / "srun").symlink_to(slurm.folder / "sinfo")
    monkeypatch.setitem(ask.__kwdefaults__, "patience_s", 0.0)
    slurm.fails("sinfo", message)
    planned_and_refused(tmp_path, capsys, why)
