"""python -m harness.export <folder of a cell> <file>: a finished cell as a graph of torch's own operations (.pt2) or as ONNX (.onnx).

Exit codes: 0: written, and equal to the cell's network; 1: this network cannot be exported so, or differs; 2: usage.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.load import LoadedCell, LoadError, load_cell
from jobs.experiment.files import written_aside
from jobs.experiment.output import printable, replace_unencodable, tells_lost_output

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

WRITTEN, REFUSED, USAGE = 0, 1, 2
ONNX_PACKAGES: Final = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE: Final = 1e-4  # of the largest logit: kernels sum in other sequences


class ExportError(ValueError):
    """A network cannot be exported so. The message says why, and what can be done."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file, and how far its logits are from those of the cell's network on random images."""

    path: Path
    difference: float  # the largest, as a fraction of the largest logit

    @property
    def equal(self) -> bool:
        """True if rounding explains the difference."""
        return self.difference <= TOLERANCE


@tells_lost_output(USAGE)
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    options = parse(arguments)
    try:
        cell = load_cell(options.cell, scan="reference", plugin=options.plugin)
    except LoadError as error:
        print(printable(str(error)), file=sys.stderr)
        return USAGE
    try:
        done = export(cell, options.file)
    except ExportError as error:
        print(printable(str(error)), file=sys.stderr)
        return REFUSED
    verdict = "equal to the cell's network" if done.equal else "NOT equal to the cell's network"
    print(printable(f"{done.path}: {verdict}, logits within {done.difference:.1e} of the largest"))
    return WRITTEN if done.equal else REFUSED


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.export", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cell", type=Path, help="the folder of a cell, or a copy of it")
    parser.add_argument("file", type=Path, help="what to write: a file that ends in .pt2 or .onnx")
    parser.add_argument("--plugin", type=Path, help="the folder with the copy of the plug-in that the model is of; its code is run")
    options = parser.parse_args(arguments)
    if options.file.suffix not in (".pt2", ".onnx"):
        parser.error(f"{options.file} ends in neither .pt2 (torch.export) nor .onnx")
    return options


def export(cell: LoadedCell, path: Path) -> Exported:
    """Writes the network of a cell that was loaded with scan="reference", for any number of images. Raises ExportError."""
    import torch

    if path.suffix == ".onnx":
        check_onnx(cell.network)
    size = cell.config.input.img_size
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    program = program_of(cell.network, images[:2])
    with written_aside(path) as aside:
        logits = write_onnx(program, aside, images) if path.suffix == ".onnx" else write_program(program, aside, images)
    with torch.no_grad():
        expected = cell.network(images)
    return Exported(path=path, difference=float((logits - expected).abs().max() / expected.abs().max()))


def program_of(network: "nn.Module", images: "Tensor") -> "ExportedProgram":
    """The graph of a network for any number of images of this size. ExportError where torch.export cannot follow it."""
    import torch

    try:
        return torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # torch raises errors of many kinds for code that it cannot follow
        raise ExportError(f"torch.export cannot follow this network: {type(error).__name__}: {error}") from error


def write_program(program: "ExportedProgram", path: Path, images: "Tensor") -> "Tensor":
    """The logits of the graph in the file, which is written and read again."""
    import torch

    with path.open("wb") as file:
        torch.export.save(program, file)
    with path.open("rb") as file:
        logits: Tensor = torch.export.load(file).module()(images)
    return logits.detach()


def write_onnx(program: "ExportedProgram", path: Path, images: "Tensor") -> "Tensor":
    """The logits of the ONNX file by ONNX Runtime. ExportError where torch has no ONNX form of an operation, such as the sorting of tokens."""
    import onnxruntime
    import torch

    try:
        converted = torch.onnx.export(program, input_names=["images"], output_names=["logits"], verbose=False)
    except Exception as error:  # of the exporter's own private classes
        raise ExportError(f"torch cannot write this network as ONNX: {first_cause(error)}: write a .pt2 file") from error
    assert converted is not None  # it is None only where torch writes the file itself
    converted.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def first_cause(error: BaseException) -> str:
    """The first line of the error that an error began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def check_onnx(network: "nn.Module") -> None:
    """Raises ExportError for packages that are missing, and for layers that ONNX has no operations for."""
    from models.ssm.s4d import S4D
    from models.ssm.s5 import S5

    if missing := [name for name in ONNX_PACKAGES if find_spec(name) is None]:
        raise ExportError(f"ONNX needs {' and '.join(missing)}: pip install {' '.join(ONNX_PACKAGES)}; a .pt2 file needs neither")
    if layer := next(((name, type(module).__name__) for name, module in network.named_modules() if isinstance(module, S4D | S5)), None):
        raise ExportError(f"{layer[0]} is an {layer[1]}, which computes with complex numbers, and ONNX has none: write a .pt2 file")


if __name__ == "__main__":
    sys.exit(main())
