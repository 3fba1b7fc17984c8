"""Tables: how far an evaluation moves with what should not matter. `python -m benchmarks.sensitivity [runs/x ...]`

The same weights are evaluated again and again, each time with one setting changed: evaluation batch, number format, loader, threads, scan, and the
instruction set of the CPU (in a process of its own, whose libraries are told to use AVX2). Every row is held against the first: top-1 on the test
images, predictions that changed among all images of the data set, the largest difference of a logit. For the scale, a table's heading has the median
distance of an image's two largest logits.

Without a run folder two grids are trained first: two micro networks on digits, and vim_tiny at 224 px on few synthetic images, whose top-1 means
nothing. With one, every cell of it is evaluated.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from jobs.data.loaders import EvalLoader
from jobs.data.prepare import Dataset, prepare
from jobs.experiment.cell import Cell
from jobs.experiment.output import replace_unencodable
from jobs.experiment.records import read_record
from jobs.experiment.run_folder import WEIGHTS, RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.parallel.bf16 import keep_statistics_in_fp32
from jobs.train.evaluation import load_model
from jobs.worker.environment import cpu_name
from models.closed_pipe import ends_with_its_reader

AVX2: Mapping[str, str] = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"}
BATCH, IMAGES = 64, 2000
DIGITS = {
    "name": "digits",
    "data": {"source": "digits"},
    "recipe": {"epochs": 7, "finetune_epochs": 0, "batch_size": 32, "lr": 4e-3},
    "models": ["vim_micro", "mambavision_micro"],
    "pruning": ["dense"],
    "seeds": [0],
}
TINY = {
    "name": "tiny",
    "data": {"source": "synthetic", "img_size": 224, "samples": 160, "classes": 4},
    "recipe": {"epochs": 1, "finetune_epochs": 0, "batch_size": 8, "warmup_epochs": 0, "lr": 5e-4},
    "models": ["vim_tiny"],
    "pruning": ["dense"],
    "seeds": [0],
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a network is evaluated."""

    name: str
    batch: int = BATCH
    dtype: str = "fp32"
    loader: str = "ffcv"
    threads: int = 1
    scan: str = "cpu"
    variables: Mapping[str, str] = field(default_factory=dict)  # of the process


BASE = Setting(name=f"batch {BATCH}, fp32, ffcv, 1 thread, C++ scan")
SETTINGS = (
    Setting(name="the same again"),
    *(Setting(name=f"batch {size}", batch=size) for size in (8, 32, 100, 256)),
    Setting(name="2 threads", threads=2),
    Setting(name="torch's loader", loader="torch"),
    Setting(name="reference scan", scan="reference"),
    Setting(name="AVX2 in place of AVX-512", variables=AVX2),
    Setting(name="bf16", dtype="bf16"),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Logits (n, classes) float32 and labels (n,) of all images of a data set, those of the test set first."""

    logits: Tensor
    labels: Tensor
    tested: int  # images of the test set

    @property
    def top1(self) -> float:
        """Percent, on the test images."""
        return 100 * float((self.predictions == self.labels)[: self.tested].double().mean())

    @property
    def predictions(self) -> Tensor:
        """The class of each image."""
        return self.logits.argmax(1)

    @property
    def margin(self) -> float:
        """The median distance of an image's two largest logits."""
        largest = self.logits.topk(2).values
        return float((largest[:, 0] - largest[:, 1]).median())


@torch.no_grad()
def evaluated(cell: Cell, weights: Path, data: Dataset, setting: Setting, most: int = IMAGES) -> Outcome:
    """The outcome of a saved network with a setting, on at most so many images."""
    torch.set_num_threads(setting.threads)
    model = load_model(cell.model, classes=data.classes, img_size=data.img_size, scan=setting.scan, weights=weights)
    if setting.dtype == "bf16":
        in_bf16(model)
    dtype = next(model.parameters()).dtype
    logits, labels, tested = [], [], 0
    for split in ("test", "val", "train"):
        chosen = replace(cell.data, loader=setting.loader)
        loader = EvalLoader(chosen, data, split, batch_size=setting.batch, rank=0, world=1, threads=setting.threads)
        for images, targets in loader.batches():
            if sum(map(len, labels)) < most:
                logits.append(model(images.to(dtype)).float())
                labels.append(targets.clone())
        tested = tested or sum(map(len, labels))
    return Outcome(logits=torch.cat(logits)[:most], labels=torch.cat(labels)[:most], tested=min(tested, most))


def in_bf16(model: nn.Module) -> None:
    """Makes a network compute in bf16 as trainings do: BatchNorm's statistics stay in fp32."""
    keep_statistics_in_fp32(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()


def evaluated_elsewhere(path: Path, setting: Setting, most: int) -> Outcome:
    """The outcome in a process with the setting's variables."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "outcome.pt"
        command = [sys.executable, "-m", "benchmarks.sensitivity", str(path), "--images", str(most), "--only", setting.name, "--out", str(out)]
        subprocess.run(command, check=True, env=os.environ | setting.variables)
        return Outcome(**torch.load(out, weights_only=True))


def row(name: str, base: Outcome, other: Outcome) -> str:
    """A line of the table."""
    changed = int((base.predictions != other.predictions).sum())
    largest = float((base.logits - other.logits).abs().max())
    off = f"{other.top1 - base.top1:+.2f}" if other.top1 != base.top1 else "0"
    return f"| {name} | {other.top1:.2f} | {off} | {changed} | {f'{largest:.1e}' if largest else '0'} |"


def table(path: Path, most: int) -> None:
    """Prints the table of a cell, row by row, on at most so many images. `path`: its record."""
    cell, data, weights = opened(path)
    base = evaluated(cell, weights, data, BASE, most)
    images = f"{len(base.labels):,} images, {base.tested} of them for the test"
    scale = f"the two largest logits are {base.margin:.2f} apart in the median"
    print(f"\n{cell.model.label} on {cell.data.source} at {data.img_size} px: {images}; {scale}\n")
    print("| evaluation | top-1 % | points | predictions changed | largest logit difference |\n|---|---:|---:|---:|---:|")
    print(row(BASE.name, base, base), flush=True)
    for setting in SETTINGS:
        other = evaluated_elsewhere(path, setting, most) if setting.variables else evaluated(cell, weights, data, setting, most)
        print(row(setting.name, base, other), flush=True)


def opened(path: Path) -> tuple[Cell, Dataset, Path]:
    """A cell, its images and its weights. `path`: its record."""
    cell = Cell.from_json(read_record(path).spec)
    return cell, prepare(cell.data, Path(ClusterSpec().cache)), path.with_name(WEIGHTS)


def trained(folder: Path) -> list[Path]:
    """The run folders of both grids, which are trained in `folder`."""
    for grid in (DIGITS, TINY):
        (folder / f"{grid['name']}.yaml").write_text(yaml.safe_dump({**grid, "cluster": {"kind": "local", "profile_s": 0.001}}))
        command = [sys.executable, "-m", "harness.launch", str(folder / f"{grid['name']}.yaml"), "--runs", str(folder / "runs")]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return [folder / "runs" / str(grid["name"]) for grid in (DIGITS, TINY)]


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for every cell; or, for a process with variables of its own, writes one outcome of one cell."""
    replace_unencodable()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sensitivity", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, help="run folders whose cells are evaluated; without one, two grids are trained")
    parser.add_argument("--images", type=int, default=IMAGES, help="the images of a table, those of the test first (default: %(default)s)")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        setting = next(setting for setting in SETTINGS if setting.name == options.only)
        cell, data, weights = opened(options.runs[0])
        torch.save(vars(evaluated(cell, weights, data, setting, options.images)), options.out)
        return
    print(f"{cpu_name()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for run in options.runs or trained(Path(folder)):
            for path in sorted(RunFolder(run).record_paths()):
                table(path, options.images)


if __name__ == "__main__":
    main()
