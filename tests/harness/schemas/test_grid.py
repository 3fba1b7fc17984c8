"""The schema of grids: it takes every grid that the launcher takes, and refuses misspelt keys, wrong types and numbers out of range."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.grid.read import KEYS, read_grid
from harness.grid.yaml_source import GridError
from harness.schemas.grid import data_schema, exclude_schema, grid_schema, recipe_schema, seeds_schema
from tests.harness.schemas.conftest import read

ROOT = Path(__file__).resolve().parents[3]
GRIDS = [ROOT / "grid.yaml", *sorted(ROOT.glob("slurm/grids/*.yaml")), *sorted(ROOT.glob("benchmarks/grids/*.yaml"))]
SMALL: dict[str, Any] = {"name": "small", "models": ["vim_micro"], "pruning": ["dense"], "seeds": [0]}
RIGHT = """
    models: vim_micro
    models: [[vim_micro, vit_micro], timm/resnet18]
    models: [{name: [vim_micro, vim_tiny], se: [true, false, {ratio: [2, 8]}], depth: [[2], 3]}]
    models: [{name: vim_micro, scan: [[h], [h, v]], dt_rank: null, drop_path: 1e-1}, {name: vim_micro, label: mine}]
    models: [{name: timm/convnext_atto, depths: [2, 2, 4, 2], drop_path_rate: 0.1}]
    models: [{name: mambavision_micro, zip: {dim: [16, 32], in_dim: [16, 32]}, swa: true}]
    {models: [mine, {name: mine, width: 3}], pruning: [dense, {method: mine, k: 1}], data: {source: mine, options: {a: 1}}, plugins: mine.py}
    pruning: [dense, {method: [magnitude, random], sparsity: [0.5, 0.9]}, {method: dynamic, zip: {sparsity: [0.5, 0.9], interval: [16, 8]}}]
    pruning: [{chain: [{method: structured, ratio: 0.3}, {method: wanda, sparsity: [0.5, 0.6]}], split: [[1, 2], [1, 1]]}]
    pruning: [{chain: [semi_structured, {method: magnitude, sparsity: 0.6}], label: both}]
    pruning: [{chain: [semi_structured]}, {method: token_merging, r: [2, 0.1], layers: [[0, 1], all]}, {method: sparsegpt, pattern: '2:4'}]
    pruning: {method: magnitude, sparsity: 0, groups: [[in_proj], [out_proj, head]]}
    seeds: 3
    recipe: [{preset: [vim_tiny, swin], epochs: 30}, {lr: [1e-3, 2.0e-3], betas: [0.9, 0.95], distill: {teacher: dense, weight: [0.5, 1]}}]
    recipe: {distill: false, zip: [{lr: [1, 2], epochs: [30, 40]}, {preset: [vim_tiny, swin], ema: [0.9, 0.99]}]}
    {recipe: , data: , exclude: , cluster: , plugins: }
    plugins: []
    data: {source: imagefolder, path: /data, crop_scale: [0.5, 1], val_fraction: 5e-2}
    {seeds: 3, exclude: [{model: vim_micro, pruning: {method: dense}, seed: [0, 1]}, {recipe: {lr: 1e-3}, data: [{source: digits}], seed: 0}]}
    cluster: slurm/gpu.yaml
    cluster: {kind: slurm, partition: gpu, gpus_per_node: 1}
    {models: [{name: vim_micro, cluster: {gpus_per_node: 4, timeout_min: 600}}], cluster: {kind: slurm, partition: [gpu, spare]}}
    pruning: [{method: magnitude, sparsity: 0.5, cluster: {slurm: {partition: [long, gpu]}, mem_gb: 8}}, {chain: [semi_structured], cluster: }]
    {x-common: &c {lr: 1e-3}, recipe: {<<: *c, epochs: 3}}
"""
WRONG = """
    recipes: {epochs: 1}
    recipe: {epocs: 5}
    recipe: {epochs: 1.5}
    recipe: {epochs: -1}
    recipe: {epochs: [1, two]}
    recipe: {lr: 0}
    recipe: {lr: fast}
    recipe: {label_smoothing: 1}
    recipe: {optimizer: adam}
    recipe: {betas: [0.9]}
    recipe: {betas: [0.9, 1.5]}
    recipe: {preset: vim_tin}
    recipe: {flip: true}
    recipe: {distill: {teacher: dense, weight: 2}}
    recipe: {distill: {teacher: dense, teacher_sha256: abc}}
    recipe: {distill: {teachers: dense}}
    recipe: {zip: {lrs: [1, 2]}}
    recipe: {nesterov: 1}
    recipe: {ema: true}
    data: {source: digit}
    data: {val_fraction: 1}
    data: {crop_scale: [0, 1]}
    data: {augment: none, shift: 4}
    models: [vim_mikro]
    models: [{name: vim_micro, depths: [1, 2]}]
    models: [{name: vim_micro, dpeth: 2}]
    models: [{name: vim_micro, depth: 0}]
    models: [{name: vim_micro, swa: true}]
    models: [{name: vim_micro, se: {ratios: 4}}]
    models: [{name: vim_micro, scan: [d]}]
    models: [{name: mambavision_micro, depths: [1, 2, 3]}]
    models: [{depth: 2}]
    models: []
    pruning: [magnitud]
    pruning: [{method: magnitude, sparsity: 1.5}]
    pruning: [{method: magnitude}]
    pruning: [{method: magnitude, sparsity: half}]
    pruning: [{method: magnitude, sparsty: 0.5}]
    pruning: [{method: wanda, sparsity: 0.5, batches: 0}]
    pruning: [{method: wanda, sparsity: 0.5, groups: [in_prj]}]
    pruning: [{method: structured, ratio: 0.5, units: []}]
    pruning: [{chain: []}]
    pruning: [{chain: [{method: wanda, sparsity: 2}]}]
    pruning: [{chain: [{method: wanda, sparsity: 0.5, label: mine}]}]
    seeds: 0
    seeds: [0, 0]
    seeds: [-1]
    seeds: ['0']
    name: a/b
    exclude: {model: vim_micro}
    exclude: [{models: vim_micro}]
    exclude: [{recipe: {epocs: 1}}]
    cluster: {nodes: 0}
    cluster: {partitions: gpu}
    models: [{name: vim_micro, cluster: {setup: [module load x]}}]
    pruning: [{method: magnitude, sparsity: 0.5, cluster: {timeout_min: 0}}]
    pruning: [{chain: [{method: wanda, sparsity: 0.5, cluster: {mem_gb: 8}}]}]
    plugins: [1]
"""


def grids(text: str) -> list[str]:
    """The lines of a text, each of which changes a small grid."""
    return [line.strip() for line in text.strip().splitlines()]


def launchable(changes: dict[str, Any], folder: Path) -> bool:
    """True if the launcher reads the small grid with changes without a mistake."""
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    try:
        read_grid(path)
    except GridError:
        return False
    return True


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.name)
def test_every_grid_of_the_project_is_valid(path: Path, of_grids: Any) -> None:
    of_grids.validate(read(path))


@pytest.mark.parametrize("page", ["grid.md", "models.md", "pruning.md"])
def test_so_are_the_parts_of_grids_on_the_pages(page: str, of_grids: Any) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.S | re.M)
    parts = [given for block in blocks if isinstance(given := yaml.safe_load(block), dict) and set(given) <= set(KEYS)]
    assert parts
    for part in parts:
        assert of_grids.is_valid(SMALL | part) == (part.get("name") != "wrong"), part


@pytest.mark.parametrize("changes", grids(RIGHT))
def test_so_is_whatever_else_the_launcher_takes(changes: str, of_grids: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = yaml.safe_load(changes)
    of_grids.validate(SMALL | given)
    monkeypatch.chdir(ROOT)
    assert given.get("plugins") or launchable(given, tmp_path)


@pytest.mark.parametrize("changes", grids(WRONG))
def test_misspelt_keys_wrong_types_and_numbers_out_of_range_are_not(changes: str, of_grids: Any, tmp_path: Path) -> None:
    given = yaml.safe_load(changes)
    assert not of_grids.is_valid(SMALL | given)
    assert not launchable(given, tmp_path)


def test_the_small_grid_is_valid_and_needs_all_its_keys(of_grids: Any) -> None:
    of_grids.validate(SMALL)
    assert not any(of_grids.is_valid({key: value for key, value in SMALL.items() if key != missing}) for missing in SMALL)


def test_names_of_plugins_need_the_plugins(of_grids: Any) -> None:
    changes: tuple[dict[str, Any], ...] = ({"models": ["mine"]}, {"pruning": [{"method": "mine"}]}, {"data": {"source": "mine"}})
    for change in changes:
        assert not of_grids.is_valid(SMALL | change) and of_grids.is_valid(SMALL | change | {"plugins": ["mine.py"]})
        assert of_grids.is_valid(SMALL | change | {"plugins": []})  # for rows of an installed package


def test_every_key_of_the_file_of_data_and_of_a_recipe_is_described() -> None:
    for schema in (grid_schema(), data_schema(), recipe_schema()):
        assert [key for key, part in schema["properties"].items() if not part.get("description")] == []
    assert recipe_schema()["properties"]["lr"]["default"] == 0.001
    assert exclude_schema() and seeds_schema()
