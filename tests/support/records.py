"""Records, rows and curves of made-up cells, in the real format, for the tests of the analysis."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from analysis.merge import Merged
from analysis.rows import Row, make_rows
from jobs.experiment.records import Environment, Failure, Metrics, Record
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.verification import RunAgain, Verdict, Verification

PARAMS, MACS = 170_000, 12_000_000
EVIL = "</script><img src=x onerror=window.hacked=1><script>window.hacked=1</script>{{7*7}}\"'&<b>"


def fake_metrics(top1: float, sparsity: float = 0.0, **changes: Any) -> Metrics:
    """Metrics of a micro Vim with that accuracy and sparsity."""
    values: dict[str, Any] = {
        "top1": top1,
        "top5": min(100.0, top1 + 2),
        "test_loss": 0.5,
        "test_samples": 360,
        "val_top1": top1,
        "train_loss": 0.4,
        "params": PARAMS,
        "params_nonzero": round(PARAMS * (1 - 0.8 * sparsity)),
        "sparsity_prunable": sparsity,
        "sparsity_all": 0.8 * sparsity,
        "layers": {f"layers.{i}.mixer.{name}.weight": sparsity for i in range(4) for name in ("in_proj", "out_proj")},
        "collapsed": [],
        "macs": MACS,
        "macs_nonzero": round(MACS * (1 - 0.8 * sparsity)),
        "flops_convention": "fvcore MACs; scan 9*B*L*D*N",
        "uncounted_ops": {"aten::gelu": 4},
        "params_dense": PARAMS,
        "macs_structural": MACS,
        "uncounted_share": 0.03,
        "speed_protocol": "forward pass, fp32, batch 1 and 64",
        "clock_mhz": 2600.0,
        "latency_p90_ms": 6.0,
        "latency_p99_ms": 8.0,
        "dense_throughput_img_per_s": 390.0,
        "dense_latency_ms": 5.1,
        "speedup_measured": 1.0,
        "speedup_latency": 1.0,
        "infer_j_per_img": 0.25,
        "train_gpu_h": None,
        "train_cpu_h": 0.5,
        "train_peak_memory_bytes": 900_000_000,
        "train_j": 7200.0,
        "notes": ["peak memory: resident set of the process, inference"],
        "throughput_img_per_s": 400.0,
        "latency_ms": 5.0,
        "throughput_batch": 64,
        "peak_memory_bytes": 300_000_000,
        "file_bytes": 4 * PARAMS,
        "epochs": 16,
        "train_s": 60.0,
        "train_img_per_s": 250.0,
    }
    return Metrics(**values | changes)


def fake_environment(**changes: Any) -> Environment:
    """A machine with one CPU and no GPU."""
    values: dict[str, Any] = {
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "python": "3.11.2",
        "versions": {"torch": "2.13.0"},
        "host": "node1",
        "cpu": "Example CPU (avx2)",
        "gpu": None,
        "ranks": 1,
        "threads": 2,
        "loader": "ffcv",
        "scan": "cpu",
        "data_sha256": "d" * 64,
        "tf32": False,
    }
    return Environment(**values | changes)


def fake_spec(pruning: str, seed: int, **recipe: Any) -> dict[str, Any]:
    """What a cell asks for; `pruning` is a label such as `magnitude-0.9`."""
    method, _, sparsity = pruning.partition("-")
    knobs = {"sparsity": float(sparsity)} if sparsity else {}
    return {
        "model": {"name": "vim_micro", "options": {}, "label": "vim_micro"},
        "pruning": {"method": method, "label": pruning, "knobs": knobs},
        "data": {"source": "digits", "path": None, "test_path": None, "name": None, "img_size": 32, "loader": "ffcv"},
        "recipe": {"epochs": 12, "finetune_epochs": 4, "batch_size": 64, "dtype": "fp32", "lr": 1e-3} | recipe,
        "seed": seed,
    }


def fake_record(
    top1: float | None,
    *,
    model: str = "vim_micro",
    pruning: str = "dense",
    seed: int = 0,
    environment: Environment | None = None,
    spec: dict[str, Any] | None = None,
    grid: str = "fake",
    **metrics: Any,
) -> Record:
    """A record; one of a failed cell where `top1` is None."""
    spec = spec or fake_spec(pruning, seed)
    spec = spec | {"model": spec["model"] | {"name": model, "label": model}}
    identity = hashlib.sha256(repr([spec, metrics.get("tag")]).encode()).hexdigest()[:12]
    metrics.setdefault("sparsity", spec["pruning"]["knobs"].get("sparsity", 0.0))
    return Record(
        id=identity,
        grid=grid,
        model=model,
        pruning=pruning,
        seed=seed,
        spec=spec,
        stages=[f"stage-{model}-{seed}", f"stage-{identity}"],
        status="failed" if top1 is None else "done",
        failure=Failure(kind="diverged", message="loss is nan at step 7", stage=f"stage-{identity}") if top1 is None else None,
        metrics=None if top1 is None else fake_metrics(top1, **metrics),
        environment=environment or fake_environment(),
        weights_sha256=None if top1 is None else "a" * 64,
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:01:00+00:00",
    )


def fake_run(folder: Path, records: list[Record]) -> Path:
    """A run folder that holds the records."""
    for record in records:
        RunFolder(folder).write_record(record)
    return folder


def fake_grid(seeds: int = 3, models: tuple[str, ...] = ("vim_micro", "vim_micro+se")) -> list[Record]:
    """A small grid: dense, random and magnitude pruning of each model, with noise over seeds."""
    noise = random.Random(0)
    quality = {"dense": 97.0, "magnitude-0.5": 96.5, "magnitude-0.9": 91.0, "random-0.5": 95.0, "random-0.9": 80.0}
    return [
        fake_record(round(top1 + 0.4 * i + noise.gauss(0, 0.3), 2), model=model, pruning=pruning, seed=seed)
        for i, model in enumerate(models)
        for pruning, top1 in quality.items()
        for seed in range(seeds)
    ]


def rows_of(*records: Record) -> tuple[Row, ...]:
    """The rows of a leaderboard of these records."""
    return make_rows(Merged(records=records, planned={}, conflicts=(), skipped=()))


def fake_curve(run: Path, stage: str, epochs: int) -> None:
    """Writes the metrics.jsonl of a stage: a line for a step and a line for the end of each epoch."""
    path = RunFolder(run).stage_dir(stage) / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = [{"event": "step", "epoch": epoch, "step": epoch, "loss": 9.0, "lr": 1e-3} for epoch in range(1, epochs + 1)]
    ends = [{"event": "epoch", "epoch": epoch, "step": epoch, "loss": 1 / epoch, "val_top1": 90.0 + epoch} for epoch in range(1, epochs + 1)]
    path.write_text("".join(json.dumps(line) + "\n" for line in steps + ends))


def evil_run(folder: Path) -> Path:
    """A run folder in which every text is an attack."""
    bad = fake_record(
        90.0,
        model=EVIL,
        pruning="dense",
        grid=EVIL,
        environment=fake_environment(host=EVIL, cpu=EVIL, commit=EVIL, versions={EVIL: EVIL}, loader=EVIL),
        layers={EVIL: 0.5},
        notes=[EVIL],
        speed_protocol=EVIL,
    )
    failed = fake_record(None, model="m2", pruning="dense").model_copy(
        update={"failure": Failure(kind=EVIL, message=EVIL, stage=EVIL, traceback=EVIL), "grid": EVIL}
    )
    run = fake_run(folder, [bad.model_copy(update={"pruning": EVIL, "weights_sha256": EVIL, "finished": EVIL}), failed])
    torn = run / "cells" / "<b>torn<img src=x>" / "record.json"
    torn.parent.mkdir()
    torn.write_text("{")
    return run


def fake_verification(record: Record, verdict: Verdict, by: str | None = None) -> Verification:
    """A verification of a record, of one run with its weights."""
    assert record.metrics is not None
    top1 = record.metrics.top1
    return Verification(
        cell=record.id,
        grid=record.grid,
        model=record.model,
        pruning=record.pruning,
        seed=record.seed,
        weights_sha256=record.weights_sha256,
        recorded={record.seed: top1},
        runs=[RunAgain(seed=record.seed, recorded_top1=top1, top1=top1, same_weights=True)],
        comparison=None,
        margin=1.0,
        level=0.05,
        verdict=verdict,
        reasons=["for the tests"],
        code_of_record=True,
        differences=[],
        by=by,
        finished="2026-11-28T19:00:00+00:00",
    )
