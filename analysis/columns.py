"""The columns of leaderboard.csv and cells.csv, in their order. Names are timm's if timm has the column."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_origin

from analysis import tuning
from analysis.csv_files import Value
from analysis.rows import Row, structural_macs
from analysis.statistics import SETTLED
from jobs.experiment.records import Metrics, Record

MEGA, GIGA = 1e6, 1e9
METRICS = tuple(name for name, field in Metrics.model_fields.items() if get_origin(field.annotation) not in (dict, list))  # of a single value
IDENTITY = ("grid", "seed", "status", "weights_sha256", "started", "finished")
MACHINE = ("commit", "dirty", "host", "ranks", "threads", "loader", "scan", "data_sha256")


@dataclass(frozen=True)
class Column:
    """A column: its name, its unit, its meaning, and the function that reads it from a row."""

    name: str
    unit: str
    meaning: str
    read: Callable[[Row], Value]


def scaled(value: float | None, factor: float) -> float | None:
    """value * factor; None for None."""
    return None if value is None else value * factor


def ratio(above: float | None, below: float | None) -> float | None:
    """above / below; None if either is unknown, or `below` is 0."""
    return above / below if above is not None and below else None


def dense_params(metrics: Metrics) -> int:
    """Parameters before pruning. A record without the field is of a network of its full size."""
    return metrics.params if metrics.params_dense is None else metrics.params_dense


def collapsed(row: Row) -> str:
    """The names of the prunable parameters that are all zero in at least one seed."""
    return " ".join(sorted({name for record in row.done if record.metrics for name in record.metrics.collapsed}))


def version(record: Record) -> str:
    """The first 10 characters of the commit, with + if the tree had changes."""
    machine = record.environment
    return f"{(machine.commit or 'unknown')[:10]}{'+' if machine.dirty else ''}"


def against_published(row: Row) -> float | None:
    """Measured minus published top-1, in points; None if the row is no official checkpoint as it is."""
    published = row.mean(lambda m: m.published_top1)
    return None if published is None or row.top1 is None else row.top1.mean - published


LEADERBOARD: tuple[Column, ...] = (
    Column("rank", "", "rank within `key`: by mean top-1, then fewest MACs; empty without a number", lambda r: r.rank),
    Column("model", "", "the model's label", lambda r: r.model),
    Column("pruning", "", "the method's label", lambda r: r.pruning),
    Column("top1", "%", "mean over seeds of top-1 on the test set, of the saved file loaded again", lambda r: r.top1.mean if r.top1 else None),
    Column("top1_std", "%", "standard deviation over seeds (n - 1)", lambda r: r.top1.std if r.top1 else None),
    Column("n", "seeds", "seeds with a number", lambda r: len(r.done)),
    Column("n_expected", "seeds", "seeds that the grid asks for; more than n: holes", lambda r: r.expected),
    Column("settled", "", f"whether n is {SETTLED} or more", lambda r: len(r.done) >= SETTLED),
    Column(
        "top1_ci95_low",
        "%",
        f"lower end of the 95% interval of the mean (Wilson's, over seeds); from {SETTLED} seeds on",
        lambda r: r.top1.low if r.top1 else None,
    ),
    Column("top1_ci95_high", "%", "upper end of it", lambda r: r.top1.high if r.top1 else None),
    Column("top1_vs_dense", "points", "mean of same-seed differences to dense", lambda r: r.against_dense.mean if r.against_dense else None),
    Column(
        "top1_vs_dense_ci95_low",
        "points",
        f"lower end of its 95% t interval; from {SETTLED} seeds on",
        lambda r: r.against_dense.low if r.against_dense else None,
    ),
    Column("top1_vs_dense_ci95_high", "points", "upper end of it", lambda r: r.against_dense.high if r.against_dense else None),
    Column("top1_vs_dense_p", "", "paired t test, Holm-corrected over the key's rows; empty without spread", lambda r: r.p_dense),
    Column("rank_ci95_low", "", f"best end of the 95% bootstrap interval; from {SETTLED} seeds on", lambda r: r.standing.low if r.standing else None),
    Column("rank_ci95_high", "", f"worst end of it; from {SETTLED} seeds on", lambda r: r.standing.high if r.standing else None),
    Column(
        "tie_group",
        "",
        "rows that do not differ significantly from the first row of their group (95% bootstrap interval)",
        lambda r: r.standing.tie if r.standing else None,
    ),
    Column("top5", "%", "mean over seeds of top-5", lambda r: r.mean(lambda m: m.top5)),
    Column(
        "published_top1",
        "%",
        "top-1 that the authors report, for an official checkpoint that is evaluated as it is",
        lambda r: r.mean(lambda m: m.published_top1),
    ),
    Column("published_top5", "%", "the same for top-5", lambda r: r.mean(lambda m: m.published_top5)),
    Column("top1_vs_published", "points", "measured minus published top-1", against_published),
    Column(
        "val_top1_pruned",
        "%",
        "mean over seeds of validation top-1 after pruning and before the first step of fine-tuning; empty for methods that prune while they train, "
        "and for chains in which more than one method prunes",
        lambda r: r.mean(lambda m: m.val_top1_pruned),
    ),
    Column("trials", "", "trials of each seed, from one space; empty if the row was not tuned", tuning.trials),
    Column("trials_failed", "", "trials without an accuracy, over all seeds; they count as tried", tuning.failed_trials),
    Column("tuned", "", "the values of the chosen trials, with the number of seeds where these differ", tuning.chosen),
    Column(
        "tuning_gain",
        "points",
        "validation top-1 of the chosen trial minus the median of its trials, mean over seeds: how far the choice mattered",
        tuning.gain,
    ),
    Column("tuning_h", "h", "training of all trials of a seed, shared stages once; mean over seeds", tuning.tuning_hours),
    Column("sparsity", "", "fraction of zeros among the prunable weights", lambda r: r.mean(lambda m: m.sparsity_prunable)),
    Column("sparsity_all", "", "fraction of zeros among all parameters", lambda r: r.mean(lambda m: m.sparsity_all)),
    Column("param_count", "millions", "parameters", lambda r: scaled(r.mean(lambda m: m.params), 1 / MEGA)),
    Column("params", "", "parameters of the saved network", lambda r: r.mean(lambda m: m.params)),
    Column("params_dense", "", "parameters before pruning; more than params if units were removed", lambda r: r.mean(dense_params)),
    Column("params_nonzero", "", "parameters that are not zero", lambda r: r.mean(lambda m: m.params_nonzero)),
    Column(
        "compression",
        "x",
        "parameters before pruning / non-zero parameters",
        lambda r: ratio(r.mean(dense_params), r.mean(lambda m: m.params_nonzero)),
    ),
    Column("gmacs_dense", "GMACs", "multiply-accumulates for an image before pruning", lambda r: scaled(r.mean(lambda m: m.macs), 1 / GIGA)),
    Column(
        "infer_gmacs",
        "GMACs",
        "the same of the saved network as it stands, zeros counted: structural",
        lambda r: scaled(r.mean(structural_macs), 1 / GIGA),
    ),
    Column(
        "gmacs_nonzero", "GMACs", "the same without those of zero weights: theoretical", lambda r: scaled(r.mean(lambda m: m.macs_nonzero), 1 / GIGA)
    ),
    Column(
        "uncounted_share",
        "",
        "fraction of all operations that is not counted, at most (names and numbers: cells.csv, record.json)",
        lambda r: r.mean(lambda m: m.uncounted_share),
    ),
    Column(
        "speedup_theoretical",
        "x",
        "MACs before pruning / MACs of non-zero weights",
        lambda r: ratio(r.mean(lambda m: m.macs), r.mean(lambda m: m.macs_nonzero)),
    ),
    Column(
        "speedup_structural",
        "x",
        "MACs before pruning / MACs of the network as it stands; 1 under a mask",
        lambda r: ratio(r.mean(lambda m: m.macs), r.mean(structural_macs)),
    ),
    Column(
        "speedup_measured",
        "x",
        "throughput / that of dense in the same run, median over seeds; 1 under a mask that was not faster in every turn; if empty, see notes",
        lambda r: r.median(lambda m: m.speedup_measured),
    ),
    Column("speedup_latency", "x", "the same for the latency of one image", lambda r: r.median(lambda m: m.speedup_latency)),
    Column("infer_samples_per_sec", "images/s", "median over seeds of measured throughput", lambda r: r.median(lambda m: m.throughput_img_per_s)),
    Column(
        "infer_step_time",
        "ms",
        "time of a batch at that throughput",
        lambda r: r.median(lambda m: ratio(1000 * m.throughput_batch, m.throughput_img_per_s)),
    ),
    Column("infer_batch_size", "images", "batch of the throughput", lambda r: r.key.infer_batch_size),
    Column("latency_ms", "ms", "time of one image, p50; median over seeds", lambda r: r.median(lambda m: m.latency_ms)),
    Column("latency_p90_ms", "ms", "the same, p90", lambda r: r.median(lambda m: m.latency_p90_ms)),
    Column("latency_p99_ms", "ms", "the same, p99; empty if fewer than 100 images were timed", lambda r: r.median(lambda m: m.latency_p99_ms)),
    Column(
        "peak_memory_mb",
        "MB",
        "of a forward pass of that batch, 10^6 bytes; median over seeds",
        lambda r: scaled(r.median(lambda m: m.peak_memory_bytes), 1 / MEGA),
    ),
    Column(
        "train_peak_memory_mb",
        "MB",
        "the same while training, of one rank",
        lambda r: scaled(r.median(lambda m: m.train_peak_memory_bytes), 1 / MEGA),
    ),
    Column("file_mb", "MB", "10^6 bytes of the saved file", lambda r: scaled(r.mean(lambda m: m.file_bytes), 1 / MEGA)),
    Column("train_samples_per_sec", "images/s", "median over seeds", lambda r: r.median(lambda m: m.train_img_per_s)),
    Column("epochs", "", "of the whole path, mask search and shared stages included", lambda r: r.mean(lambda m: m.epochs)),
    Column("train_s", "s", "of the whole path, mask search and shared stages included", lambda r: r.mean(lambda m: m.train_s)),
    Column("train_gpu_h", "h", "hours of a GPU, of the whole path; empty on a CPU", lambda r: r.mean(lambda m: m.train_gpu_h)),
    Column("train_cpu_h", "h", "hours of a CPU core, of the whole path; empty on a GPU", lambda r: r.mean(lambda m: m.train_cpu_h)),
    Column(
        "train_wh", "Wh", "energy of GPUs or CPUs, whole path; empty if it cannot be read", lambda r: scaled(r.mean(lambda m: m.train_j), 1 / 3600)
    ),
    Column("infer_j_per_img", "J", "energy of GPU or CPU for an image; empty if it cannot be read", lambda r: r.median(lambda m: m.infer_j_per_img)),
    Column("key", "", "comparability key; rows of different keys are never ranked together", lambda r: r.key.short),
    Column("data", "", "data set and a hash of its settings", lambda r: r.key.data),
    Column("img_size", "pixels", "input size", lambda r: (r.done + r.failed)[0].spec.get("data", {}).get("img_size")),
    Column("recipe", "", "hash of every setting of the recipe", lambda r: r.key.recipe),
    Column("epochs_granted", "", "epochs of training + of fine-tuning that every cell is granted", lambda r: r.key.epochs),
    Column("batch_size", "images", "global batch of training", lambda r: r.key.batch_size),
    Column("dtype", "", "of training", lambda r: r.key.dtype),
    Column("device", "", "GPU, or CPU", lambda r: r.key.device),
    Column("ranks", "", "processes of a training", lambda r: r.key.ranks),
    Column("threads", "", "CPU threads of a process", lambda r: r.key.threads),
    Column("loader", "", "data loader of the training, with its version", lambda r: r.key.loader),
    Column("scan", "", "backend of the selective scan", lambda r: r.key.scan),
    Column("clock_mhz", "MHz", "clock of the device right after timing; median over seeds", lambda r: r.median(lambda m: m.clock_mhz)),
    Column("speed_protocol", "", "how speeds are measured: batch sizes, dtype, warm-up, timer", lambda r: r.key.speed_protocol),
    Column("flops_convention", "", "how MACs are counted", lambda r: r.key.flops_convention),
    Column("collapsed", "", "prunable parameters without a weight left, in any seed: an alarm", collapsed),
    Column("commit", "", "code versions; + marks a tree with changes", lambda r: " ".join(sorted({version(c) for c in r.done + r.failed}))),
    Column("failed", "", "cells without a number, by kind", lambda r: r.failures),
    Column("cells", "", "ids of every cell of the row, by seed", lambda r: " ".join(c.id for c in sorted(r.done + r.failed, key=lambda c: c.seed))),
)


COLUMNS = {column.name: column for column in LEADERBOARD}

CELLS: tuple[str, ...] = (
    "cell",
    "key",
    "grid",
    "model",
    "pruning",
    "seed",
    "status",
    "failure",
    "failed_stage",
    *METRICS,
    "collapsed",
    "uncounted_ops",
    "notes",
    "commit",
    "dirty",
    "host",
    "device",
    "ranks",
    "threads",
    "loader",
    "scan",
    "data_sha256",
    "weights_sha256",
    "stages",
    "started",
    "finished",
)


def cell_line(record: Record, row: Row) -> dict[str, Value]:
    """A line of cells.csv: identity, every number of the record under the record's name and unit, and environment. Labels are those of its row."""
    metrics = record.metrics
    return {
        "cell": record.id,
        "key": row.key.short,
        "model": row.model,
        "pruning": row.pruning,
        **{name: getattr(record, name) for name in IDENTITY},
        "failure": record.failure.kind if record.failure else None,
        "failed_stage": record.failure.stage if record.failure else None,
        **({name: getattr(metrics, name) for name in METRICS} if metrics else {}),
        "collapsed": " ".join(metrics.collapsed) if metrics else None,
        "uncounted_ops": " ".join(metrics.uncounted_ops) if metrics else None,
        "notes": "; ".join(metrics.notes) if metrics else None,
        **{name: getattr(record.environment, name) for name in MACHINE},
        "device": record.environment.gpu or record.environment.cpu,
        "stages": " ".join(record.stages),
    }
