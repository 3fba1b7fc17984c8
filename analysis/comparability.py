"""The comparability key: the data, recipe, batch, dtype, epochs, device, loader and measuring protocol that rows must share to be ranked together."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from typing import Any

from analysis.decoding import decoded, parts_of
from jobs.experiment.identity import PATHS, result_settings, without_newer_defaults
from jobs.experiment.plugins import NAME as PLUGIN
from jobs.experiment.published import EVALUATION, follows_published
from jobs.experiment.records import Record

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str)


@dataclass(frozen=True, kw_only=True)
class Key:
    """Two rows are ranked together if all of these are equal. None: a cell failed before the value was known."""

    data: str  # source, image size and a hash of every setting of the data
    data_sha256: str
    recipe: str  # hash of every setting of the recipe; of tuned cells with the space and the budget
    batch_size: int  # global
    dtype: str
    epochs: str  # of the dense network + of fine-tuning, as every cell gets them; the column `epochs` has those that a row took
    device: str  # GPU, or CPU
    ranks: int
    threads: int
    loader: str
    scan: str
    infer_batch_size: int | None
    flops_convention: str | None
    speed_protocol: str | None  # None in records without the field

    @property
    def short(self) -> str:
        """A name of 6 characters."""
        return digest_of_key(self)[:6]


def row_and_key(record: Record) -> tuple[str, Key]:
    """(the hash that all records of a row share, the comparability key)."""
    machine, measured, parts = record.environment, record.metrics, parts_of(record)
    around = (machine.data_sha256, machine.gpu or machine.cpu, machine.ranks, machine.threads, machine.loader, machine.scan)
    protocol = (measured.throughput_batch, measured.flops_convention, measured.speed_protocol) if measured else (None, None, None)
    if parts is None:
        spec = record.spec
        data = evaluation_as_one(spec.get("model", {}), spec.get("data", {}))
        return same_but_seed(spec), make_key(data, spec.get("recipe", {}), around, protocol, spec.get("tune"))
    return row_of_texts(*parts), key_of_texts(parts.model, parts.data, parts.recipe, around, protocol, parts.tune)


@lru_cache(maxsize=4096)
def key_of_texts(model: bytes, data: bytes, recipe: bytes, around: tuple[Any, ...], protocol: tuple[Any, ...], tune: bytes = b"") -> Key:
    """`make_key` from texts, cached for all cells with these settings."""
    return make_key(evaluation_as_one(decoded(model), decoded(data)), decoded(recipe), around, protocol, decoded(tune) if tune else None)


def evaluation_as_one(model: Mapping[str, Any], data: Mapping[str, Any]) -> Mapping[str, Any]:
    """`data` with one word for the published evaluation of an official checkpoint: each model has its own, and they are ranked together."""
    if not follows_published(str(model.get("name")), model.get("options") or {}, data):
        return data
    return {name: value for name, value in data.items() if name not in EVALUATION} | {"evaluation": "as published"}


def make_key(
    data: Mapping[str, Any],
    recipe: Mapping[str, Any],
    around: tuple[Any, ...],
    protocol: tuple[Any, ...],
    tune: Mapping[str, Any] | None = None,
) -> Key:
    """The key of data settings, recipe, environment and measuring protocol. Paths and names are not part of it: digests identify the content.

    tune: the space and the budget of tuned cells, which are ranked with cells of the same space and budget alone.
    """
    settings = without_newer_defaults("recipe", recipe)
    content = {name: value for name, value in without_newer_defaults("data", data).items() if name not in (*PATHS, PLUGIN)}
    data_sha256, device, ranks, threads, loader, scan = around
    infer_batch_size, flops_convention, speed_protocol = protocol
    return Key(
        data=f"{content.get('name') or content.get('source')} {digest(content)[:6]}",
        data_sha256=data_sha256,
        recipe=digest({"recipe": settings, "tune": tune} if tune else settings)[:6],
        batch_size=recipe.get("batch_size", 0),
        dtype=recipe.get("dtype", "unknown"),
        epochs=f"{recipe.get('epochs')}+{recipe.get('finetune_epochs')}",
        device=device,
        ranks=ranks,
        threads=threads,
        loader=loader,
        scan=scan,
        infer_batch_size=infer_batch_size,
        flops_convention=flops_convention,
        speed_protocol=speed_protocol,
    )


@lru_cache(maxsize=1 << 16)
def row_of_texts(model: bytes, pruning: bytes, data: bytes, recipe: bytes, tune: bytes = b"") -> str:
    """`same_but_seed` from texts, cached for all seeds of a row."""
    spec = {"model": decoded(model), "pruning": decoded(pruning), "data": decoded(data), "recipe": decoded(recipe)}
    return same_but_seed(spec | ({"tune": decoded(tune)} if tune else {}))


@cache
def digest_of_key(key: Key) -> str:
    """The hash that identifies a key."""
    return digest(asdict(key))


def same_but_seed(spec: Mapping[str, Any]) -> str:
    """The hash that cells share if their specs differ only in the seed. Labels and paths are not settings, so they do not count."""
    return digest({name: value for name, value in result_settings(spec).items() if name != "seed"})


def unlabelled(part: Any) -> Any:
    """A part of a spec without its label."""
    return {name: value for name, value in part.items() if name != "label"} if isinstance(part, dict) else part


def differing(keys: Iterable[Key]) -> tuple[str, ...]:
    """The names of the fields in which the keys differ."""
    fields = [asdict(key) for key in keys]
    return tuple(name for name in Key.__dataclass_fields__ if len({values[name] for values in fields}) > 1)


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(CANONICAL.encode(value).encode()).hexdigest()
