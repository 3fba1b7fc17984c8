"""`python -m models` prints every model, and for one size of each family every variant, with parameters, multiply-adds and official weights.

`python -m models flops NAME` or a file counts one network in several conventions (`models.flops_report`).
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from models.closed_pipe import ends_with_its_reader
from models.flops import Costs, costs
from models.plugins.loading import load_file
from models.plugins.modules import line_in_plugin
from models.published import PUBLISHED
from models.registry import MODELS, create_model, effective_options, model_label
from models.text import valid_names

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "vim_tiny": [
        {"se": {}},
        {"mobilenet": {}},
        {"s4": {}},
        {"s5": {}},
        {"scan": ["h", "h_flip", "v", "v_flip"]},
        {"scan": ["h", "h_flip", "w2", "w2_flip"]},
    ],
    "vim_micro": [{"se": {}}, {"mobilenet": {}}, {"s4": {}}, {"s5": {}}, {"scan": ["h", "h_flip", "w2", "w2_flip"]}],
    "mambavision_t": [
        {"swa": {}},
        {"s4": {}},
        {"s5": {}},
        {"attention_pool": {}},
        {"attention_pool": {"downsample": True}},
        {"convnext": {}},
        {"convnext": {"kernel": 7}},
        {"se": {}},
        {"mobilenet": {}},
        {"s5": {}, "convnext": {}},
    ],
    "mambavision_micro": [{"swa": {"window": 3}}, {"s4": {}}, {"s5": {}}, {"attention_pool": {}}, {"convnext": {}}, {"se": {}}, {"mobilenet": {}}],
    "vmamba_tiny_s1l8": [{"se": {}}, {"mobilenet": {}}, {"s4": {}}, {"s5": {}}],
    "vmamba_micro": [{"se": {}}, {"mobilenet": {}}, {"s4": {}}, {"s5": {}}],
    "vssd_micro": [{"se": {}}, {"mobilenet": {}}],
    "vssd_micro_32": [{"se": {}}, {"mobilenet": {}}],
}
COLUMNS = ("model", "pixels", "parameters", "GMACs", "scan, GFLOPs", "official weights")


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    counts = words[:1] == ["flops"]
    given = flops_parser().parse_args(words[1:]) if counts else table_parser().parse_args(words)
    try:
        for path in given.plugins:
            load_file(path)
        return flops(given) if counts else table(given)
    except Exception as error:  # a plug-in's network may raise any
        line = line_in_plugin(error)
        if line is None and not isinstance(error, ValueError):
            raise
        print(error if line is None else f"{line}: {type(error).__name__}: {' '.join(str(error).split()) or 'no message'}", file=sys.stderr)
        return 1


def table_parser() -> argparse.ArgumentParser:
    """The flags of the table."""
    parser = argparse.ArgumentParser(
        prog="python -m models",
        description="Prints the table of models, for all rows or for some. Models of timm's have no rows: count one with flops timm/<name>.",
        epilog=f"{flops_parser().format_help()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--family", help=f"rows of a family: {', '.join(families())}")
    parser.add_argument("--size", help="rows of a size, as their names have it: tiny, t2, micro, s1l8")
    parser.add_argument("--pixels", type=int, help="rows for images of a size")
    parser.add_argument("--official", action="store_true", help="rows with official weights")
    parser.add_argument("--option", help="rows with an option or a variant set: se, scan; none: rows without")
    parser.add_argument("--json", action="store_true", help="rows as JSON, for scripts")
    add_plugins(parser)
    return parser


def flops_parser() -> argparse.ArgumentParser:
    """The flags of `flops`."""
    parser = argparse.ArgumentParser(prog="python -m models flops", description="Counts what one network does for an image, by several conventions.")
    parser.add_argument("target", metavar="NAME|FILE", help="a model, vim_tiny or vim_tiny+se or timm/<name>; a file of weights, or a cell's folder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option: depth=12, se.ratio=8, scan=h,h_flip,v,v_flip")
    parser.add_argument("--model", help="the model of a file that no record describes, such as an official one")
    parser.add_argument("--pretrained-key", help="the weights in a file that holds several, such as model_ema")
    parser.add_argument("--img-size", type=int, help="pixels; by default as in the file, or the model's own")
    parser.add_argument("--classes", type=int, help="by default as in the file, or 1000 (10 for 32 pixels)")
    parser.add_argument("--per-layer", action="store_true", help="a line for every layer too")
    parser.add_argument("--json", action="store_true", help="all figures as JSON, for scripts")
    add_plugins(parser)
    return parser


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """The flag for models from outside."""
    parser.add_argument(
        "--plugins", action="append", type=Path, default=[], metavar="FILE", help="a plug-in whose models count too; for each of several"
    )


def table(given: argparse.Namespace) -> int:
    """Prints the rows that are asked for, as Markdown or JSON. ValueError: no row is like that."""
    if given.family is not None and given.family not in families():
        raise ValueError(f"unknown family {given.family!r}{valid_names(given.family, families())}")
    chosen = [(name, options) for name, options in entries() if is_asked_for(name, options, given)]
    if not chosen:
        sizes = sorted({size for name in MODELS for size in name.split("_")[1:]})
        known = sorted({option for _, options in entries() for option in options})
        raise ValueError(f"no row is like that; sizes: {', '.join(sizes)}; options: {', '.join(known)}, none")
    if given.json:
        print(json.dumps([as_json(name, options) for name, options in chosen], indent=2))
        return 0
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---:|" * 4 + "---|")
    for name, options in chosen:
        print(row(name, options))
    return 0


def flops(given: argparse.Namespace) -> int:
    """Prints the report of one network."""
    from models.flops_report import lines_of, report_of, subject_of

    for flag, number in (("--img-size", given.img_size), ("--classes", given.classes)):
        if number is not None and number < 1:
            raise ValueError(f"{flag} must be 1 or more, not {number}")
    subject = subject_of(given.target, given.set, given.model, img_size=given.img_size, classes=given.classes, key=given.pretrained_key)
    report = report_of(subject)
    print(json.dumps(report.as_json(given.per_layer), indent=2) if given.json else "\n".join(lines_of(report, given.per_layer)))
    return 0


def families() -> list[str]:
    """The families, as the names of rows begin."""
    return list(dict.fromkeys(name.split("_")[0] for name in MODELS))


def is_asked_for(name: str, options: dict[str, Any], given: argparse.Namespace) -> bool:
    """True for a row that all filters let through."""
    family, *sizes = name.split("_")
    if any(value not in (None, own) for value, own in ((given.family, family), (given.pixels, MODELS[name].img_size))):
        return False
    if given.size is not None and given.size not in sizes:
        return False
    if given.option is not None and (bool(options) if given.option == "none" else given.option not in options):
        return False
    return not given.official or is_official(name, options)


def is_official(name: str, options: dict[str, Any]) -> bool:
    """True for a model with official weights."""
    return name in PUBLISHED and not effective_options(name, options)


def entries() -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, options) of every row of the table."""
    for name in MODELS:
        yield name, {}
        yield from ((name, options) for options in VARIANTS.get(name, []))


def row(name: str, options: dict[str, Any]) -> str:
    """A line of the table, for 1000 classes (10 for images of 32 px)."""
    cost = measure(name, options)
    official = "yes" if is_official(name, options) else "no"
    giga = [f"{value / 1e9:.3f}" if value else "" for value in (cost.macs, cost.scan_flops)]
    return f"| {model_label(name, options)} | {MODELS[name].img_size} | {cost.parameters:,} | {' | '.join(giga)} | {official} |"


def as_json(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A row as plain values."""
    cost = measure(name, options)
    own = {"model": model_label(name, options), "name": name, "options": options, "family": name.split("_")[0], "pixels": MODELS[name].img_size}
    return own | {"parameters": cost.parameters, "macs": cost.macs, "scan_flops": cost.scan_flops, "official": is_official(name, options)}


def measure(name: str, options: dict[str, Any]) -> Costs:
    """The costs of a row's model, which is made on the meta device: nothing is stored or computed."""
    size = MODELS[name].img_size
    with torch.device("meta"):
        model = create_model(name, num_classes=10 if size == 32 else 1000, **options)
    return costs(model, size)


if __name__ == "__main__":
    sys.exit(main())
