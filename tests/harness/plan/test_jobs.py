"""From stages to jobs: how stages are divided, what is left of them where some are done, and which jobs wait for which."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.grid.read import Grid, read_grid
from harness.plan.jobs import divide, divide_by_size, done_stages, levels, make_jobs, parent_jobs, planned_cells, to_replay
from harness.plan.stages import StageGraph, make_graph
from jobs.experiment.ids import StageId
from jobs.experiment.rewinds import ask_for_replay, refusal, rewind_name
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, DataSpec, ModelSpec, RecipeSpec, StageSpec
from models.pruning.base import Stage

TEXT = """
name: g
models: vim_micro
seeds: [0]
recipe: {epochs: 6, finetune_epochs: 2}
pruning: [dense, {method: iterative_magnitude, rounds: 1, rewind_step: 9}]
cluster: {kind: local, max_parallel: 1, stages_per_job: 2}
"""


def launched(folder: Path) -> tuple[Grid, StageGraph, RunFolder, Path]:
    """A grid whose dense training is finished and has kept nothing; the last is that stage's folder."""
    path = folder / "grid.yaml"
    path.write_text(TEXT)
    grid = read_grid(path)
    graph, run = make_graph(grid.cells), RunFolder(folder / "runs")
    trunk = run.stage_dir(graph.paths[grid.cells[0].id][0])
    (trunk / "export").mkdir(parents=True)
    (trunk / "export" / "result.json").write_text('{"steps": 100}')
    return grid, graph, run, trunk


def stages_to_do(grid: Grid, graph: StageGraph, run: RunFolder) -> list[str]:
    return [spec.stage.name for job in make_jobs(grid, graph, run, planned_cells(grid, graph)) for spec in job.stages]


def test_a_finished_stage_that_lacks_a_step_is_to_be_done_before_those_that_rewind_to_it(tmp_path: Path) -> None:
    grid, graph, run, trunk = launched(tmp_path)
    assert to_replay(graph, run) == [trunk.name] and not done_stages(graph, run)
    first = stages_to_do(grid, graph, run)
    assert first[0] == "train" and sorted(first) == ["finetune", "prune_1", "round_1", "train"]
    ask_for_replay(trunk)
    assert not run.done(StageId(trunk.name)), "until it is replayed, other jobs wait for it"
    jobs = make_jobs(grid, graph, run, planned_cells(grid, graph))
    assert jobs[0].stages[0].stage.keep_steps == (9,)


def test_once_the_step_is_kept_or_refused_the_stage_is_done(tmp_path: Path) -> None:
    grid, graph, run, trunk = launched(tmp_path)
    for file in (trunk / "export" / rewind_name(9), refusal(trunk / "export", 9)):
        file.touch()
        assert done_stages(graph, run) == {trunk.name} and "train" not in stages_to_do(grid, graph, run)
        file.unlink()
    assert to_replay(graph, run)


def tree(parents: list[int | None], rewinds: dict[int, int] | None = None) -> list[StageSpec]:
    """Stages s0, s1, ... with the parents given by number."""
    model, stage = ModelSpec(name="vim_micro", label="x"), Stage(name="train", epochs=1)
    return [
        StageSpec(
            id=StageId(f"s{index}"),
            model=model,
            data=DataSpec(),
            recipe=RecipeSpec(epochs=6, finetune_epochs=2),
            seed=0,
            stage=stage,
            parent=None if parent is None else StageId(f"s{parent}"),
            rewind=StageId(f"s{rewinds[index]}") if rewinds and index in rewinds else None,
        )
        for index, parent in enumerate(parents)
    ]


def shown(jobs: list[tuple[StageSpec, ...]]) -> list[tuple[str, tuple[int, ...]]]:
    """The stages of each job, and the jobs that it waits for."""
    return [(" ".join(spec.id for spec in stages), tuple(sorted(before))) for stages, before in zip(jobs, parent_jobs(jobs), strict=True)]


def test_a_trunk_and_its_children_share_a_process_where_they_fit() -> None:
    assert shown(divide(tree([None, 0, 0, None, 3, 3]), 3)) == [("s0 s1 s2", ()), ("s3 s4 s5", ())]


def test_small_trees_share_a_process() -> None:
    assert shown(divide(tree([None, 0, None, 2, None]), 4)) == [("s0 s1 s2 s3", ()), ("s4", ())]


def test_a_tree_that_does_not_fit_is_cut_and_its_rest_waits_for_its_trunk_alone() -> None:
    assert shown(divide(tree([None, 0, 0, 0, 0, 0, None]), 3)) == [("s0 s1 s2", ()), ("s6", ()), ("s3 s4 s5", (0,))]


def test_a_chain_is_cut_into_a_chain_of_jobs() -> None:
    jobs = divide(tree([None, 0, 1, 2, 3], rewinds={2: 0, 4: 0}), 2)
    assert shown(jobs) == [("s0 s1", ()), ("s2 s3", (0,)), ("s4", (0, 1))]
    assert levels(parent_jobs(jobs)) == [0, 1, 2]


def test_branches_that_are_long_do_not_wait_for_each_other() -> None:
    assert shown(divide(tree([None, 0, 1, 2, 0, 4, 5]), 3)) == [("s0 s1 s2", ()), ("s4 s5 s6", (0,)), ("s3", (0,))]


def test_a_parent_that_is_done_is_not_waited_for() -> None:
    assert shown(divide(tree([None, 0, 0, 1])[1:], 2)) == [("s1 s3", ()), ("s2", ())]


def test_jobs_are_made_smaller_when_slots_would_stay_idle() -> None:
    stages = tree([None] * 8)
    assert [len(job) for job in divide(stages, 8)] == [8]
    assert [len(job) for job in divide(stages, 8, slots=2)] == [4, 4]
    assert [len(job) for job in divide(stages, 8, slots=100)] == [1] * 8


def test_one_stage_a_job_gives_every_stage_a_job() -> None:
    assert shown(divide(tree([None, 0, 1]), 1)) == [("s0", ()), ("s1", (0,)), ("s2", (1,))]


def test_nothing_to_do_gives_no_jobs() -> None:
    assert divide([], 4, slots=2) == []


@pytest.mark.parametrize("per_job, slots", [(0, 1), (1, 0)])
def test_jobs_need_room(per_job: int, slots: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        divide([], per_job, slots)


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Stages to do, and the parents of all stages, done or not."""

    todo: list[StageSpec]
    parents: dict[StageId, StageId | None]


@st.composite
def trees(draw: st.DrawFn) -> Stages:
    """Any trees of up to 30 stages in all, some of which rewind to a stage before them, some of which are done and left out."""
    count = draw(st.integers(1, 30))
    parents = [draw(st.one_of(st.none(), st.integers(0, index - 1))) if index else None for index in range(count)]
    before: list[list[int]] = []  # the path to each stage, its root first
    for parent in parents:
        before.append([] if parent is None else [*before[parent], parent])
    rewinding = draw(st.sets(st.integers(0, count - 1)))
    stages = tree(parents, rewinds={index: draw(st.sampled_from(before[index])) for index in rewinding if before[index]})
    done = draw(st.sets(st.integers(0, count - 1)))
    return Stages(todo=[spec for index, spec in enumerate(stages) if index not in done], parents={spec.id: spec.parent for spec in stages})


@settings(max_examples=120)
@given(stages=trees(), per_job=st.integers(1, 8), slots=st.integers(1, 8))
def test_every_stage_runs_once_behind_all_that_it_needs(stages: Stages, per_job: int, slots: int) -> None:
    jobs = divide(stages.todo, per_job, slots, stages.parents)
    after = parent_jobs(jobs)
    sequence = [(number, spec) for number, job in enumerate(jobs) for spec in job]
    assert sorted(spec.id for _, spec in sequence) == sorted(spec.id for spec in stages.todo)
    position = {spec.id: (number, index) for index, (number, spec) in enumerate(sequence)}
    for number, spec in sequence:
        for needed in {spec.parent, spec.rewind} & position.keys():
            assert position[needed][1] < position[spec.id][1] and (position[needed][0] == number or position[needed][0] in after[number])
    for number, (job, level) in enumerate(zip(jobs, levels(after), strict=True)):
        assert 1 <= len(job) <= per_job
        assert all(before < number for before in after[number])
        assert level == 1 + max((levels(after)[before] for before in after[number]), default=-1)


@settings(max_examples=60)
@given(stages=trees(), per_job=st.integers(1, 8))
def test_a_job_waits_only_for_what_one_of_its_stages_needs(stages: Stages, per_job: int) -> None:
    jobs = divide(stages.todo, per_job, parents=stages.parents)
    owner = {spec.id: number for number, job in enumerate(jobs) for spec in job}
    for number, (job, after) in enumerate(zip(jobs, parent_jobs(jobs), strict=True)):
        needed = {owner[stage] for spec in job for stage in (spec.parent, spec.rewind) if stage in owner}
        assert after == needed - {number}


SIZES = [ClusterSpec(kind="slurm", nodes=nodes) for nodes in (1, 2, 3)]


@settings(max_examples=120)
@given(stages=trees(), per_job=st.integers(1, 8), slots=st.integers(1, 8), data=st.data())
def test_stages_of_one_size_share_a_job_and_no_job_waits_for_itself(stages: Stages, per_job: int, slots: int, data: st.DataObject) -> None:
    clusters = {spec.id: data.draw(st.sampled_from(SIZES)) for spec in stages.todo}
    jobs = divide_by_size(stages.todo, clusters, per_job, slots, stages.parents)
    assert sorted(spec.id for job in jobs for spec in job) == sorted(spec.id for spec in stages.todo)
    assert all(len({id(clusters[spec.id]) for spec in job}) == 1 and len(job) <= per_job for job in jobs)
    for number, before in enumerate(parent_jobs(jobs)):
        assert all(other < number for other in before)
    owner = {spec.id: number for number, job in enumerate(jobs) for spec in job}
    for number, job in enumerate(jobs):
        ready = {spec.id for spec in stages.todo if owner[spec.id] < number}
        for spec in job:
            assert {spec.parent, spec.rewind} & owner.keys() <= ready
            ready.add(spec.id)


@given(stages=trees(), per_job=st.integers(1, 8), slots=st.integers(1, 8))
def test_jobs_of_one_size_are_those_of_a_grid_without_sizes(stages: Stages, per_job: int, slots: int) -> None:
    alike = dict.fromkeys(stages.parents, SIZES[0])
    assert divide_by_size(stages.todo, alike, per_job, slots, stages.parents) == divide(stages.todo, per_job, slots, stages.parents)


def test_a_stage_of_another_size_waits_in_a_job_of_its_own() -> None:
    stages = tree([None, 0, 0, None, 3, 3])
    clusters = {spec.id: SIZES[index % 3 > 0] for index, spec in enumerate(stages)}
    jobs = divide_by_size(stages, clusters, 4, 1, {spec.id: spec.parent for spec in stages})
    assert shown(jobs) == [("s0 s3", ()), ("s1 s2", (0,)), ("s4 s5", (0,))]


def test_a_stage_that_rewinds_stands_behind_the_stage_in_the_middle_that_it_rewinds_to() -> None:
    stages = tree([None, 0, 1, 2, 3, 4], rewinds={5: 2})
    todo = [spec for spec in stages if spec.id != "s3"]  # s2 is trained again, to keep a step; s3 is done
    jobs = divide(todo, 2, parents={spec.id: spec.parent for spec in stages})
    assert shown(jobs) == [("s0 s1", ()), ("s2 s4", (0,)), ("s5", (1,))]
    assert levels(parent_jobs(jobs)) == [0, 1, 2]


def test_a_stage_that_rewinds_stands_behind_that_stage_although_its_own_parent_is_done() -> None:
    stages = tree([None, 0, 1, None, 3], rewinds={4: 2})  # s3 starts from scratch
    todo = [spec for spec in stages if spec.id != "s3"]
    jobs = divide(todo, 2, parents={spec.id: spec.parent for spec in stages})
    assert shown(jobs) == [("s0 s1", ()), ("s2 s4", (0,))]


def test_a_chain_of_thousands_is_divided() -> None:
    assert len(divide(tree([None, *range(2999)]), 10)) == 300


TUNED = """
name: tuned
models: [vim_micro]
pruning: [dense, {method: dense, rounds: 1}, {method: magnitude, sparsity: 0.5}]
tune: {lr: [1e-3, 2e-3], finetune_lr: [1e-4, 2e-4]}
seeds: [0, 1]
cluster: {kind: local, max_parallel: SLOTS, stages_per_job: STAGES}
"""


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("stages", [1, 2, 3, 7, 40])
def test_every_choice_runs_behind_its_trials(tmp_path: Path, stages: int, slots: int) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(TUNED.replace("STAGES", str(stages)).replace("SLOTS", str(slots)))
    grid = read_grid(path)
    graph = make_graph(grid.cells)
    jobs = make_jobs(grid, graph, RunFolder(tmp_path / "run"), planned_cells(grid, graph))
    run = [spec.id for job in jobs for spec in job.stages]
    assert sorted(run) == sorted(graph.stages) and len({*run}) == len(run)
    for spec in graph.stages.values():
        assert all(run.index(before) < run.index(spec.id) for before in spec.before)
    assert all(parent < number for number, parents in enumerate(parent_jobs([job.stages for job in jobs])) for parent in parents)
    assert sum(bool(spec.trials) for spec in graph.stages.values()) == 6, "dense with rounds chooses too: lr is that of its training"
