"""Rules on the files of a cell, which are read and counted again: 5 to 7."""

from collections.abc import Iterator

from harness.review.evidence import Evidence, Measured
from harness.review.rules import Finding
from jobs.experiment.cell import Cell
from jobs.experiment.cell_config import ConfigError, read_config
from jobs.experiment.files import sha256_of
from jobs.experiment.run_folder import CONFIG, MASKS, STRUCTURE, WEIGHTS
from jobs.experiment.specs import image_size

CLOSE = 1e-12


def weights(evidence: Evidence) -> Iterator[Finding]:
    """Rule 5."""
    for cell in evidence.measured:
        if not cell.weights.exists():
            yield Finding(rule=5, where=cell.name, text=f"{cell.weights.name} is missing")
        elif cell.record.weights_sha256 is None:
            yield Finding(rule=5, where=cell.name, text="the record has no digest of the weights", weight="unchecked")
        elif sha256_of(cell.weights) != cell.record.weights_sha256:
            yield Finding(rule=5, where=cell.name, text=f"{cell.weights.name} is not the file that was measured")
        elif (size := cell.weights.stat().st_size) != cell.metrics.file_bytes:
            yield Finding(rule=5, where=cell.name, text=f"file_bytes is {cell.metrics.file_bytes:,}, and {cell.weights.name} has {size:,}")
        yield from (Finding(rule=5, where=cell.name, text=text) for text in against_config(cell))


def against_config(cell: Measured) -> Iterator[str]:
    """How a cell's files differ from those that its config.json names. Cells of versions before have none."""
    folder = cell.path.parent
    try:
        config = read_config(folder)
    except FileNotFoundError:
        return
    except ConfigError as error:
        yield str(error)
        return
    if (config.cell, config.seed, config.pruning) != (cell.record.id, cell.record.seed, cell.record.pruning):
        yield f"{CONFIG} is of another cell: {config.cell}, {config.pruning}, seed {config.seed}"
    if config.files.get(WEIGHTS) != cell.record.weights_sha256:
        yield f"{CONFIG} and the record have different digests of {WEIGHTS}"
    for name in (MASKS, STRUCTURE):
        there, named = (folder / name).exists(), config.files.get(name)
        if there != (named is not None) or (there and sha256_of(folder / name) != named):
            yield f"{name} is not the file that {CONFIG} names" if there else f"{name} is missing, and {CONFIG} names it"


def masks_and_counts(evidence: Evidence) -> Iterator[Finding]:
    """Rules 6 and 7."""
    for measured in evidence.measured:
        cell = measured.cell()
        if cell is None or not measured.weights.exists():
            why = measured.why_unknown if cell is None else f"{measured.weights.name} is missing"
            for rule in (6, 7):
                yield Finding(rule=rule, where=measured.name, text=f"not counted: {why}", weight="unchecked")
        else:
            yield from counted_again(measured, cell)


def counted_again(measured: Measured, cell: Cell) -> Iterator[Finding]:
    """What differs of a cell whose saved network is loaded and counted again."""
    from safetensors import SafetensorError

    from jobs.measure.multiply_adds import CONVENTION, count_multiply_adds
    from jobs.measure.profiling import check_zeros, parameter_counts, runs_alike
    from jobs.train.evaluation import WeightsError, classes_of, load_masks, load_model
    from models.registry import create_model

    size, numbers = image_size(cell.data), measured.metrics
    try:
        classes = classes_of(cell.model, size, measured.weights)
        network = load_model(cell.model, classes=classes, img_size=size, scan="reference", weights=measured.weights)
        masks = load_masks(measured.weights.parent)
        whole = create_model(cell.model.name, classes, size, scan_backend="reference", **cell.model.architecture)
        counts = parameter_counts(network, whole, masks)
    except (WeightsError, SafetensorError, ValueError, RuntimeError) as error:
        yield Finding(rule=7, where=measured.name, text=f"the saved network cannot be loaded: {str(error).splitlines()[0]}")
        return
    try:
        check_zeros(network, masks)
    except ValueError as error:
        yield Finding(rule=6, where=measured.name, text=str(error))
        return
    for name, value in counts.items():
        recorded = getattr(numbers, name)
        if recorded is not None and not same(recorded, value):
            rule = 6 if name in ("sparsity_prunable", "layers", "collapsed") else 7
            yield Finding(rule=rule, where=measured.name, text=f"{name} is {shown(recorded)} in the record, and {shown(value)} in the saved file")
    if numbers.flops_convention != CONVENTION:
        yield Finding(rule=7, where=measured.name, text="multiply-adds were counted by another convention than this version's", weight="unchecked")
        return
    costs = count_multiply_adds(network, img_size=size, masks=masks)
    dense = costs.macs if runs_alike(network, whole) else count_multiply_adds(whole, img_size=size, masks={}).macs
    for name, count in (("macs", dense), ("macs_structural", costs.macs), ("macs_nonzero", costs.macs_nonzero)):
        if getattr(numbers, name) not in (None, count):
            text = f"{name} is {getattr(numbers, name):,} in the record, and {count:,} in the saved file"
            yield Finding(rule=7, where=measured.name, text=text)


def same(recorded: object, counted: object) -> bool:
    """True for equal numbers, names, or mappings of such."""
    if isinstance(recorded, dict) and isinstance(counted, dict):
        return recorded.keys() == counted.keys() and all(same(recorded[name], counted[name]) for name in recorded)
    if isinstance(recorded, float) or isinstance(counted, float):
        return abs(float(recorded) - float(counted)) < CLOSE  # type: ignore[arg-type]
    return recorded == counted


def shown(value: object) -> str:
    """A value in a few characters."""
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if len(text) < 60 else text[:57] + "..."
