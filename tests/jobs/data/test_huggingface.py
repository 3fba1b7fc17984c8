"""Parquet shards and saved folders as Hugging Face's `datasets` writes them (version 4: schema, metadata, state.json), in small."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.data.beton import DataError
from jobs.data.huggingface import huggingface_identity, huggingface_problems, look_at_huggingface, read_huggingface
from jobs.data.prepare import check_data, prepare
from jobs.experiment.specs import DataSpec

NAMES = ["tench", "goldfish", "ant"]  # an order of their own, which is kept


def pixels(seed: int) -> np.ndarray:
    """A random image, (40 + seed, 50, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (40 + seed, 50, 3), dtype=np.uint8)


def image_bytes(array: np.ndarray, kind: str = "PNG") -> bytes:
    """An image file."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def table(seeds: range, names: list[str] | None = NAMES, image: str = "image", **labels: list[int]) -> pa.Table:
    """Rows of images with the metadata that `datasets` gives them; labels go round the classes unless they are given by column."""
    labels = labels or {"label": [seed % 3 for seed in seeds]}
    rows = [{"bytes": image_bytes(pixels(seed)), "path": f"{seed}.png"} for seed in seeds]
    arrays: dict[str, Any] = {image: pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}
    features: dict[str, Any] = {image: {"_type": "Image"}}
    for name, values in labels.items():
        arrays[name] = pa.array(values, pa.int64())
        features[name] = {"names": names, "_type": "ClassLabel"}
    made = pa.table(arrays)
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}) if names else made


def write_parquet(folder: Path, train: pa.Table, validation: pa.Table, group: int = 4) -> DataSpec:
    """data/train-0000n-of-00002.parquet and data/validation-00000-of-00001.parquet, as the hub has them."""
    (folder / "data").mkdir(parents=True)
    half = len(train) // 2
    for number, part in enumerate((train[:half], train[half:])):
        pq.write_table(part, folder / "data" / f"train-0000{number}-of-00002.parquet", row_group_size=group)
    pq.write_table(validation, folder / "data" / "validation-00000-of-00001.parquet", row_group_size=group)
    return DataSpec(source="huggingface", path=str(folder), img_size=32, loader="torch")


def write_saved(folder: Path, **splits: pa.Table) -> DataSpec:
    """What DatasetDict.save_to_disk writes: for each split arrow files of Arrow's stream format, and state.json; a cache lies beside them."""
    for split, rows in splits.items():
        (folder / split).mkdir(parents=True)
        halves = (rows[: len(rows) // 2], rows[len(rows) // 2 :])
        names = [f"data-{number:05}-of-00002.arrow" for number in range(2)]
        for name, part in zip((*names, "cache-1b2c.arrow"), (*halves, rows), strict=True):
            with pa.OSFile(str(folder / split / name), "wb") as file, pa.ipc.new_stream(file, part.schema) as stream:
                stream.write_table(part, max_chunksize=2)
        (folder / split / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], "_split": split}))
        (folder / split / "dataset_info.json").write_text("{}")
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return DataSpec(source="huggingface", path=str(folder), img_size=32, loader="torch")


@pytest.fixture(params=["parquet", "saved"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> DataSpec:
    """Ten rows for training, 5 for validation, in either form."""
    tables = table(range(10)), table(range(10, 15))
    return (
        write_parquet(tmp_path / "d", *tables) if request.param == "parquet" else write_saved(tmp_path / "d", train=tables[0], validation=tables[1])
    )


def test_images_labels_and_classes_are_those_that_were_saved_in_their_order(data: DataSpec) -> None:
    assert check_data(data) == []
    content = read_huggingface(data, 32)
    assert content.classes == 3 and content.names == tuple(NAMES)
    assert content.train.labels.tolist() == [seed % 3 for seed in range(10)] and content.test.labels.tolist() == [1, 2, 0, 1, 2]
    for sample in (9, 0, 4, 5, 3, 8):
        assert (content.train.image(sample) == pixels(sample)).all()
    assert (content.test.image(4) == pixels(14)).all()
    assert look_at_huggingface(data).labels is not None and look_at_huggingface(data).problems == []


@pytest.mark.slow
def test_any_number_of_processes_writes_them(data: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.data.shards.SAMPLES", 3)
    digests = {prepare(data, tmp_path / f"cache{workers}", workers=workers).sha256 for workers in (0, 2)}
    assert len(digests) == 1
    source = next((tmp_path / "cache0").glob("huggingface-*/source.json"))
    assert json.loads(source.read_text())["names"] == NAMES


def test_the_identity_follows_the_files_that_are_used(data: DataSpec) -> None:
    first = huggingface_identity(data, False), huggingface_identity(data, True)
    assert first == (huggingface_identity(data, False), huggingface_identity(data, True)) and first[0] != first[1]
    file = next(path for path in Path(data.path or "").rglob("*") if path.suffix in (".parquet", ".arrow") and "train" in str(path))
    file.write_bytes(file.read_bytes() + b"more")
    assert huggingface_identity(data, False) != first[0]


def test_an_image_that_cannot_be_used_is_named_by_its_row(tmp_path: Path) -> None:
    rows = table(range(10))
    broken = rows["image"].to_pylist()
    broken[7] = {"bytes": b"no image", "path": "7.png"}
    broken[8] = {"bytes": None, "path": "/elsewhere/8.png"}
    rows = rows.set_column(0, "image", pa.array(broken, rows.schema.field("image").type))
    data = write_parquet(tmp_path / "d", rows, table(range(10, 15)))
    with pytest.raises(DataError) as caught:
        prepare(data, tmp_path / "cache")
    assert "train-00001-of-00002.parquet row 2: cannot be decoded" in str(caught.value) or "row 2 (its content is no image" in str(caught.value)
    assert "train-00001-of-00002.parquet row 3 " in str(caught.value) and "has no bytes in the table" in str(caught.value)


def test_columns_are_found_without_features_and_classes_are_then_numbers(tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "d", table(range(10), None), table(range(10, 15), None))
    content = read_huggingface(data, 32)
    assert content.classes == 3 and content.names == ("0", "1", "2") and (content.train.image(3) == pixels(3)).all()


def test_other_names_of_columns_are_found_by_their_features(tmp_path: Path) -> None:
    made = [table(seeds, image="img", fine=[seed % 3 for seed in seeds]) for seeds in (range(10), range(10, 15))]
    content = read_huggingface(write_parquet(tmp_path / "d", *made), 32)
    assert content.train.labels.tolist() == [seed % 3 for seed in range(10)]


@pytest.mark.parametrize(
    ("train", "validation", "said"),
    [
        (
            table(range(10), fine=[0] * 10, coarse=[1] * 10),
            table(range(5)),
            "labels: fine, coarse: keep one, or rename the column of labels",
        ),
        (table(range(10)), table(range(5), ["a", "b", "c"]), "its classes are not those of .*train-00000.*: 3, a, b, c ... and 3, tench"),
        (table(range(10)).drop_columns("image"), table(range(5)), "images: none; labels: label: keep one"),
    ],
)
def test_what_the_schema_tells_is_told_before_a_launch(tmp_path: Path, train: pa.Table, validation: pa.Table, said: str) -> None:
    with pytest.raises(DataError, match=said):
        data = write_parquet(tmp_path / "d", train, validation)
        raise DataError("\n".join(huggingface_problems(data)))


@pytest.mark.parametrize(("label", "said"), [(-1, "labels of -1: this split has no labels"), (7, "label 7, but there are 3 classes")])
def test_labels_that_mean_nothing_are_told_before_a_launch(tmp_path: Path, label: int, said: str) -> None:
    data = write_parquet(tmp_path / "d", table(range(10)), table(range(10, 15), label=[0, 1, label, 0, 1]))
    (problem,) = look_at_huggingface(data).problems
    assert said in problem


@pytest.mark.parametrize("kept", [0, 100, -10])
def test_a_file_that_was_cut_is_named(data: DataSpec, kept: int) -> None:
    file = sorted(path for path in Path(data.path or "").rglob("*") if path.suffix in (".parquet", ".arrow") and "train" in str(path))[-1]
    file.write_bytes(file.read_bytes()[:kept])
    problems = look_at_huggingface(data).problems
    if not (file.suffix == ".arrow" and kept == -10):  # an Arrow stream may end without its last bytes
        assert len(problems) == 1 and f"{file.name}: not a whole {file.suffix} file" in problems[0]


def test_a_saved_selection_of_rows_is_refused_with_the_remedy(tmp_path: Path) -> None:
    data = write_saved(tmp_path / "d", train=table(range(10)), validation=table(range(10, 15)))
    state = tmp_path / "d" / "train" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_indices_data_files": [{"filename": "indices.arrow"}]}))
    (problem,) = huggingface_problems(data)
    assert "saved with a selection of its rows: call flatten_indices() and save it again" in problem


def test_another_split_is_named_by_test_path_and_a_note_says_which_is_used(tmp_path: Path) -> None:
    write_saved(tmp_path / "d", train=table(range(10)), validation=table(range(10, 15)), test=table(range(15, 18)))
    data = DataSpec(source="huggingface", path=str(tmp_path / "d"), img_size=32)
    assert "its validation split is what cells are tested on; set data.test_path for another" in look_at_huggingface(data).notes[0]
    named = DataSpec(source="huggingface", path=str(tmp_path / "d"), test_path=str(tmp_path / "d" / "test"), img_size=32)
    assert len(read_huggingface(named, 32).test.labels) == 3 and look_at_huggingface(named).notes == []
