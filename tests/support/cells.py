"""Cells of any parts, with their ids."""

from jobs.experiment.cell import Cell
from jobs.experiment.identity import canonical, cell_id, data_identity, method_identity, model_identity, recipe_identity
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec
from models.pruning.base import PruningMethod
from models.pruning.chain import Chain
from models.pruning.dense import Dense
from models.pruning.dynamic import Dynamic
from models.pruning.magnitude import Magnitude
from models.pruning.wanda import Wanda


def make_cell(
    model: ModelSpec | None = None,
    method: PruningMethod | None = None,
    data: DataSpec | None = None,
    recipe: RecipeSpec | None = None,
    seed: int = 0,
) -> Cell:
    """A cell with its id; the default one is dense vim_micro on digits."""
    model, method = model or ModelSpec(name="vim_micro", label="vim_micro"), method or Dense()
    data, recipe = data or DataSpec(), recipe or RecipeSpec()
    parts = (model_identity(model), method_identity(method), data_identity(data), recipe_identity(recipe))
    return Cell(id=cell_id(*map(canonical, parts), seed), model=model, method=method, data=data, recipe=recipe, seed=seed)


SE = ModelSpec(name="vim_micro", options={"se": {"ratio": 2}}, label="vim_micro+se")
# They differ in one setting each.
DIFFERENT = [
    make_cell(),
    make_cell(seed=1),
    make_cell(model=SE),
    make_cell(model=ModelSpec(name="vim_tiny", label="vim_micro")),
    make_cell(method=Magnitude(sparsity=0.5)),
    make_cell(method=Magnitude(sparsity=0.50001)),
    make_cell(method=Dynamic(sparsity=0.5)),
    make_cell(method=Chain(methods=(Magnitude(sparsity=0.5), Wanda(sparsity=0.8)))),
    make_cell(method=Chain(methods=(Wanda(sparsity=0.5), Magnitude(sparsity=0.8)))),
    make_cell(method=Chain(methods=(Magnitude(sparsity=0.5), Wanda(sparsity=0.8)), split=(1, 2))),
    make_cell(data=DataSpec(loader="torch")),
    make_cell(data=DataSpec(flip=True)),
    make_cell(recipe=RecipeSpec(epochs=13)),
    make_cell(recipe=RecipeSpec(finetune_epochs=13)),
    make_cell(recipe=RecipeSpec(ema=0.99)),
    make_cell(recipe=RecipeSpec(zero_stage=1)),
]
