"""Every row of every table trains through the harness: models and their variants, methods, optimizers, dtypes, data sources, loaders.

A row that cannot be trained cannot land. Networks have the layers of their row, fewer and narrower; each trains for two steps or a few more.
"""

import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import yaml

from harness.launch import main
from jobs.data.beton import encoded
from jobs.data.shards import write_beton
from jobs.experiment.records import Record, read_record
from jobs.experiment.sources import SOURCES
from jobs.experiment.specs import RecipeSpec
from models.__main__ import entries
from models.flops import CONVENTIONS
from models.flops_report import report_of, subject_of
from models.pruning.registry import METHODS
from models.registry import MODELS, model_label
from tests.jobs.data.test_huggingface import table, write_parquet
from tests.jobs.data.test_sources import write_cifar, write_folder
from tests.jobs.data.test_webdataset import members, write_tar
from tests.support.timm_families import FAMILIES

pytestmark = pytest.mark.slow
TINY = {"name": "vim_micro", "dim": 8, "depth": 2}
TIMM = [{"name": name, "label": name, **options} for name, options in FAMILIES.items()]
RECIPE = {"epochs": 1, "finetune_epochs": 0, "batch_size": 8, "warmup_epochs": 0}
DATA = {"source": "synthetic", "samples": 18, "classes": 2, "loader": "torch"}  # two validation images, two steps
SMALL: dict[str, dict[str, Any]] = {  # options by family
    "vim": {"depth": 2, "dim": 16},
    "mambavision": {"dim": 8, "in_dim": 8, "depths": [1, 1, 2, 2], "heads": [1, 1, 2, 4]},
    "vmamba": {"dim": 8, "depths": [1, 1, 1, 1]},
    "vssd": {"dim": 8, "depths": [1, 1, 1, 1], "heads": [1, 2, 4, 4], "d_state": 4},
    "vit": {"depth": 2, "dim": 12},
    "mambaout": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]},
}
KNOBS: dict[str, dict[str, Any]] = {  # of the methods that need some, or more epochs than one
    "block_removal": {"blocks": 1, "batches": 1},
    "dense": {},
    "early_bird": {"ratio": 0.3, "search_epochs": 2, "fifo": 2},
    "iterative_magnitude": {"rate": 0.5, "rounds": 1, "rewind_step": 1},
    "semi_structured": {},
    "sparsegpt": {"pattern": "2:4"},
    "structured": {"ratio": 0.3},
    "token_merging": {"r": 0.3, "layers": [1]},
}
CHAIN = [{"method": "magnitude", "sparsity": 0.3}, {"method": "structured", "ratio": 0.3}, {"method": "wanda", "sparsity": 0.5}]


def smaller(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A row's entry with few and narrow layers, under the row's own label."""
    variants = {key: value or True for key, value in options.items()}
    return {"name": name, "label": model_label(name, options), **SMALL[name.split("_")[0]], **variants}


def grid(name: str, **axes: Any) -> dict[str, Any]:
    """A grid that runs in this process; what `axes` does not say is tiny."""
    cluster = {"kind": "debug", "profile_s": 0.001, "profile_batch": 2}
    return {"name": name, "data": DATA, "recipe": RECIPE, "models": [TINY], "pruning": ["dense"], "seeds": [0], "cluster": cluster} | axes


def literals(field: str) -> list[Any]:
    """The values that a field of a recipe may have."""
    return list(get_args(get_type_hints(RecipeSpec)[field]))


def sources(folder: Path) -> Iterator[dict[str, Any]]:
    """Every source with its files, small and in their real formats."""
    write_cifar(folder / "cifar10", "cifar10")
    write_cifar(folder / "cifar100", "cifar100")
    write_folder(folder / "images" / "train", count=20)
    write_folder(folder / "images" / "val", count=2)
    write_tar(folder / "tar" / "train-0.tar", members(range(20)))
    write_tar(folder / "tar" / "val-0.tar", members(range(20, 23)))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    for part in ("train", "test"):
        write_beton(folder / f"{part}.beton", lambda sample: encoded(pixels[sample], jpg=False), np.arange(40) % 2)
    paths: dict[str, dict[str, Any]] = {
        "cifar10": {"path": str(folder / "cifar10")},
        "cifar100": {"path": str(folder / "cifar100")},
        "imagefolder": {"path": str(folder / "images"), "img_size": 32},
        "huggingface": {"path": write_parquet(folder / "hub", table(range(20)), table(range(20, 23))).path, "img_size": 32},
        "webdataset": {"path": str(folder / "tar"), "img_size": 32},
        "beton": {"path": str(folder / "train.beton"), "test_path": str(folder / "test.beton"), "img_size": 32},
        "synthetic": {"samples": 18, "classes": 2},
    }
    for source in SOURCES:
        for loader in ("ffcv", "torch"):
            yield {"source": source, "loader": loader, **paths.get(source, {})}


@dataclass(frozen=True)
class Runs:
    """What the launches left."""

    folder: Path

    def records(self, grid: str) -> list[Record]:
        """The records of a grid."""
        return [read_record(path) for path in sorted((self.folder / "runs" / grid).glob("cells/*/record.json"))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Five launches in this process, which has imported torch and DeepSpeed."""
    folder = tmp_path_factory.mktemp("every_row")
    methods = [{"method": name, **KNOBS.get(name, {"sparsity": 0.3})} for name in METHODS]
    methods.append({"chain": CHAIN, "label": "chain"})
    recipes = [RECIPE | {"optimizer": name} for name in literals("optimizer")] + [RECIPE | {"dtype": name} for name in literals("dtype")[1:]]
    given = list(sources(folder))
    grids = [
        grid("models", models=[*(smaller(name, options) for name, options in entries()), *TIMM]),
        grid("methods", pruning=methods, recipe=RECIPE | {"epochs": 3, "finetune_epochs": 1}, models=[TINY | {"dim": 16}]),
        grid("recipes", recipe=recipes),
        grid("sources", data=[data for data in given if data["source"] != "digits"]),
        grid("digits", data=[data for data in given if data["source"] == "digits"], recipe=RECIPE | {"batch_size": 512}),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for content in grids:
            Path(f"{content['name']}.yaml").write_text(yaml.safe_dump(content))
            with open(f"{content['name']}.log", "w") as log, redirect_stdout(log), redirect_stderr(log):
                main([f"{content['name']}.yaml"])
    return Runs(folder)


def told(runs: Runs, name: str) -> str:
    """What a launch printed, for a failed assertion."""
    return (runs.folder / f"{name}.log").read_text()[-4000:]


@pytest.mark.parametrize("label", [*(model_label(name, options) for name, options in entries()), *FAMILIES])
def test_every_model_and_variant_trains(runs: Runs, label: str) -> None:
    record = next((record for record in runs.records("models") if record.model == label), None)
    assert record is not None, told(runs, "models")
    assert record.status == "done" and record.metrics and record.metrics.epochs == 1, record.failure
    result = json.loads((runs.folder / "runs" / "models" / "stages" / record.stages[0] / "export" / "result.json").read_text())
    assert result["steps"] == 2


@pytest.mark.parametrize("label", ["vim_micro+se", "vim_micro(scan=h-h_flip-w2-w2_flip)", "mambavision_micro", "vmamba_micro", "vssd_micro_32"])
def test_a_finished_cell_is_counted_from_its_file_as_its_record_counts_it(runs: Runs, label: str) -> None:
    record = next(record for record in runs.records("models") if record.model == label)
    assert_counted_alike(runs.folder / "runs" / "models" / "cells" / record.id, record)


@pytest.mark.parametrize("method", ["structured", "magnitude", "token_merging", "block_removal"])
def test_a_pruned_cell_is_counted_by_its_smaller_shapes_and_by_its_zeros(runs: Runs, method: str) -> None:
    record = next(record for record in runs.records("methods") if record.pruning.split("(")[0] == method)
    assert_counted_alike(runs.folder / "runs" / "methods" / "cells" / record.id, record)


def assert_counted_alike(cell: Path, record: Record) -> None:
    """Holds if shapes on the meta device count what fvcore's trace of the trained network counts."""
    report, metrics = report_of(subject_of(str(cell), [])), record.metrics
    assert metrics is not None and report.parameters == metrics.params and report.nonzero is not None
    assert 0.99 * metrics.params_nonzero <= report.nonzero <= metrics.params_nonzero  # two steps leave some biases at zero that no mask holds
    ours = CONVENTIONS[0].figure(report.tally)
    assert ours == (metrics.macs if metrics.macs_structural is None else metrics.macs_structural)


def test_every_row_of_the_registry_is_among_them() -> None:
    assert {name for name, _ in entries()} == set(MODELS)


@pytest.mark.parametrize("name", [*METHODS, "chain"])
def test_every_method_trains(runs: Runs, name: str) -> None:
    record = next((record for record in runs.records("methods") if record.pruning.split("(")[0] == name), None)
    assert record is not None, told(runs, "methods")
    assert record.status == "done" and record.metrics, record.failure
    if name == "token_merging":
        assert (record.metrics.macs_structural or 0) < record.metrics.macs and record.metrics.structure == {"tokens.1": (45, 64)}
    elif name != "dense":
        assert record.metrics.params_nonzero < record.metrics.params or record.metrics.params < (record.metrics.params_dense or 0)


@pytest.mark.parametrize("field", ["optimizer", "dtype"])
def test_every_optimizer_and_dtype_trains(runs: Runs, field: str) -> None:
    records = runs.records("recipes")
    assert {record.spec["recipe"][field] for record in records if record.status == "done"} == set(literals(field)), told(runs, "recipes")


@pytest.mark.parametrize("loader", ["ffcv", "torch"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_trains_through_every_loader(runs: Runs, source: str, loader: str) -> None:
    name = "digits" if source == "digits" else "sources"
    record = next((r for r in runs.records(name) if (r.spec["data"]["source"], r.spec["data"]["loader"]) == (source, loader)), None)
    assert record is not None, told(runs, name)
    assert record.status == "done", record.failure
