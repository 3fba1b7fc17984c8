"""Training as a job does it: DeepSpeed's engine, batches from a loader, and the cell of the notebook that this project began with."""

import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.rows import Row, Values
from benchmarks.gpu.sizes import Sizes

if TYPE_CHECKING:
    from jobs.data.beton import Encoded
    from jobs.data.loaders import TrainLoader
    from jobs.parallel.engine import Engine

NOTEBOOK_S, NOTEBOOK_GB, NOTEBOOK_EPOCHS = 15_850, 38, 100  # on an A100
EPOCHS = 3  # that are trained; the first one compiles


# the engine


def engine_rows(sizes: Sizes) -> list[Row]:
    """A row for each network, dtype and ZeRO stage."""
    return [
        Row(labels={"network": name, "dtype": dtype, "ZeRO stage": str(stage)}, measure=partial(engine_speed, name, dtype, stage, sizes))
        for name in sizes.trained
        for dtype in sizes.dtypes
        for stage in (0, 1)
    ]


def engine(name: str, dtype: str, zero_stage: int, sizes: Sizes) -> "Engine":
    """An engine as a stage makes it."""
    from jobs.experiment.specs import RecipeSpec
    from jobs.parallel.engine import Engine, rendezvous
    from models.layers import weight_decay_groups
    from models.registry import create_model

    model = create_model(name, img_size=sizes.img_size)
    recipe = RecipeSpec(batch_size=sizes.batch, dtype=dtype, zero_stage=zero_stage)  # type: ignore[arg-type]
    return Engine(model, recipe, no_decay=weight_decay_groups(model, False)[1], ranks=rendezvous(threads=1, gpus=sizes.device == "cuda"))


def engine_speed(name: str, dtype: str, zero_stage: int, sizes: Sizes) -> Values:
    """Images/s of steps on one batch, the moments at which the host waits for the device, and the memory."""
    import torch

    from jobs.measure.speed import race
    from jobs.parallel.memory import forget_peak, peak_bytes

    made = engine(name, dtype, zero_stage, sizes)
    device = made.ranks.device
    images = torch.randn(sizes.batch, 3, *[sizes.img_size] * 2, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(1000, (sizes.batch,), device=device)

    def step() -> None:
        made.forward_backward(images, labels, last=True)
        made.update(1e-4)

    try:
        step()
        waits = host_waits(step, sizes)
        forget_peak(device)
        took = race({"": step}, device, sizes.seconds, alone=False)[""].median_s
        return {"training, img/s": sizes.batch / took, "waits of the host in a step": waits, "peak, GB": peak_bytes(device) / 1e9}
    finally:
        made.close()


def host_waits(step: Callable[[], None], sizes: Sizes) -> float | None:
    """How often a step makes the host wait for the GPU; None on a CPU."""
    import torch

    if sizes.device != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(sizes.steps):
                step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught) / sizes.steps


# the loader


def loader_rows(sizes: Sizes) -> list[Row]:
    """Batches to the device alone, and to a network that trains on them. JPEGs of about 430 x 350."""
    recipes = (("crop, flip", False), ("the full recipe", True))
    rows = [Row(labels={"work": f"loading: {words}"}, measure=partial(loading, recipe, sizes)) for words, recipe in recipes]
    return [*rows, Row(labels={"work": f"{sizes.trained[0]} in {sizes.dtypes[0]} trains on them: crop, flip"}, measure=partial(fed, sizes))]


def loader(folder: Path, recipe: bool, sizes: Sizes) -> "TrainLoader":
    """Batches of JPEGs that are made now; a few dozen pictures, many times over."""
    import numpy as np

    from benchmarks.contenders import full_recipe
    from benchmarks.loaders import CLASSES
    from jobs.data import loaders
    from jobs.data.prepare import Dataset
    from jobs.data.shards import write_beton
    from jobs.experiment.specs import DataSpec

    pictures = jpegs(min(sizes.jpegs, 64))
    path = folder / "jpg.beton"
    write_beton(path, lambda sample: pictures[sample % len(pictures)], np.arange(sizes.jpegs) % CLASSES)
    data = DataSpec(source="imagefolder", augment="crop", flip=True, interpolation="bicubic", val_fraction=0.0, img_size=sizes.img_size)
    dataset = Dataset(
        classes=CLASSES, img_size=sizes.img_size, train=path, test=path, train_samples=sizes.jpegs, val_samples=0, test_samples=sizes.jpegs, sha256=""
    )
    chosen = {"recipe": full_recipe()} if recipe else {}
    share: dict[str, Any] = {"rank": 0, "world": 1, "threads": sizes.workers or len(os.sched_getaffinity(0)), "device": sizes.device}
    return loaders.TrainLoader(data, dataset, seed=0, batch_size=sizes.batch, micro_batch_size=sizes.batch, **share, **chosen)


@cache
def jpegs(count: int) -> "list[Encoded]":
    """Pictures of about 430 x 350, always the same ones."""
    from benchmarks.loaders import picture, textures
    from jobs.data.beton import encoded

    fields = textures(min(count, 8))
    return [encoded(picture(sample, fields), True) for sample in range(count)]


def loading(recipe: bool, sizes: Sizes) -> Values:
    """Images/s of an epoch after the first one, from JPEGs to normalised tensors on the device."""
    with tempfile.TemporaryDirectory() as folder:
        made = loader(Path(folder), recipe, sizes)
        rates = [epoch_rate(made, number, lambda images, labels: None, sizes) for number in range(2)]
    return {"img/s": rates[1], "threads": sizes.workers or len(os.sched_getaffinity(0)) - 1}


def epoch_rate(made: "TrainLoader", number: int, use: Callable[[Any, Any], object], sizes: Sizes) -> float:
    """Images/s of an epoch whose batches are used."""
    import torch

    began = time.perf_counter()
    with closing(made.epoch(number)) as batches:
        for images, labels in batches:
            use(images, labels)
    if sizes.device == "cuda":
        torch.cuda.synchronize()
    return made.steps_per_epoch * sizes.batch / (time.perf_counter() - began)


def fed(sizes: Sizes) -> Values:
    """Images/s of training steps on a loader's batches, and on one batch that stays on the device."""
    made = engine(sizes.trained[0], sizes.dtypes[0], 0, sizes)

    def step(images: Any, labels: Any) -> None:
        made.forward_backward(images, labels, last=True)
        made.update(1e-4)

    try:
        with tempfile.TemporaryDirectory() as folder:
            batches = loader(Path(folder), False, sizes)
            rates = [epoch_rate(batches, number, step, sizes) for number in range(2)]
    finally:
        made.close()
    return {"img/s": rates[1], "threads": sizes.workers or len(os.sched_getaffinity(0)) - 1}


# the seed's cell


def seed_rows(sizes: Sizes) -> list[Row]:
    """One row for each dtype."""
    return [Row(labels={"cell": "Vim, 32 px", "dtype": dtype}, measure=partial(seed_cell, dtype, sizes)) for dtype in sizes.dtypes]


def seed_cell(dtype: str, sizes: Sizes) -> Values:
    """Seconds of an epoch of a whole stage with validation and checkpoints, and of 100 of them."""
    from jobs.data.prepare import prepare
    from jobs.experiment.run_folder import METRICS
    from jobs.experiment.specs import ClusterSpec, DataSpec, ModelSpec, RecipeSpec, StageSpec
    from jobs.parallel.engine import rendezvous
    from jobs.train.stage import train_stage
    from models.pruning.base import Stage
    from models.registry import create_model

    options = dict(sizes.seed_model)
    data = DataSpec(source="synthetic", samples=sizes.epoch_images, augment="shift", flip=True, eval_crop=1.0)
    recipe = RecipeSpec(epochs=EPOCHS, batch_size=min(128, sizes.epoch_images // 4), dtype=dtype)  # type: ignore[arg-type]
    model = ModelSpec(name="vim_tiny", options=options, label="seed")
    spec = StageSpec(id="seed", model=model, data=data, recipe=recipe, seed=0, stage=Stage(name="train", epochs=EPOCHS))  # type: ignore[arg-type]
    cores = sizes.workers or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        cluster = ClusterSpec(kind="debug", cpus_per_task=cores, cache=folder)
        ranks = rendezvous(threads=cores, gpus=sizes.device == "cuda")
        dataset = prepare(data, Path(folder))
        result = train_stage(spec, dataset, Path(folder, "stage"), parent=None, rewind=None, ranks=ranks, cluster=cluster)
        lines = [json.loads(line) for line in Path(folder, "stage", METRICS).read_text().splitlines()]
    ends = [line["time"] for line in lines if line["event"] == "epoch"]
    epoch_s = (ends[-1] - ends[0]) / (EPOCHS - 1)
    parameters = sum(parameter.numel() for parameter in create_model("vim_tiny", data.classes, 32, **options).parameters())
    return {
        "parameters": parameters,
        "an epoch, s": epoch_s,
        f"{NOTEBOOK_EPOCHS} epochs, s, extrapolated": NOTEBOOK_EPOCHS * epoch_s,
        "the notebook's, s": NOTEBOOK_S,
        "peak, GB": (result.peak_memory_bytes or 0) / 1e9,
        "the notebook's, GB": NOTEBOOK_GB,
    }
