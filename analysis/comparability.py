"""What two rows must share to be ranked together: data, recipe, batch, dtype, epochs, device, loader, measuring protocol."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from harness.records import Record

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str)
PLACES = ("path", "test_path")  # where the data lie says nothing about what they are: data_sha256 does


@dataclass(frozen=True, kw_only=True)
class Key:
    """Two rows are ranked together when all of these are equal. None: a cell that failed did not come that far."""

    data: str  # source, image size and a hash of every setting of the data
    data_sha256: str
    recipe: str  # hash of every setting of the recipe
    batch_size: int  # global
    dtype: str
    epochs: str  # of the dense network + of fine-tuning, as every cell is granted; what a row took is its column `epochs`
    device: str  # GPU, or CPU
    ranks: int
    threads: int
    loader: str
    scan: str
    infer_batch_size: int | None
    flops_convention: str | None

    @property
    def short(self) -> str:
        """A name of 6 characters."""
        return digest_of_key(self)[:6]


def key_of(record: Record) -> Key:
    """The comparability key of a record."""
    data, recipe, machine = record.spec.get("data", {}), record.spec.get("recipe", {}), record.environment
    what = {name: value for name, value in data.items() if name not in PLACES}
    return Key(
        data=f"{what.get('name') or what.get('source')} {digest(what)[:6]}",
        data_sha256=machine.data_sha256,
        recipe=digest(recipe)[:6],
        batch_size=recipe.get("batch_size", 0),
        dtype=recipe.get("dtype", "unknown"),
        epochs=f"{recipe.get('epochs')}+{recipe.get('finetune_epochs')}",
        device=machine.gpu or machine.cpu,
        ranks=machine.ranks,
        threads=machine.threads,
        loader=machine.loader,
        scan=machine.scan,
        infer_batch_size=record.metrics.throughput_batch if record.metrics else None,
        flops_convention=record.metrics.flops_convention if record.metrics else None,
    )


@cache
def digest_of_key(key: Key) -> str:
    """The hash by which keys are told apart."""
    return digest(asdict(key))


def same_but_seed(spec: Mapping[str, Any]) -> str:
    """The hash that cells share when their specs differ in seed alone. Labels and places are names, not settings."""
    shared = {name: value for name, value in spec.items() if name != "seed"}
    shared["data"] = {name: value for name, value in spec.get("data", {}).items() if name not in PLACES}
    return digest(shared | {part: unlabelled(spec.get(part)) for part in ("model", "pruning")})


def unlabelled(part: Any) -> Any:
    """A part of a spec without its label."""
    return {name: value for name, value in part.items() if name != "label"} if isinstance(part, dict) else part


def differing(keys: Iterable[Key]) -> tuple[str, ...]:
    """The names of the fields in which the keys are not all equal."""
    fields = [asdict(key) for key in keys]
    return tuple(name for name in Key.__dataclass_fields__ if len({one[name] for one in fields}) > 1)


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(CANONICAL.encode(value).encode()).hexdigest()
