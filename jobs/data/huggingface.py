"""Data sets as Hugging Face keeps them: parquet shards of the hub, and folders that `datasets` has saved (`save_to_disk`: arrow files).

An image is a struct {bytes, path}, a label an integer; the schema's metadata has the features, so the classes have their names and their order.
Source: the documentation of `datasets` ("Image", "ClassLabel", "save_to_disk") and of Arrow's IPC streams, in which it writes arrow files.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.data.beton import DataError
from jobs.data.content import Content, Look, Part
from jobs.data.faults import UnusableImage
from jobs.data.file_sets import FileSets, LastOpened, file_sets, files_identity
from jobs.data.folders import split_problems
from jobs.data.images import decoded_bytes
from jobs.experiment.specs import DataSpec

if TYPE_CHECKING:
    import pyarrow as pa

READING: Final = 1  # to be raised when the same files would give other images
PARQUET, ARROW = ".parquet", ".arrow"
LABELS: Final = ("label", "labels")  # columns that are taken where several could be


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What the schema of a file says."""

    image: str
    label: str
    names: tuple[str, ...] | None  # of the classes; None: the schema has none


# the files


def hugging_files(data: DataSpec) -> FileSets:
    """The files of `data`. Raises DataError."""
    files = file_sets(data, (PARQUET, ARROW))
    return FileSets(train=tuple(saved(files.train)), test=tuple(saved(files.test)), splits=files.splits)


def saved(files: Sequence[Path]) -> Iterator[Path]:
    """Those files that hold the data set. `datasets` keeps the results of its transformations beside them, as cache-*.arrow."""
    for file in files:
        state = file.parent / "state.json"
        if file.suffix == ARROW and state.exists():
            content = json.loads(state.read_bytes())
            if content.get("_indices_data_files"):
                raise DataError(f"{file.parent}: saved with a selection of its rows: call flatten_indices() and save it again")
            if file.name not in {entry["filename"] for entry in content["_data_files"]}:
                continue
        elif file.name.startswith("cache-"):
            continue
        yield file


def schema_of(file: Path) -> "pa.Schema":
    """The schema of a file. DataError where it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(file) if file.suffix == PARQUET else pa.ipc.open_stream(pa.memory_map(str(file))).schema
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> DataError:
    """The error for a file that Arrow cannot read."""
    return DataError(f"{file}: not a whole {file.suffix} file ({' '.join(str(error).split())[:200]}): copy or download it again")


def columns_of(file: Path) -> Columns:
    """The columns of images and labels. DataError where none or several could be meant."""
    import pyarrow as pa

    schema = schema_of(file)
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})

    def named(kind: str, plain: Any) -> list[str]:
        """Columns of a feature; where no features are written, those whose type could be it."""
        if features:
            return [name for name, feature in features.items() if name in schema.names and isinstance(feature, dict) and feature.get("_type") == kind]
        return [field.name for field in schema if plain(field.type)]

    images = named("Image", lambda kind: pa.types.is_binary(kind) or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0))
    labels = named("ClassLabel", pa.types.is_integer) or [field.name for field in schema if pa.types.is_integer(field.type)]
    label = next((name for name in LABELS if name in labels), labels[0] if len(labels) == 1 else None)
    if len(images) != 1 or label is None:
        there = f"images: {', '.join(images) or 'none'}; labels: {', '.join(labels) or 'none'}"
        raise DataError(f"{file}: one column of images and one of labels are needed; {there}: keep one, or rename the column of labels to label")
    names = features.get(label, {}).get("names")
    return Columns(image=images[0], label=label, names=tuple(names) if names else None)


# checking


def huggingface_problems(data: DataSpec) -> list[str]:
    """The errors in the names of the files and in the schemas of the first ones."""
    try:
        files = hugging_files(data)
        train, test = columns_of(files.train[0]), columns_of(files.test[0])
    except DataError as error:
        return [str(error)]
    if train.names != test.names:
        both = f"{said(test.names)} and {said(train.names)}"
        return [f"{files.test[0]}: its classes are not those of {files.train[0]}: {both}: give splits of one data set"]
    return []


def said(names: tuple[str, ...] | None) -> str:
    """Names of classes for people."""
    return "none named" if names is None else f"{len(names)}, {', '.join(names[:4])} ..."


def look_at_huggingface(data: DataSpec) -> Look:
    """The errors of the files and of all labels. No image is read."""
    if problems := huggingface_problems(data):
        return Look(problems=problems)
    try:
        content = read_huggingface(data, 0)
    except DataError as error:
        return Look(problems=[str(error)])
    labels, notes = content.train.labels, []
    if data.test_path is None and {"validation", "test"} <= set(hugging_files(data).splits):
        notes.append(f"{data.path}: its validation split is what cells are tested on; set data.test_path for another")
    return Look(problems=split_problems(data, labels), notes=notes, labels=labels)


def huggingface_identity(data: DataSpec, by_content: bool) -> list[Any]:
    """A digest of each split's files."""
    files = hugging_files(data)
    return ["reading", READING, files_identity(files.train, by_content), files_identity(files.test, by_content)]


# reading


def read_huggingface(data: DataSpec, img_size: int) -> Content:
    """The images, which are read when they are asked for."""
    files = hugging_files(data)
    train, test = (table_part(paths) for paths in (files.train, files.test))
    names = columns_of(files.train[0]).names
    classes = len(names) if names else int(train.labels.max()) + 1
    for part, paths in ((train, files.train), (test, files.test)):
        if part.labels.min() < 0:
            raise DataError(f"{paths[0].parent}: labels of {part.labels.min()}: this split has no labels; give data.test_path a split that has")
        if part.labels.max() >= classes:
            raise DataError(f"{paths[0].parent}: label {part.labels.max()}, but there are {classes} classes: give splits of one data set")
    return Content(classes=classes, names=names or tuple(map(str, range(classes))), train=train, test=test)


def table_part(files: Sequence[Path]) -> Part:
    """The rows of files one after the other."""
    columns = columns_of(files[0])
    groups = [group for file in files for group in row_groups(file)]
    labels = np.concatenate([labels_of(file, columns.label) for file in files])
    firsts = np.array([0, *accumulate(rows for _, _, rows in groups)])
    opened = LastOpened(read_images)

    def row_of(sample: int) -> tuple[Path, int, int]:
        """File, row group and row in it."""
        group = int(np.searchsorted(firsts, sample, side="right")) - 1
        return groups[group][0], groups[group][1], sample - int(firsts[group])

    def name(sample: int) -> str:
        file, group, _ = row_of(sample)
        first = next(position for position, (other, _, _) in enumerate(groups) if other == file)
        return f"{file} row {sample - int(firsts[first])}"

    def content(sample: int) -> bytes:
        file, group, row = row_of(sample)
        value = opened(file, group, columns.image)[row].as_py()
        stored: bytes | None = value["bytes"] if isinstance(value, dict) else value
        if stored is None:
            remedy = "save the data set with its images in it: cast_column to Image(), then save again where the files are"
            raise UnusableImage(name(sample), fault="has no bytes in the table", detail=str(value), remedy=remedy)
        return stored

    def image(sample: int) -> NDArray[np.uint8]:
        return decoded_bytes(content(sample), name(sample))

    return Part(labels=labels, image=image, name=name, content=content)


def row_groups(file: Path) -> Iterator[tuple[Path, int, int]]:
    """Path, number and rows of each group of rows that is read at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ARROW:
        yield file, 0, len(arrow_table(file))
        return
    try:
        metadata = pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error
    for group in range(metadata.num_row_groups):
        yield file, group, metadata.row_group(group).num_rows


def arrow_table(file: Path) -> "pa.Table":
    """An arrow file, mapped into memory."""
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error


def read_images(file: Path, group: int, column: str) -> "pa.ChunkedArray":
    """The column of images of a group of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file.suffix == ARROW:
            return arrow_table(file)[column]
        return pq.ParquetFile(file).read_row_group(group, columns=[column], use_threads=False)[column]
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error


def labels_of(file: Path, column: str) -> NDArray[np.int64]:
    """The labels of a file, (n,). A label that is not given is -1."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = arrow_table(file) if file.suffix == ARROW else pq.read_table(file, columns=[column], use_threads=False)
        return np.asarray(pc.fill_null(table[column], -1).to_numpy(), np.int64)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise unreadable(file, error) from error
