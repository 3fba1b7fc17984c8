"""What is not the same in a record and in the record of another run of the same cell: settings, code, versions, hardware, data."""

from collections.abc import Iterator, Mapping
from typing import Any

from jobs.experiment.identity import result_settings
from jobs.experiment.records import Environment, Record
from jobs.experiment.verification import Difference

HARDWARE: Mapping[str, str] = {  # fields of an environment, by what they are called here
    "CPU and its widest instructions": "cpu",
    "GPU": "gpu",
    "ranks": "ranks",
    "threads": "threads",
    "TF32": "tf32",
}
SOFTWARE: Mapping[str, str] = {"Python": "python", "data loader": "loader", "scan": "scan", "container": "container"}
DIGITS = 12  # of a hash
ABSENT = "none"


def differences(recorded: Record, here: Record) -> list[Difference]:
    """Everything that differs and may change a result, the seed aside."""
    then, now = recorded.environment, here.environment
    parts = {
        "config": config(recorded, here),
        "code": code(then, now),
        "versions": versions(then, now),
        "hardware": fields(HARDWARE, then, now),
        "data": data(then, now),
    }
    return [
        Difference.model_validate({"part": part, "name": name, "recorded": a, "here": b}) for part, pairs in parts.items() for name, a, b in pairs
    ]


def config(recorded: Record, here: Record) -> Iterator[tuple[str, str, str]]:
    """The settings that decide a result and differ, such as a default that another version has."""
    then, now = (dict(flat(result_settings(record.spec))) for record in (recorded, here))
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name) and name != "seed":
            yield name, shown(then.get(name)), shown(now.get(name))


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, by dotted names."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def code(then: Environment, now: Environment) -> Iterator[tuple[str, str, str]]:
    """The content of the code and its commit. Code of equal content is equal, whatever its commit."""
    if then.code is not None and then.code == now.code:
        return
    if then.code != now.code:
        yield "content of the code", then.code or "not recorded", now.code or "not known"
    if (then.commit, then.dirty) != (now.commit, now.dirty):
        yield "commit", commit(then), commit(now)


def commit(environment: Environment) -> str:
    """A commit in a few characters, and whether files differ from it."""
    return f"{environment.commit[:DIGITS]}{', changed' if environment.dirty else ''}" if environment.commit else "unknown"


def versions(then: Environment, now: Environment) -> Iterator[tuple[str, str, str]]:
    """The packages whose versions differ; then Python, the data loader and the scan."""
    for name in sorted(then.versions.keys() | now.versions.keys()):
        pair = then.versions.get(name, ABSENT), now.versions.get(name, ABSENT)
        if pair[0] != pair[1]:
            yield name, *pair
    yield from fields(SOFTWARE, then, now)


def fields(names: Mapping[str, str], then: Environment, now: Environment) -> Iterator[tuple[str, str, str]]:
    """The fields of two environments that differ."""
    for title, name in names.items():
        first, second = getattr(then, name), getattr(now, name)
        if first != second:
            yield title, shown(first), shown(second)


def data(then: Environment, now: Environment) -> Iterator[tuple[str, str, str]]:
    """The images, by the hash of their content."""
    if then.data_sha256 != now.data_sha256:
        yield "images", then.data_sha256[:DIGITS] or ABSENT, now.data_sha256[:DIGITS] or ABSENT


def shown(value: object) -> str:
    """A value in a few words."""
    return ABSENT if value is None else str(value)
