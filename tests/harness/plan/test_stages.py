"""The forest of stages, what is shared in it, and how it is packed into jobs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.grid.read import Grid, read_grid
from harness.plan.dry_run import describe
from harness.plan.jobs import Pack, pack
from harness.plan.stages import make_graph
from jobs.experiment.cell import Cell
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec, StageSpec
from models.pruning.base import Budget, PruningMethod, Stage
from models.pruning.dense import Dense
from models.pruning.dynamic import Dynamic
from models.pruning.iterative_magnitude import IterativeMagnitude
from models.pruning.magnitude import Magnitude
from tests.support.cells import make_cell

RECIPE = RecipeSpec(epochs=6, finetune_epochs=2)


@dataclass(frozen=True, kw_only=True)
class Round(PruningMethod):
    """What acts in one round of Rounds."""

    name: ClassVar[str] = "round"
    number: int


@dataclass(frozen=True, kw_only=True)
class Rounds(PruningMethod):
    """An iterative method: every round starts from the masks of the one before and the weights at step 5 of the first stage."""

    name: ClassVar[str] = "rounds"
    rounds: int

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        first = Stage(name="train", epochs=budget.epochs, keep_steps=(5,))
        numbers = range(1, self.rounds + 1)
        later = (Stage(name=f"round_{k}", epochs=budget.epochs, method=Round(number=k), start="rewind", rewind_step=5) for k in numbers)
        return (first, *later)


def test_magnitude_at_three_sparsities_trains_dense_once() -> None:
    methods: list[PruningMethod] = [Dense(), *(Magnitude(sparsity=sparsity) for sparsity in (0.5, 0.8, 0.9))]
    cells = [make_cell(method=method, recipe=RECIPE) for method in methods]
    plan = make_graph(cells)
    names = [spec.stage.name for spec in plan.stages.values()]
    assert names.count("train") == 1 and names.count("finetune") == 4
    (trunk,) = {plan.paths[cell.id][0] for cell in cells}
    assert all(plan.stages[plan.paths[cell.id][1]].parent == trunk for cell in cells)


def test_a_method_that_prunes_from_the_start_shares_nothing() -> None:
    plan = make_graph([make_cell(method=Dense(), recipe=RECIPE), make_cell(method=Dynamic(sparsity=0.5), recipe=RECIPE)])
    assert [spec.stage.epochs for spec in plan.stages.values()] == [6, 2, 8]


@pytest.mark.parametrize(
    "other",
    [
        make_cell(recipe=RECIPE, seed=1),
        make_cell(recipe=replace(RECIPE, lr=0.5)),
        make_cell(recipe=replace(RECIPE, epochs=7)),
        make_cell(recipe=RECIPE, data=DataSpec(split_seed=1)),
        make_cell(recipe=RECIPE, model=ModelSpec(name="vim_tiny", label="vim_tiny")),
    ],
    ids=["seed", "lr", "epochs", "data", "model"],
)
def test_stages_are_not_shared_when_what_decides_them_differs(other: Cell) -> None:
    assert len(make_graph([make_cell(recipe=RECIPE), other]).stages) == 4


@pytest.mark.parametrize("changed", [{"finetune_epochs": 9}, {"finetune_lr": 1e-5}])
def test_how_cells_are_fine_tuned_does_not_split_their_trunk(changed: dict[str, float]) -> None:
    cells = [make_cell(recipe=RECIPE), make_cell(recipe=replace(RECIPE, **changed))]
    plan = make_graph(cells)
    assert plan.paths[cells[0].id][0] == plan.paths[cells[1].id][0] and plan.paths[cells[0].id][1] != plan.paths[cells[1].id][1]


def test_the_spec_of_a_shared_stage_does_not_depend_on_which_cell_came_first() -> None:
    cells = [make_cell(recipe=RECIPE), make_cell(recipe=replace(RECIPE, finetune_epochs=9, finetune_lr=1e-5))]
    assert make_graph(cells).stages == make_graph(reversed(cells)).stages


def test_rounds_serve_the_cell_that_asks_for_fewer_and_rewind_to_the_first_stage() -> None:
    cells = [make_cell(method=Rounds(rounds=rounds), recipe=RECIPE) for rounds in (2, 3)]
    plan = make_graph(cells)
    first, second, third, fourth = plan.paths[cells[1].id]
    assert plan.paths[cells[0].id] == (first, second, third)
    assert [(plan.stages[one].parent, plan.stages[one].rewind) for one in (first, second, third, fourth)] == [
        (None, None),
        (first, first),
        (second, first),
        (third, first),
    ]


def test_rewinding_shares_the_dense_training_which_keeps_every_step_that_a_cell_goes_back_to() -> None:
    methods = [Dense(), *(IterativeMagnitude(rounds=1, rewind_step=step) for step in (20, 0, 20)), Magnitude(sparsity=0.5)]
    cells = [make_cell(method=method, recipe=RECIPE) for method in methods]
    plan = make_graph(cells)
    (trunk,) = {plan.paths[cell.id][0] for cell in cells}
    assert plan.stages[trunk].stage.keep_steps == (0, 20)
    assert make_graph(cells[:1]).paths[cells[0].id] == plan.paths[cells[0].id]
    early, late = plan.paths[cells[2].id], plan.paths[cells[1].id]
    assert early[:2] == late[:2] and early[2] != late[2], "the mask is shared, the training from another step is not"
    assert {plan.stages[path[2]].rewind for path in (early, late)} == {trunk}
    assert make_graph(reversed(cells)).stages == plan.stages


def test_sharing_with_rewinding_cells_is_counted_in_the_epochs_saved(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(
        "name: g\nmodels: vim_micro\nseeds: [0]\nrecipe: {epochs: 6, finetune_epochs: 2}\n"
        "pruning: [dense, {method: iterative_magnitude, rounds: [1, 2]}, {method: iterative_magnitude, rounds: 1, rewind_step: 9}]\n"
    )
    grid = read_grid(path)
    assert "training epochs: 26, 24 saved by sharing (48% of 50)" in describe(make_graph(grid.cells), grid, ())


def test_stages_are_the_same_from_cells_of_one_grid_and_from_one_cell_of_a_record() -> None:
    cell = make_cell(method=Magnitude(sparsity=0.5), recipe=RECIPE)
    alone, among_others = make_graph([Cell.from_json(cell.to_json())]), make_graph([make_cell(recipe=RECIPE), cell])
    assert alone.paths[cell.id] == among_others.paths[cell.id]
    assert all(alone.stages[one] == among_others.stages[one] for one in alone.stages)


@pytest.mark.parametrize("start", ["parent", "rewind"])
def test_a_path_whose_stage_starts_from_nothing_is_refused(start: str) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Rootless(PruningMethod):
        name: ClassVar[str] = "rootless"

        def stages(self, budget: Budget) -> tuple[Stage, ...]:
            before = () if start == "parent" else (Stage(name="train", epochs=1),)
            return (*before, Stage(name="finetune", epochs=1, start=start))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=f"rootless: stage 'finetune' starts from {start}, but no stage before it"):
        make_graph([make_cell(method=Rootless())])


# Packs


def tree(parents: list[int | None], rewinds: dict[int, int] | None = None) -> list[StageSpec]:
    """Stages s0, s1, ... with the parents given by place."""
    model, stage = ModelSpec(name="vim_micro", label="x"), Stage(name="train", epochs=1)
    return [
        StageSpec(
            id=f"s{index}",
            model=model,
            data=DataSpec(),
            recipe=RECIPE,
            seed=0,
            stage=stage,
            parent=None if parent is None else f"s{parent}",
            rewind=f"s{rewinds[index]}" if rewinds and index in rewinds else None,
        )
        for index, parent in enumerate(parents)
    ]


def shown(packs: tuple[Pack, ...]) -> list[tuple[str, tuple[int, ...]]]:
    return [(" ".join(one.stages), one.after) for one in packs]


def test_a_trunk_and_its_children_share_a_process_where_they_fit() -> None:
    assert shown(pack(tree([None, 0, 0, None, 3, 3]), 3)) == [("s0 s1 s2", ()), ("s3 s4 s5", ())]


def test_small_trees_share_a_process() -> None:
    assert shown(pack(tree([None, 0, None, 2, None]), 4)) == [("s0 s1 s2 s3", ()), ("s4", ())]


def test_a_tree_that_does_not_fit_is_cut_and_its_rest_waits_for_its_trunk_alone() -> None:
    assert shown(pack(tree([None, 0, 0, 0, 0, 0, None]), 3)) == [("s0 s1 s2", ()), ("s6", ()), ("s3 s4 s5", (0,))]


def test_a_chain_is_cut_into_a_chain_of_packs() -> None:
    packs = pack(tree([None, 0, 1, 2, 3], rewinds={2: 0, 4: 0}), 2)
    assert shown(packs) == [("s0 s1", ()), ("s2 s3", (0,)), ("s4", (0, 1))]
    assert [one.level for one in packs] == [0, 1, 2]


def test_branches_that_are_long_do_not_wait_for_each_other() -> None:
    assert shown(pack(tree([None, 0, 1, 2, 0, 4, 5]), 3)) == [("s0 s1 s2", ()), ("s4 s5 s6", (0,)), ("s3", (0,))]


def test_a_parent_that_is_done_is_not_waited_for() -> None:
    assert shown(pack(tree([None, 0, 0, 1])[1:], 2)) == [("s1 s3", ()), ("s2", ())]


def test_packs_are_made_smaller_when_slots_would_stay_idle() -> None:
    stages = tree([None] * 8)
    assert [len(one.stages) for one in pack(stages, 8)] == [8]
    assert [len(one.stages) for one in pack(stages, 8, slots=2)] == [4, 4]
    assert [len(one.stages) for one in pack(stages, 8, slots=100)] == [1] * 8


def test_one_stage_a_job_gives_every_stage_a_pack() -> None:
    assert shown(pack(tree([None, 0, 1]), 1)) == [("s0", ()), ("s1", (0,)), ("s2", (1,))]


def test_nothing_to_do_gives_no_packs() -> None:
    assert pack([], 4, slots=2) == ()


@pytest.mark.parametrize("per_job, slots", [(0, 1), (1, 0)])
def test_packs_need_room(per_job: int, slots: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        pack([], per_job, slots)


@st.composite
def forests(draw: st.DrawFn) -> list[StageSpec]:
    """Any forest of up to 30 stages, some of which rewind to their root, some of which are done and left out."""
    count = draw(st.integers(1, 30))
    parents = [draw(st.one_of(st.none(), st.integers(0, index - 1))) if index else None for index in range(count)]
    roots: list[int] = []
    for index, parent in enumerate(parents):
        roots.append(index if parent is None else roots[parent])
    rewinding = draw(st.sets(st.integers(0, count - 1)))
    stages = tree(parents, rewinds={index: roots[index] for index in rewinding if roots[index] != index})
    done = draw(st.sets(st.integers(0, count - 1)))
    return [spec for index, spec in enumerate(stages) if index not in done]


@settings(max_examples=120)
@given(stages=forests(), per_job=st.integers(1, 8), slots=st.integers(1, 8))
def test_every_stage_runs_once_behind_all_that_it_needs(stages: list[StageSpec], per_job: int, slots: int) -> None:
    packs = pack(stages, per_job, slots)
    specs = {spec.id: spec for spec in stages}
    order = [(one.index, stage) for one in packs for stage in one.stages]
    assert sorted(stage for _, stage in order) == sorted(specs) and [one.index for one in packs] == list(range(len(packs)))
    place = {stage: (number, position) for position, (number, stage) in enumerate(order)}
    for stage, (number, position) in place.items():
        for needed in {specs[stage].parent, specs[stage].rewind} & specs.keys():
            assert place[needed][1] < position and (place[needed][0] == number or place[needed][0] in packs[number].after)
    for one in packs:
        assert 1 <= len(one.stages) <= per_job
        assert all(before < one.index for before in one.after)
        assert one.level == 1 + max((packs[before].level for before in one.after), default=-1)


@settings(max_examples=60)
@given(stages=forests(), per_job=st.integers(1, 8))
def test_a_pack_waits_only_for_what_one_of_its_stages_needs(stages: list[StageSpec], per_job: int) -> None:
    packs = pack(stages, per_job)
    owner = {stage: one.index for one in packs for stage in one.stages}
    specs = {spec.id: spec for spec in stages}
    for one in packs:
        needed = {owner[up] for stage in one.stages for up in (specs[stage].parent, specs[stage].rewind) if up in owner}
        assert set(one.after) == needed - {one.index}


def test_a_chain_of_thousands_is_packed() -> None:
    assert len(pack(tree([None, *range(2999)]), 10)) == 300


# What --dry-run says

TEXT = """name: shown
models: [vim_micro, {name: vim_micro, se: true}]
pruning: [dense, {method: magnitude, sparsity: [0.5, 0.9]}]
recipe: {epochs: 6, finetune_epochs: 2}
seeds: [0, 1]
exclude: [{model: {se: true}, pruning: {sparsity: 0.9}}]
cluster: {stages_per_job: 4, tasks_per_node: 2}
"""


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    (tmp_path / "grid.yaml").write_text(TEXT)
    return read_grid(tmp_path / "grid.yaml")


def test_a_dry_run_shows_cells_stages_epochs_and_jobs(grid: Grid) -> None:
    plan = make_graph(grid.cells)
    assert describe(plan, grid, pack(plan.stages.values(), 4)).splitlines() == [
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
    plan = make_graph(grid.cells)
    done = {one for one, spec in plan.stages.items() if spec.parent is None}
    packs = pack([spec for one, spec in plan.stages.items() if one not in done], 4)
    text = describe(plan, grid, packs, done=done)
    assert "; 24 done, 20 to do" in text and "stages: 14, 4 done, 10 to do\njobs: 3, " in text


def test_a_dry_run_says_when_there_is_nothing_to_do(grid: Grid) -> None:
    plan = make_graph(grid.cells)
    assert describe(plan, grid, (), done=plan.stages.keys()).endswith("stages: 14, 14 done, 0 to do\njobs: none")


def test_a_dry_run_shows_levels_of_jobs(grid: Grid) -> None:
    plan = make_graph(grid.cells)
    assert "jobs: 14 in 2 levels of 4, 10, up to 1 stages each" in describe(plan, grid, pack(plan.stages.values(), 1))


def test_a_dry_run_counts_many_seeds_and_several_recipes(tmp_path: Path) -> None:
    text = TEXT.replace("[0, 1]", "12").replace("{epochs: 6, finetune_epochs: 2}", "{epochs: [6, 7], finetune_epochs: 2}")
    (tmp_path / "grid.yaml").write_text(text)
    grid = read_grid(tmp_path / "grid.yaml")
    assert describe(make_graph(grid.cells), grid, ()).startswith("shown: 120 cells (seeds 0 to 11, 12 of them, 2 recipes)\n")
