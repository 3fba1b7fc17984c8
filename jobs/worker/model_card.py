"""The model card of a finished cell: README.md in its folder, in the form of Hugging Face's hub, which reads the YAML at its beginning.

The card names neither hosts nor paths. Everything on it follows from the record and the config, so writing it again gives the same bytes.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final

from jobs.experiment.cell_config import PROJECT, CellConfig
from jobs.experiment.files import recognizable
from jobs.experiment.output import printable
from jobs.experiment.records import Metrics, Record, trained_recipe
from jobs.experiment.specs import RecipeSpec
from jobs.experiment.trials import in_words

ALWAYS: Final = ("epochs", "finetune_epochs", "batch_size", "optimizer", "lr", "weight_decay")  # settings of a recipe that a card names in any case
PATHS: Final = ("teacher", "pretrained")  # settings that may be paths, of which a card shows the file's name
LICENSE: Final = "# license: choose one, such as mit; weights that started from others' weights keep the terms of those"


def model_card(record: Record, config: CellConfig) -> str:
    """The card of a cell with numbers."""
    metrics = record.metrics
    if metrics is None:
        raise ValueError(f"cell {record.id} has no numbers, so it has no card")
    sections = [
        title(record, metrics),
        f"## Use\n\n{use(config)}",
        f"## Results\n\n{table(results(metrics))}",
        f"## Pruning\n\n{pruning(record, metrics)}",
        f"## Data\n\n{data(record, config, metrics)}",
        f"## Training\n\n{training(record, metrics)}",
        f"## Limits\n\n{bullets(limits(record, metrics))}",
        f"## Reproduce\n\n{reproduction(record, config)}",
    ]
    return str(recognizable(f"---\n{front_matter(record, config, metrics)}{LICENSE}\n---\n\n" + "\n\n".join(sections) + "\n"))


def front_matter(record: Record, config: CellConfig, metrics: Metrics) -> str:
    """What the hub reads: tags, and the accuracy as a model-index."""
    import yaml

    measured = [{"type": "accuracy", "name": name, "value": value, "verified": False} for name, value in accuracies(metrics)]
    dataset = {"name": data_name(record), "type": data_name(record), "split": "test"}
    task = {"type": "image-classification", "name": "Image classification"}
    method = record.spec["pruning"]["method"]
    index = [{"name": name_of(record), "results": [{"task": task, "dataset": dataset, "metrics": measured}]}]
    fields = {
        "library_name": config.library,
        "pipeline_tag": "image-classification",
        "tags": [
            "image-classification",
            config.library,
            printable(record.spec["model"]["name"]),
            *([] if method == "dense" else ["pruning", method]),
        ],
        "model-index": index,
    }
    return yaml.safe_dump(recognizable(fields), sort_keys=False, allow_unicode=True, width=1000)


def accuracies(metrics: Metrics) -> Iterator[tuple[str, float]]:
    """The values of the model-index, in percent."""
    yield "Top-1 accuracy", round(metrics.top1, 4)
    if metrics.top5 is not None:
        yield "Top-5 accuracy", round(metrics.top5, 4)


def title(record: Record, metrics: Metrics) -> str:
    """The heading, and the cell in one sentence."""
    top1 = f"{metrics.top1:.2f}% of the {metrics.test_samples:,} test images of {data_name(record)}"
    return f"# {name_of(record)}\n\nAn image classifier: {record.model}, {record.pruning}, seed {record.seed}. It is right on {top1}."


def use(config: CellConfig) -> str:
    """How the folder is loaded."""
    plugin = config.model.plugin_sha256
    lines = [
        "from PIL import Image",
        "from harness.load import load_cell",
        'cell = load_cell("path/of/this/folder")',
        'scores = cell.network(cell.preprocess(Image.open("image.png")))',
        "print(cell.class_names[scores.argmax()])",
    ]
    own = f" The model is of the plug-in {config.model.plugin} (SHA-256 `{plugin}`): give its folder as `plugin=`." if plugin else ""
    return f"With vssm-bench installed:{own}\n\n```python\n" + "\n".join(lines) + "\n```"


def results(metrics: Metrics) -> Iterator[tuple[str, str]]:
    """The rows of the table of results."""
    yield "Top-1, test", f"{metrics.top1:.2f}%"
    if metrics.top5 is not None:
        yield "Top-5, test", f"{metrics.top5:.2f}%"
    yield "Top-1, validation", f"{metrics.val_top1:.2f}%"
    yield "Parameters", f"{metrics.params:,}"
    yield "Parameters that are not zero", f"{metrics.params_nonzero:,}"
    yield "Multiply-adds of an image", f"{metrics.macs_structural or metrics.macs:,}"
    yield "Multiply-adds, those with a zero weight left out", f"{metrics.macs_nonzero:,}"
    yield "File", f"{metrics.file_bytes:,} bytes"
    yield f"Throughput, {metrics.throughput_batch} images at once", f"{metrics.throughput_img_per_s:,.1f} images/s"
    yield "Latency, 1 image", f"{metrics.latency_ms:.2f} ms"


def pruning(record: Record, metrics: Metrics) -> str:
    """What was pruned, and by what method."""
    given = record.spec["pruning"]
    if given["method"] == "dense":
        return "None: this is a dense control, to compare pruned cells with."
    zeros = f"{metrics.sparsity_prunable:.1%} of the prunable weights are zero, and {metrics.sparsity_all:.1%} of all parameters."
    knobs = settings({name: value for name, value in given["knobs"].items() if value is not None})
    gone = metrics.params_dense - metrics.params if metrics.params_dense else 0
    removed = f"\n\n{gone:,} parameters were removed: structure.json says which parts are gone." if gone else ""
    collapsed = f"\n\nNo weight is left in: {', '.join(metrics.collapsed)}." if metrics.collapsed else ""
    return f"Method `{given['method']}`. {zeros}{removed}{collapsed}\n\n{knobs}"


def data(record: Record, config: CellConfig, metrics: Metrics) -> str:
    """The images, and how they become the network's input."""
    given, size = config.input, config.input.img_size
    if given.interpolation == "area":
        cut = f"the centre, {given.eval_crop:g} of the shorter side, resized by `area` (the whole of images whose shorter side has {size} pixels)"
    else:
        cut = f"cut from the centre after a resize of the shorter side to {math.floor(size / given.eval_crop)} pixels, `{given.interpolation}`"
    channels = f"minus {list(given.mean)}, divided by {list(given.std)}"
    images = f"{config.classes} classes, {metrics.test_samples:,} test images"
    return f"{data_name(record)}: {images}. Inputs are {size} x {size} pixels: {cut}; then, by channel, {channels}."


def training(record: Record, metrics: Metrics) -> str:
    """The recipe: the settings that differ from the defaults, and those that a reader looks for."""
    recipe, defaults = trained_recipe(record), vars(RecipeSpec())
    shown = {name: value for name, value in recipe.items() if name in ALWAYS or (name in defaults and value != plain(defaults[name]))}
    file = record.spec["model"]["options"].get("pretrained")
    start = f" The weights started from those of `{printable(PurePath(file).name)}`." if file else ""
    known = f"Settings that are not named are the defaults of vssm-bench.{start}{tuned(record)}"
    return f"{metrics.epochs} epochs in all, seed {record.seed}. {known}\n\n{settings(shown)}"


def tuned(record: Record) -> str:
    """What was chosen among how many trials; empty for a cell that was not tuned."""
    if record.tuning is None:
        return ""
    values, count = in_words(record.tuning.trials[record.tuning.chosen].values), len(record.tuning.trials)
    return f" Chosen by validation accuracy, among {count} trials: {values}." if count > 1 else ""


def limits(record: Record, metrics: Metrics) -> Iterator[str]:
    """What a reader must not read into the numbers."""
    sampling = 100 * math.sqrt(metrics.top1 / 100 * (1 - metrics.top1 / 100) / metrics.test_samples)
    yield f"This is one cell: one training, with seed {record.seed}. Another seed gives another accuracy: compare rows of several seeds."
    yield (
        f"One test image is {100 / metrics.test_samples:.2f} points, and other test images would move top-1 by about {sampling:.2f} points "
        "(one standard error)."
    )
    yield f"It was tried on the test images of {data_name(record)} alone: not on other images, on shifted ones, nor for fairness or safety."
    device = record.environment.gpu or f"{record.environment.cpu}, {record.environment.threads} threads"
    yield f"Speeds are those of one machine ({device}; scan: {record.environment.scan}). They do not carry over to others."
    if metrics.sparsity_prunable > 0:
        yield "Zeros save time and memory only with kernels and formats that use them. The speeds above are those of dense kernels."
    yield from metrics.notes


def reproduction(record: Record, config: CellConfig) -> str:
    """The command that trains the cell again, and what it needs."""
    commit = f", commit {config.commit}" if config.commit else ""
    torch = record.environment.versions.get("torch")
    made = f"{PROJECT} {config.library_version or 'of an unknown version'}{commit}" + (f", torch {torch}" if torch else "")
    return (
        f"```\npython -m harness.reproduce {record.id}\n```\n\nThe command reads the cell's record in its run folder, trains every stage again, and "
        f"compares. The cell ran with {made}. Weights: SHA-256 `{record.weights_sha256}`; images: `{record.environment.data_sha256}`."
    )


def name_of(record: Record) -> str:
    """The cell's name on the hub."""
    return printable(f"{record.model}, {record.pruning}, seed {record.seed}")


def data_name(record: Record) -> str:
    """The name of the data, without paths."""
    return printable(record.spec["data"].get("name") or record.spec["data"]["source"])


def settings(values: Mapping[str, Any]) -> str:
    """Settings as a block of YAML; of paths the file's name alone."""
    import yaml

    if not values:
        return "No settings."
    text = yaml.safe_dump(recognizable(without_folders(values)), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return f"```yaml\n{text}```"


def without_folders(value: Any, name: str = "") -> Any:
    """`value` with the file's name in the place of each path."""
    if isinstance(value, Mapping):
        return {key: without_folders(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item, name) for item in value]
    return PurePath(value).name if name in PATHS and isinstance(value, str) else value


def plain(value: Any) -> Any:
    """A default as JSON holds it."""
    return list(value) if isinstance(value, tuple) else value


def table(rows: Iterator[tuple[str, str]]) -> str:
    """A Markdown table of two columns."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def bullets(lines: Iterator[str]) -> str:
    """A Markdown list; a line of several stays one item."""
    return "\n".join(f"- {printable(line)}" for line in lines)
