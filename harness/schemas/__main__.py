"""python -m harness.schemas [--write]: says where the JSON Schemas are and how an editor uses them; --write makes them anew from types and pages.

Exit codes: 0: done; 2: usage, or no pages to read the descriptions from.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.schemas.cluster import cluster_schema
from harness.schemas.grid import DRAFT, grid_schema
from harness.schemas.record import record_schema, verification_schema
from harness.schemas.status import status_schema
from harness.schemas.values import Schema
from jobs.experiment.output import replace_unencodable
from models.closed_pipe import ends_with_its_reader

DONE, USAGE = 0, 2
FOLDER: Final = Path(__file__).resolve().parent


def profile() -> Schema:
    """The schema of a profile's file."""
    return {"$schema": DRAFT, "title": "cluster profile of vssm-bench", **cluster_schema()}


SCHEMAS: Final[Mapping[str, Callable[[], Schema]]] = {
    "grid.schema.json": grid_schema,
    "cluster.schema.json": profile,
    "record.schema.json": record_schema,
    "verification.schema.json": verification_schema,
    "status.schema.json": status_schema,
}
PURPOSES: Final = (
    "a grid",
    "a cluster profile",
    "the record.json of a cell",
    "the file that a verification of a cell leaves",
    "the output of status --json",
)


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    usage, _, purpose = (__doc__ or "").partition("\n")[0].partition(": ")
    parser = argparse.ArgumentParser(prog="python -m harness.schemas", description=purpose)
    parser.add_argument("--write", action="store_true", help="write the files anew; for those who changed a type or a page")
    if parser.parse_args(arguments).write:
        return write(FOLDER)
    print("JSON Schemas:")
    for name, purpose in zip(SCHEMAS, PURPOSES, strict=True):
        print(f"  {FOLDER / name}  of {purpose}")
    print("\nAs the first line of a grid, for editors with the YAML language server:")
    print(f"  # yaml-language-server: $schema={FOLDER / 'grid.schema.json'}")
    return DONE


def write(folder: Path) -> int:
    """Writes every schema into a folder."""
    try:
        texts = {name: text(name) for name in SCHEMAS}
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: the descriptions come from the pages, so use --write in a checkout of the repository", file=sys.stderr)
        return USAGE
    for name, content in texts.items():
        (folder / name).write_text(content, encoding="utf-8")
        print(folder / name)
    return DONE


def text(name: str) -> str:
    """The content of a schema's file."""
    return json.dumps(SCHEMAS[name](), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
