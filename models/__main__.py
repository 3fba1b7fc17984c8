"""`python -m models` prints every model, and for one size of each family every variant, with parameters, multiply-adds and official weights."""

from collections.abc import Iterator
from typing import Any

import torch

from models.flops import Costs, costs
from models.published import PUBLISHED
from models.registry import MODELS, create_model, effective_options, model_label

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


def main() -> None:
    """Prints the table as Markdown."""
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---:|" * 4 + "---|")
    for name, options in entries():
        print(row(name, options))


def entries() -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, options) of every row of the table."""
    for name in MODELS:
        yield name, {}
        yield from ((name, options) for options in VARIANTS.get(name, []))


def row(name: str, options: dict[str, Any]) -> str:
    """A line of the table, for 1000 classes (10 for images of 32 px)."""
    cost = measure(name, options)
    official = "yes" if name in PUBLISHED and not effective_options(name, options) else "no"
    giga = [f"{value / 1e9:.3f}" if value else "" for value in (cost.macs, cost.scan_flops)]
    return f"| {model_label(name, options)} | {MODELS[name].img_size} | {cost.parameters:,} | {' | '.join(giga)} | {official} |"


def measure(name: str, options: dict[str, Any]) -> Costs:
    """The costs of a row's model, which is made on the meta device: nothing is stored or computed."""
    size = MODELS[name].img_size
    with torch.device("meta"):
        model = create_model(name, num_classes=10 if size == 32 else 1000, **options)
    return costs(model, size)


if __name__ == "__main__":
    main()
