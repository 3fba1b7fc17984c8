"""`python -m models flops`: what a model, or the network in a file, costs for one image, in our convention and in those of the papers.

A file that a finished cell left is described by the record beside it, and by structure.json if units were removed. Of any other file you name the
model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.flops import CONVENTIONS, Tally, count_parameters, tally
from models.plugins.loading import DIGITS
from models.plugins.modules import line_in_plugin
from models.positions import side_of
from models.pretrained import POSITIONS, head_names, load_pretrained, without_prefixes
from models.registry import create_model, model_config, model_entry, model_label, model_problem
from models.weight_files import read_weights

WEIGHTS, RECORD, STRUCTURE = "model.safetensors", "record.json", "structure.json"  # of a cell's folder
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
OF_A_FILE = ("pretrained", "pretrained_key")
PARTS = {
    "products": "linear layers, convolutions, matrix products",
    "attention": "attention: queries with keys, weights with values",
    "scan": "scans, 9 B L D N",
    "skip": "their skip, B L D",
    "gate": "their gate, B L D",
    "norms": "norms, as fvcore counts them",
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is counted."""

    name: str
    options: Mapping[str, Any]
    img_size: int | None = None  # pixels; None: as in the file, else the model's own
    classes: int | None = None  # None: as in the file, else 1000, and 10 for 32 pixels
    file: Path | None = None
    key: str | None = None  # of the weights in a file that holds several
    structure: Path | None = None  # the file that says what a method removed, or that tokens merge


@dataclass(frozen=True, kw_only=True)
class Report:
    """The figures of a subject."""

    model: str
    file: str | None
    img_size: int
    classes: int
    parameters: int
    nonzero: int | None  # None: without a file there are no values
    tally: Tally

    def as_json(self, per_layer: bool) -> dict[str, Any]:
        """Plain values for scripts."""
        own = {name: getattr(self, name) for name in ("model", "file", "img_size", "classes", "parameters", "nonzero")}
        counts = [{"name": each.name, "total": each.figure(self.tally), "left_out": each.left_out} for each in CONVENTIONS]
        layers = {"layers": [asdict(layer) for layer in self.tally.layers]} if per_layer else {}
        return own | {"parts": self.tally.parts, "counts": counts} | layers


def subject_of(target: str, settings: Sequence[str], model: str | None = None, **given: Any) -> Subject:
    """The subject that a command names: a model, `vim_tiny` or `vim_tiny+se`, or a file. `settings`: `key=value` each.

    ValueError says what is wrong with it.
    """
    path = Path(target).expanduser()
    if target and path.is_dir() and ((path / WEIGHTS).exists() or model_problem(target)):
        path = path / WEIGHTS
    if not path.is_file() and not path.name.endswith(ENDINGS):
        name, options = named(target, settings)
        if model is not None:
            raise ValueError(f"--model names the model of a file, and {target!r} is no file")
        if given.get("key") is not None:
            raise ValueError(f"--pretrained-key names weights in a file, and {target!r} is no file")
        return Subject(name=name, options=options, **given)
    if model is not None:
        name, options = named(model, settings)
        return Subject(name=name, options=options, file=path, structure=path.parent / STRUCTURE, **given)
    return described(path, settings, **given)


def named(label: str, settings: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """(name, options) of a model and its variants, `vim_tiny+se`, and of settings, `depth=12`, `se.ratio=2`. ValueError: one without a value."""
    name, *variants = label.split("+")
    model_entry(name)  # the name is checked first
    options: dict[str, Any] = dict.fromkeys(variants, True)
    for setting in settings:
        keys, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: give a value, such as --set depth=12 or --set se.ratio=8")
        *parents, last = keys.split(".")
        inner = options
        for parent in parents:
            if not isinstance(inner.get(parent), dict):
                inner[parent] = {}
            inner = inner[parent]
        inner[last] = value_of(value)
    model_config(name, options)
    return name, options


def value_of(text: str) -> Any:
    """A value as JSON has it; `2,2,8,2` and `[h, h_flip]` are lists, and all else is text."""
    try:
        return json.loads(text)
    except ValueError:
        bare = text.strip()
        bracketed = bare.startswith("[") and bare.endswith("]")
        if not bracketed and "," not in bare:
            return bare
        return [value_of(item.strip()) for item in (bare[1:-1] if bracketed else bare).split(",") if item.strip()]


def described(path: Path, settings: Sequence[str], **given: Any) -> Subject:
    """The subject in a file of a finished cell, by the record beside it. ValueError if there is none, or if settings contradict it."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}, and no model of this name")
    spec = _json(path.parent / RECORD).get("spec", {})
    if not {"model", "data"} <= spec.keys():
        raise ValueError(
            f"{path} does not say which model it holds, and no {RECORD} of a finished cell lies beside it: name the model with --model, such as "
            f"--model vim_tiny, and its options with --set"
        )
    if settings:
        raise ValueError(f"--set changes a model, and {path} holds one already: its {RECORD} has the options")
    name, plugin = spec["model"]["name"], spec["model"].get("plugin")
    if plugin is not None and model_problem(name):
        copy = f"plugins/{spec['model']['plugin_sha256'][:DIGITS]}"
        raise ValueError(f"{path} holds {name}, a model of the plug-in {plugin}: give --plugins and its file, or its copy in the run folder, {copy}/")
    options = {key: value for key, value in spec["model"]["options"].items() if key not in OF_A_FILE}
    size = given.pop("img_size", None) or spec["data"].get("img_size")
    return Subject(name=name, options=options, img_size=size, file=path, structure=path.parent / STRUCTURE, **given)


def report_of(subject: Subject) -> Report:
    """The figures of a subject. ValueError: options, an image or a file that do not fit the model. An error of a plug-in's stays as it is."""
    try:
        return _report(subject)
    except Exception as error:
        if isinstance(error, ValueError) or line_in_plugin(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        size = f"images of {subject.img_size} px" if subject.img_size else "its images"
        raise ValueError(f"{model_label(subject.name, subject.options)} does not run on {size}: {reason}") from error


def _report(subject: Subject) -> Report:
    weights = without_prefixes(read_weights(subject.file, subject.key)) if subject.file else {}
    config, entry = model_config(subject.name, subject.options), model_entry(subject.name)
    size = subject.img_size or _size_in(weights, config) or entry.img_size
    classes = subject.classes or (10 if size == 32 else 1000)
    network = _made(subject, classes, size)
    held = next((len(weights[name]) for name in head_names(network) if name in weights), None)
    if held is not None and held != classes and subject.classes is None:
        classes = held
        network = _made(subject, classes, size)
    if subject.file:
        load_pretrained(network, subject.file, subject.key)  # on the meta device this only checks
    renamed = getattr(network, "as_saved_now", dict)(weights)
    nonzero = sum(int(renamed[name].count_nonzero()) for name, _ in network.named_parameters() if name in renamed)
    return Report(
        model=model_label(subject.name, subject.options),
        file=str(subject.file) if subject.file else None,
        img_size=size,
        classes=classes,
        parameters=count_parameters(network),
        nonzero=nonzero if subject.file else None,
        tally=tally(network, size),
    )


def _made(subject: Subject, classes: int, size: int) -> nn.Module:
    """The network on the meta device, without what is gone, its tokens merging if they do."""
    with torch.device("meta"):
        network = create_model(subject.name, classes, size, **subject.options)
    if subject.structure is not None and subject.structure.exists():
        from models.pruning.structure import restructure
        from models.pruning.structure_json import structure_of

        try:
            restructure(network, structure_of(_json(subject.structure)), size)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{subject.structure} does not say what is gone from the network: {error!r}") from None
    return network


def _size_in(weights: Mapping[str, Tensor], config: Any) -> int | None:
    """The image size in pixels of which position embeddings tell; None without any."""
    side = side_of(weights[POSITIONS]) if POSITIONS in weights else None
    patch: int | None = getattr(config, "patch_size", None)
    if side is None or patch is None:
        return None
    return (side - 1) * (getattr(config, "stride", None) or patch) + patch


def _json(path: Path) -> dict[str, Any]:
    """A file's mapping; empty without a file. ValueError: it holds something else."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}, which describes the weights beside it, cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}, which describes the weights beside it, holds no mapping")
    return content


def lines_of(report: Report, per_layer: bool) -> list[str]:
    """The report as text."""
    where = f" in {report.file}" if report.file else ""
    lines = [f"{report.model}{where}: one image of {report.img_size} x {report.img_size} pixels, {report.classes} classes", ""]
    lines.append(f"{'parameters':<52}{report.parameters:>16,}")
    if report.nonzero is not None:
        lines.append(f"{'of them not zero':<52}{report.nonzero:>16,}")
    lines += [f"{words:<52}{amount(report.tally.parts[part])}" for part, words in PARTS.items()]
    for each in CONVENTIONS:
        lines += ["", f"{each.name:<52}{amount(each.figure(report.tally))}", f"  used by    {each.used}", f"  leaves out {each.left_out}"]
    if per_layer:
        wide = max(len(layer.name) for layer in report.tally.layers) + 2
        lines += ["", f"{'layer':<{wide}}{'kind':<22}{'parameters':>12}{'M multiply-adds':>17}{'scan, MFLOPs':>14}"]
        for layer in report.tally.layers:
            figures = "".join(f"{value / 1e6:>{width}.3f}" for value, width in ((layer.macs, 17), (layer.scan_flops, 14)))
            lines.append(f"{layer.name or '(the network)':<{wide}}{layer.kind:<22}{layer.parameters:>12,}{figures}")
    return lines


def amount(operations: int) -> str:
    """Operations in millions, or from a hundred millions on in thousands of millions."""
    return f"{operations / 1e9:>16.3f} G" if operations >= 1e8 else f"{operations / 1e6:>16.3f} M"
