"""A few fields of a large JSON file, read in microseconds: status reads one file for each of 10,000 stages."""

from pathlib import Path
from typing import TypeVar

import msgspec

from jobs.experiment.files import parsed

Fields = TypeVar("Fields")


def read_fields(path: Path | str, decoder: msgspec.json.Decoder[Fields]) -> Fields:
    """The fields that `decoder` names, from a JSON file. Raises OSError, and ValueError where the file is torn or has other fields."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        return decoder.decode(content)
    except msgspec.DecodeError:
        pass
    try:  # msgspec refuses NaN and text that is no UTF-8; Python writes and reads them
        return msgspec.convert(parsed(content), decoder.type)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error}") from error
