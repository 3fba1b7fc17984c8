"""Files that are written whole or not at all, whoever reads or kills meanwhile. Standard library only."""

import hashlib
import json
import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
LONE = re.compile("[\ud800-\udfff]")  # half a character: Python's stand-in for a byte that is no UTF-8, which strict readers of JSON refuse


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A new file beside `path` to write to. When the block ends, it is synced and renamed to `path`; when the block fails, it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # mode by the umask, so that a group that shares the folder can read it
    mode = aside.stat().st_mode
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.chmod(mode)  # safetensors replaces it by a file that only its owner can read
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, whole or not at all. OSError names the path."""
    with written_aside(path) as aside:
        aside.write_text(json_text(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def json_text(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """`value` as JSON that every reader accepts, whatever text it has in it: see `recognizable`."""
    text = json.dumps(value, indent=indent, sort_keys=sort_keys)
    if "\\ud" not in text:  # no half characters, and no characters that JSON writes as two halves
        return text
    return json.dumps(recognizable(value), indent=indent, sort_keys=sort_keys)


def recognizable(value: Any) -> Any:
    """`value` with all its texts in Unicode: a byte of a file name that is no UTF-8 becomes \\xe9, as the shell would show it."""
    if isinstance(value, str):
        return LONE.sub(lambda half: _escaped(ord(half[0])), value)
    if isinstance(value, dict):
        return {recognizable(key): recognizable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [recognizable(item) for item in value]
    return value


def well_formed(content: bytes) -> bytes:
    """The content of a JSON file with all its texts in Unicode; unchanged if they are, or if it is no JSON at all."""
    try:
        value = parsed(content)
        mended = recognizable(value)
    except (ValueError, RecursionError):
        return content
    return content if mended == value else json.dumps(mended).encode()


def parsed(content: bytes) -> Any:
    """The value in a JSON file, also where some of its bytes are no UTF-8. Raises ValueError if it is no JSON."""
    return json.loads(content.decode("utf-8-sig", "surrogateescape"))


def this_host() -> str:
    """This machine's name, as files can hold it."""
    return str(recognizable(socket.gethostname()))


def _escaped(code: int) -> str:
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def with_variables(path: str) -> str:
    """`path` with $NAME and ${NAME} replaced. Raises LookupError, which names those that are not set, or empty."""
    names = [name or bare for name, bare in VARIABLE.findall(path)]
    if unset := [f"${name}" for name in names if not os.environ.get(name)]:
        raise LookupError(f"{', '.join(unset)} {'is' if len(unset) == 1 else 'are'} not set")
    return VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], path)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> Path:
    """`path`, to which `text` is written unchanged in UTF-8, whole or not at all. OSError names the path."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")
    return path
