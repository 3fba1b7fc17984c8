"""Measures a GPU for ten minutes and writes one page, gpu.md, and the same figures as gpu.json: `python -m benchmarks.gpu --out folder`.

Sections come in order of worth, each in processes of its own, and both files are written after every row: a kernel that breaks the device, a package
that is missing and the end of the time cost the rows that they concern, and are told in them. `--device cpu` runs the same code at tiny sizes.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.gpu.checks import check_rows, machine_rows
from benchmarks.gpu.kernels import kernel_rows, launch_rows
from benchmarks.gpu.latency import latency_rows
from benchmarks.gpu.networks import network_rows
from benchmarks.gpu.page import Page, fill, own_command
from benchmarks.gpu.rows import Section, serve
from benchmarks.gpu.sizes import CPU, GPU
from benchmarks.gpu.training import engine_rows, loader_rows, seed_rows
from models.closed_pipe import ends_with_its_reader

SIZES = {"cuda": GPU, "cpu": CPU}
SECTIONS = {
    "machine": Section(title="The machine", about="", rows=machine_rows, seconds=30),
    "checks": Section(
        title="Right or wrong",
        about="Kernels against closed forms in fp64 (`python -m models.ssm.check`), networks against the CPU and against the official composition.",
        rows=check_rows,
        seconds=90,
    ),
    "networks": Section(
        title="Networks",
        about="Training steps (AdamW) and forward passes on one batch that stays on the device: median of turns.",
        rows=network_rows,
        seconds=210,
    ),
    "kernels": Section(
        title="Kernels",
        about="Single calls, in the memory layout that a network gives them. GB/s: inputs and output of the forward pass, each once.",
        rows=kernel_rows,
        seconds=120,
    ),
    "seed": Section(
        title="The seed's cell",
        about="A whole stage: 50,000 images of 32 px, batches of 128, validation and a checkpoint after each epoch. 100 epochs are "
        "extrapolated from the mean of the second and the third.",
        rows=seed_rows,
        seconds=100,
    ),
    "engine": Section(
        title="The engine of a job", about="Steps through DeepSpeed on one batch that stays on the device.", rows=engine_rows, seconds=60
    ),
    "loader": Section(
        title="Loader to device", about="From JPEGs in the page cache to normalised tensors on the device.", rows=loader_rows, seconds=80
    ),
    "latency": Section(title="One image", about="As a cell's profile measures it, in fp32 unless it says otherwise.", rows=latency_rows, seconds=180),
    "launch": Section(
        title="Other launches of the backward scan",
        about="The constants of models/ssm/launch.py, the ones in use first; a faster row is the value to take. Vim-Ti, both directions.",
        rows=launch_rows,
        seconds=60,
    ),
}


@ends_with_its_reader
def main(words: list[str] | None = None) -> int:
    """Writes the page, or with --section measures one section's rows for the process that does."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of gpu.md and gpu.json; default: runs/gpu")
    parser.add_argument("--device", choices=list(SIZES), default="cuda")
    parser.add_argument("--seconds", type=float, default=600, help="for all; default: 600")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="sections; default: all")
    parser.add_argument("--section", choices=list(SECTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    sizes = SIZES[given.device]
    if given.section:
        return serve(SECTIONS[given.section], sizes, given.first)
    sections = {name: SECTIONS[name] for name in SECTIONS if name in given.only}
    labels = {name: [row.labels for row in section.rows(sizes)] for name, section in sections.items()}
    page = Page(folder=given.out, title=f"vssm-bench on one {'GPU' if given.device == 'cuda' else 'CPU: no figure here says anything of a GPU'}",
                sections=sections, labels=labels)  # fmt: skip
    end = time.monotonic() + given.seconds
    for name, section in sections.items():
        fill(page, name, own_command(given.device), min(end, time.monotonic() + section.seconds))
        errors = sum("error" in values for values in page.results.get(name, {}).values())
        print(f"{section.title}: {len(labels[name])} rows" + (f", {errors} without a figure" if errors else ""), flush=True)
    print(f"{given.out / 'gpu.md'}\n{given.out / 'gpu.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
