"""A structure as JSON, in files and checkpoints.

{"kept": {group: [units that stay]}, "counts": {group: units before}, "notes": [...]}
and, if blocks or state spaces are gone:  "blocks": [name, ...], "scans": [mixer, ...]
and, if tokens merge:  "merging": {"tokens": {block: [tokens after, before]}, "score": ..., "mode": ...}
"""

from typing import Any, NotRequired, TypedDict

from models.pruning.structure import Structure
from models.token_merging import Merging, Mode, Score


class MergingJson(TypedDict):
    """A merging of tokens as files and checkpoints hold it."""

    tokens: dict[str, list[int]]
    score: Score
    mode: Mode


class StructureJson(TypedDict):
    """A structure as files and checkpoints hold it."""

    kept: dict[str, list[int]]
    counts: dict[str, int]
    notes: list[str]
    merging: NotRequired[MergingJson]
    blocks: NotRequired[list[str]]
    scans: NotRequired[list[str]]


def structure_to_json(structure: Structure | None) -> StructureJson | None:
    """A structure as JSON values; None for None."""
    if structure is None:
        return None
    kept = {name: list(units) for name, units in structure.kept.items()}
    value: StructureJson = {"kept": kept, "counts": dict(structure.counts), "notes": list(structure.notes)}
    if (merging := structure.merging) is not None:
        tokens = {str(block): list(numbers) for block, numbers in merging.tokens.items()}
        value["merging"] = {"tokens": tokens, "score": merging.score, "mode": merging.mode}
    if structure.blocks:
        value["blocks"] = list(structure.blocks)
    if structure.scans:
        value["scans"] = list(structure.scans)
    return value


def structure_from_json(value: StructureJson | None) -> Structure | None:
    """A structure from its JSON values; None from None."""
    return None if value is None else structure_of(value)


def structure_of(value: Any) -> Structure:
    """A structure from a StructureJson. KeyError, TypeError: it is none."""
    merging = merging_from_json(value["merging"]) if "merging" in value else None
    gone = {"blocks": tuple(value.get("blocks", ())), "scans": tuple(value.get("scans", ()))}
    return Structure(kept=value["kept"], counts=value["counts"], notes=tuple(value["notes"]), merging=merging, **gone)


def merging_from_json(value: MergingJson) -> Merging:
    """A merging from its JSON values."""
    tokens = {int(block): (after, before) for block, (after, before) in value["tokens"].items()}
    return Merging(tokens=tokens, score=value["score"], mode=value["mode"])
