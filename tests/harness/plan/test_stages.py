"""The graph of stages, and what cells share in it."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from harness.plan.stages import make_graph
from jobs.experiment.cell import Cell
from jobs.experiment.specs import DataSpec, Distillation, ModelSpec, RecipeSpec
from models.pruning.base import Budget, PruningMethod, Stage
from models.pruning.dense import Dense
from models.pruning.dynamic import Dynamic
from models.pruning.iterative_magnitude import IterativeMagnitude
from models.pruning.magnitude import Magnitude
from tests.support.cells import make_cell

RECIPE = RecipeSpec(epochs=6, finetune_epochs=2)


@dataclass(frozen=True, kw_only=True)
class Round(PruningMethod):
    """The method that acts in one round of Rounds."""

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
        rounds = (Stage(name=f"round_{k}", epochs=budget.epochs, method=Round(number=k), start="rewind", rewind_step=5) for k in numbers)
        return (first, *rounds)


def test_magnitude_at_three_sparsities_trains_dense_once() -> None:
    methods: list[PruningMethod] = [Dense(), *(Magnitude(sparsity=sparsity) for sparsity in (0.5, 0.8, 0.9))]
    cells = [make_cell(method=method, recipe=RECIPE) for method in methods]
    graph = make_graph(cells)
    names = [spec.stage.name for spec in graph.stages.values()]
    assert names.count("train") == 1 and names.count("finetune") == 4
    (trunk,) = {graph.paths[cell.id][0] for cell in cells}
    assert all(graph.stages[graph.paths[cell.id][1]].parent == trunk for cell in cells)


def test_a_method_that_prunes_from_the_start_shares_nothing() -> None:
    graph = make_graph([make_cell(method=Dense(), recipe=RECIPE), make_cell(method=Dynamic(sparsity=0.5), recipe=RECIPE)])
    assert [spec.stage.epochs for spec in graph.stages.values()] == [6, 2, 8]


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
    graph = make_graph(cells)
    assert graph.paths[cells[0].id][0] == graph.paths[cells[1].id][0] and graph.paths[cells[0].id][1] != graph.paths[cells[1].id][1]


def test_the_spec_of_a_shared_stage_does_not_depend_on_which_cell_came_first() -> None:
    cells = [make_cell(recipe=RECIPE), make_cell(recipe=replace(RECIPE, finetune_epochs=9, finetune_lr=1e-5))]
    assert make_graph(cells).stages == make_graph(reversed(cells)).stages


def test_rounds_serve_the_cell_that_asks_for_fewer_and_rewind_to_the_first_stage() -> None:
    cells = [make_cell(method=Rounds(rounds=rounds), recipe=RECIPE) for rounds in (2, 3)]
    graph = make_graph(cells)
    first, second, third, fourth = graph.paths[cells[1].id]
    assert graph.paths[cells[0].id] == (first, second, third)
    assert [(graph.stages[stage].parent, graph.stages[stage].rewind) for stage in (first, second, third, fourth)] == [
        (None, None),
        (first, first),
        (second, first),
        (third, first),
    ]


def test_rewinding_shares_the_dense_training_which_keeps_every_step_that_a_cell_goes_back_to() -> None:
    methods = [Dense(), *(IterativeMagnitude(rounds=1, rewind_step=step) for step in (20, 0, 20)), Magnitude(sparsity=0.5)]
    cells = [make_cell(method=method, recipe=RECIPE) for method in methods]
    graph = make_graph(cells)
    (trunk,) = {graph.paths[cell.id][0] for cell in cells}
    assert graph.stages[trunk].stage.keep_steps == (0, 20)
    assert make_graph(cells[:1]).paths[cells[0].id] == graph.paths[cells[0].id]
    early, late = graph.paths[cells[2].id], graph.paths[cells[1].id]
    assert early[:2] == late[:2] and early[2] != late[2], "the mask is shared, the training from another step is not"
    assert {graph.stages[path[2]].rewind for path in (early, late)} == {trunk}
    assert make_graph(reversed(cells)).stages == graph.stages


def test_stages_are_the_same_from_cells_of_one_grid_and_from_one_cell_of_a_record() -> None:
    cell = make_cell(method=Magnitude(sparsity=0.5), recipe=RECIPE)
    alone, among_others = make_graph([Cell.from_json(cell.to_json())]), make_graph([make_cell(recipe=RECIPE), cell])
    assert alone.paths[cell.id] == among_others.paths[cell.id]
    assert all(alone.stages[stage] == among_others.stages[stage] for stage in alone.stages)


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


def test_a_stage_rewinds_to_the_first_stage_that_kept_its_own_step() -> None:
    @dataclass(frozen=True, kw_only=True)
    class TwoKeepers(PruningMethod):
        name: ClassVar[str] = "two_keepers"

        def stages(self, budget: Budget) -> tuple[Stage, ...]:
            kept = (Stage(name="train", epochs=2, keep_steps=(3,)), Stage(name="tune", epochs=2, start="parent", keep_steps=(5, 3)))
            return (*kept, *(Stage(name=f"back_to_{step}", epochs=1, start="rewind", rewind_step=step) for step in (5, 3)))

    cell = make_cell(method=TwoKeepers(), recipe=RECIPE)
    graph = make_graph([cell])
    train, tune, to_5, to_3 = graph.paths[cell.id]
    assert (graph.stages[to_5].parent, graph.stages[to_5].rewind) == (tune, tune)
    assert (graph.stages[to_3].parent, graph.stages[to_3].rewind) == (to_5, train)
    assert [graph.stages[stage].stage.keep_steps for stage in (train, tune)] == [(3,), (3, 5)]


def taught(method: PruningMethod, **distill: Any) -> Cell:
    """A cell whose network is taught."""
    return make_cell(method=method, recipe=replace(RECIPE, distill=Distillation(**{"teacher": "dense"} | distill)))


@pytest.mark.parametrize("method", [Dense(), Magnitude(sparsity=0.5), IterativeMagnitude(rounds=2, rewind_step=3), Dynamic(sparsity=0.5)])
def test_the_dense_training_teaches_every_later_stage_of_every_method_and_is_shared_with_cells_without_a_teacher(method: PruningMethod) -> None:
    cell, plain = taught(method), make_cell(recipe=RECIPE)
    graph = make_graph([cell, plain])
    trunk, *later = (graph.stages[stage] for stage in graph.paths[cell.id])
    assert trunk.id == graph.paths[plain.id][0] and trunk.teacher is None and trunk.recipe.distill is None
    assert later and all(spec.teacher == trunk.id and trunk.id in spec.needed and spec.recipe.distill is not None for spec in later)
    assert [spec.stage.epochs for spec in later if spec.stage.start == "scratch"] == ([8] if isinstance(method, Dynamic) else [])


def test_a_teacher_from_a_file_is_no_stage() -> None:
    cell = taught(Dynamic(sparsity=0.5), teacher="/w.pth", teacher_sha256="1" * 64)
    (spec,) = make_graph([cell]).stages.values()
    assert spec.teacher is None and spec.recipe.distill is not None


def test_a_stage_that_starts_from_scratch_is_another_under_another_teacher() -> None:
    """Dynamic pruning trains epochs + finetune_epochs, so its own recipe does not say how long its teacher trained."""
    distill = Distillation(teacher="dense")
    recipes = [RecipeSpec(epochs=epochs, finetune_epochs=8 - epochs, distill=distill) for epochs in (6, 5)]
    cells = [make_cell(method=Dynamic(sparsity=0.5), recipe=recipe) for recipe in recipes]
    graph = make_graph(cells)
    assert len({graph.paths[cell.id][-1] for cell in cells}) == 2
