"""On which cluster each stage runs."""

from pathlib import Path

from harness.cost.chosen import limited
from harness.grid.read import Grid, read_grid
from harness.plan.dry_run import describe
from harness.plan.jobs import make_jobs, planned_cells
from harness.plan.sizes import other_ranks, sizes_of_cells, stage_clusters
from harness.plan.stages import make_graph
from jobs.experiment.ids import StageId
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec

HEAD = "name: g\nseeds: [0, 1]\nrecipe: {epochs: 4, finetune_epochs: 2}\ncluster: {kind: slurm, timeout_min: 60, stages_per_job: 8}\n"


def grid(folder: Path, text: str) -> Grid:
    (folder / "grid.yaml").write_text(HEAD + text)
    return read_grid(folder / "grid.yaml")


def minutes(of: Grid) -> dict[str, set[int]]:
    """The time limits of the stages, by what the stages are."""
    graph, found = make_graph(of.cells), dict[str, set[int]]()
    for stage, cluster in stage_clusters(of, graph).items():
        spec = graph.stages[stage]
        found.setdefault(f"{spec.model.label} {spec.stage.name} {spec.stage.method.name if spec.stage.method else ''}".strip(), set()).add(
            cluster.timeout_min
        )
    return found


def test_without_resources_all_stages_run_on_the_profile(tmp_path: Path) -> None:
    plain = grid(tmp_path, "models: [vim_micro]\npruning: [dense]\n")
    assert all(cluster is plain.cluster for cluster in stage_clusters(plain, make_graph(plain.cells)).values())


def test_the_dense_training_is_the_models_and_the_rest_is_the_prunings_where_it_says_so(tmp_path: Path) -> None:
    models = "models: [vim_micro, {name: vim_tiny, cluster: {timeout_min: 600}}]\n"
    short = "{method: magnitude, sparsity: [0.5, 0.9], cluster: {timeout_min: 30}}"
    scratch = "{method: rigl, sparsity: 0.5, cluster: {timeout_min: 90}}"
    assert minutes(grid(tmp_path, f"{models}pruning: [dense, {short}, {scratch}]\n")) == {
        "vim_micro train": {60},
        "vim_micro finetune": {60},
        "vim_micro finetune magnitude": {30},
        "vim_micro train rigl": {90},
        "vim_tiny train": {600},
        "vim_tiny finetune": {600},
        "vim_tiny finetune magnitude": {30},
        "vim_tiny train rigl": {90},
    }
    alone = minutes(grid(tmp_path, f"models: [vim_micro]\npruning: [{short}]\n"))
    assert alone["vim_micro train"] == {60}, "although no other pruning shares it: sharing changes no size"


def two_chains(folder: Path) -> Grid:
    """Two prunings that share the stages of their first method, and give their jobs different limits."""
    chains = [
        f"{{chain: [{{method: structured, ratio: 0.3}}, {{method: {last}, sparsity: 0.5}}], cluster: {{timeout_min: {limit}}}}}"
        for last, limit in (("wanda", 30), ("magnitude", 40))
    ]
    return grid(folder, f"models: [vim_micro]\npruning: [{', '.join(chains)}]\n")


def test_a_stage_that_two_prunings_share_is_of_neither(tmp_path: Path) -> None:
    found = minutes(two_chains(tmp_path))
    assert {limit for limits in found.values() for limit in limits} == {30, 40, 60}
    assert all(limits == {60} for name, limits in found.items() if "structured" in name)


def test_a_budget_that_leaves_one_of_them_out_changes_no_size(tmp_path: Path) -> None:
    whole = two_chains(tmp_path)
    graph = make_graph(whole.cells)
    one = limited(whole, frozenset(cell.id for cell in whole.cells if "wanda" in cell.pruning))
    assert len(one.cells) == len(one.left_out) == 2
    stages = make_graph(one.cells)
    sizes, every = stage_clusters(one, stages), stage_clusters(whole, graph)
    assert sizes == {stage: every[stage] for stage in stages.stages} and {cluster.timeout_min for cluster in sizes.values()} == {30, 60}


def test_jobs_hold_stages_of_one_size_and_a_dry_run_tells_them_apart(tmp_path: Path) -> None:
    wide = "models: [vim_micro, {name: vim_tiny, cluster: {nodes: 2, mem_gb: 64, partition: [a, b]}}]\npruning: [dense]\n"
    made = grid(tmp_path, wide)
    graph, run = make_graph(made.cells), RunFolder(tmp_path / "run")
    jobs = make_jobs(made, graph, run, planned_cells(made, graph))
    assert [({spec.model.label for spec in job.stages}, job.cluster.nodes, len(job.stages)) for job in jobs] == [
        ({"vim_micro"}, 1, 4),
        ({"vim_tiny"}, 2, 4),
    ]
    text = describe(graph, made, jobs).splitlines()
    assert text[-3:] == [
        "jobs: 2, up to 4 stages each, of 2 sizes, slurm",
        "  1 job: 1 rank each (1 x 1), 1 CPU a rank, up to 60 min",
        "  1 job: 2 ranks each (2 x 1), 1 CPU a rank, 64 GB, up to 60 min, partition a,b",
    ]


def test_sizes_are_told_with_the_entry_that_asks_for_them(tmp_path: Path) -> None:
    entries = (
        "models:\n- vim_micro\n- {name: vim_tiny, cluster: {nodes: 2}}\npruning:\n- dense\n- {method: random, sparsity: 0.5, cluster: {mem_gb: 9}}\n"
    )
    made = grid(tmp_path, entries)
    told = [
        (where.removeprefix(f"{tmp_path}/"), cluster.nodes, cluster.mem_gb, len(cells)) for where, cluster, cells in sizes_of_cells(made, made.cells)
    ]
    assert told == [
        ("grid.yaml", 1, None, 4),
        ("grid.yaml:10: pruning[1]", 1, 9.0, 2),
        ("grid.yaml:7: models[1]", 2, None, 4),
        ("grid.yaml:10: pruning[1]", 2, 9.0, 2),
    ]


def test_a_stage_in_training_keeps_its_ranks_or_is_refused_before_anything_is_queued(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    two, four = ClusterSpec(kind="slurm", nodes=2), ClusterSpec(kind="slurm", tasks_per_node=4)
    for step, ranks in (("step-000000010", 4), ("step-000000020", 2)):
        for rank in range(ranks):
            path = run.stage_dir("s1") / "checkpoints" / step / f"rank-{rank}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert other_ranks(run, {StageId("s1"): two, StageId("s2"): four}) == []
    (problem,) = other_ranks(run, {StageId("s1"): four})
    assert problem.startswith("stage s1 has a checkpoint of 2 ranks, and its jobs would have 4 (nodes x tasks_per_node): give it as many as before")
    run.export_dir("s1").mkdir()
    assert other_ranks(run, {StageId("s1"): four}) == [], "it is done"
