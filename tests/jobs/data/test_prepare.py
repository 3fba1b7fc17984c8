"""A data set on disk: written once, verified on every use, and refused where something is wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jobs.data.beton import encoded, read_index, write_sha256
from jobs.data.prepare import DataError, check_data, images_for_training, look_at_data, prepare, ready
from jobs.data.shards import write_beton
from jobs.experiment.specs import DataSpec
from tests.support.images import SMALL, write_folder
from tests.support.waiting import PATIENCE_S

# preparing


def test_preparing_again_writes_nothing_and_other_settings_of_loading_use_the_same_files(tmp_path):
    dataset = prepare(SMALL, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.beton")}
    assert prepare(SMALL, tmp_path) == dataset
    assert prepare(replace(SMALL, augment="crop", loader="torch"), tmp_path) == dataset
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.beton")} == before


def test_the_same_content_has_the_same_digest_in_another_cache_and_other_content_another(tmp_path):
    digests = [
        prepare(data, tmp_path / name).sha256
        for name, data in (("a", SMALL), ("b", SMALL), ("a", replace(SMALL, samples=97)), ("a", replace(SMALL, img_size=17)))
    ]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_a_job_of_slurm_waits_a_moment_for_files_that_another_node_has_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr("jobs.data.prepare.UNSEEN_S", PATIENCE_S)
    writer = threading.Timer(0.3, prepare, (SMALL, tmp_path))
    writer.start()
    assert ready(SMALL, tmp_path).train_samples > 0
    writer.join()
    monkeypatch.setattr("jobs.data.prepare.UNSEEN_S", 0.1)
    with pytest.raises(DataError, match="the data is not ready"):
        ready(SMALL, tmp_path / "another")


def test_a_job_that_trains_writes_no_data_and_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match=r"the data is not ready: .*/synthetic-.* run python -m harness.prepare with this grid, then launch again"):
        ready(SMALL, tmp_path)
    assert not list(tmp_path.rglob("*.beton"))
    assert prepare(SMALL, tmp_path) == ready(SMALL, tmp_path)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_cache_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=f"{tmp_path}/file.*set cluster.cache to a folder that can be written"):
        prepare(SMALL, tmp_path / name)


def damaged(dataset, how):
    content = dataset.train.read_bytes()
    if how == "missing":
        dataset.train.unlink()
    elif how == "truncated":
        dataset.train.write_bytes(content[: len(content) // 2])
    elif how == "foreign":
        dataset.train.write_bytes(np.random.default_rng(0).bytes(len(content)))
    else:
        place = int(read_index(dataset.train)["ptr"][3])
        dataset.train.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


@pytest.mark.parametrize("how", ["missing", "truncated", "foreign", "one bit"])
@pytest.mark.parametrize("source", ["synthetic", "beton"])
def test_a_damaged_file_is_refused_by_name_and_remedy(tmp_path, how, source):
    dataset = prepare(SMALL, tmp_path)
    damaged(dataset, how)
    data = SMALL if source == "synthetic" else DataSpec(source="beton", path=str(dataset.train), test_path=str(dataset.test), img_size=16)
    with pytest.raises(DataError, match=r"train\.beton: .*(again|path)"):
        prepare(data, tmp_path)


def test_the_digest_of_a_large_file_is_remembered_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.data.prepare.ALWAYS_HASHED_BYTES", 0)
    dataset = prepare(SMALL, tmp_path)
    memories = [json.loads(path.read_text()) for path in (tmp_path / "hashed").glob("*.json")]
    assert {memory["path"] for memory in memories} == {str(dataset.train), str(dataset.test)}
    damaged(dataset, "one bit")
    os.utime(dataset.train, ns=(0, 1))
    with pytest.raises(DataError, match="train.beton: its content is not what was written"):
        prepare(SMALL, tmp_path)
    write_sha256(dataset.train)
    assert prepare(SMALL, tmp_path).sha256 != dataset.sha256


# images that change, and images that cannot be used


def folder_of_images(root):
    for part in ("train", "val"):
        write_folder(root / part, count=6)
    return DataSpec(source="imagefolder", path=str(root), img_size=32, loader="torch")


def test_images_that_changed_are_written_again(tmp_path):
    data = folder_of_images(tmp_path / "data")
    digests = [prepare(data, tmp_path / "cache").sha256]
    cat = tmp_path / "data" / "train" / "cat"
    size = (cat / "0.png").stat().st_size
    (cat / "0.png").write_bytes((cat / "1.png").read_bytes().ljust(size, b"\0"))
    os.utime(cat / "0.png", ns=(0, 7))  # whatever the size, and however coarse the file system's clock
    digests.append(prepare(data, tmp_path / "cache").sha256)
    (cat / "more").mkdir()
    for name in ("0.png", "1.png"):
        shutil.copy2(cat / name, cat / "more" / name)
        dataset = prepare(data, tmp_path / "cache")
        digests.append(dataset.sha256)
    assert len(set(digests)) == 4 and dataset.train_samples + dataset.val_samples == 14


def test_a_change_that_size_and_time_hide_is_noticed_by_content_alone(tmp_path):
    for part in ("train", "val"):
        write_folder(tmp_path / "data" / part, count=6, suffix=".bmp")  # not compressed, so all are of one size
    data = DataSpec(source="imagefolder", path=str(tmp_path / "data"), img_size=32, loader="torch")
    before = [prepare(data, tmp_path / "cache", by_content=by_content).sha256 for by_content in (False, True)]
    image = tmp_path / "data" / "train" / "cat" / "0.bmp"
    status = image.stat()
    image.write_bytes(image.with_name("1.bmp").read_bytes())
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = [prepare(data, tmp_path / "cache", by_content=by_content).sha256 for by_content in (False, True)]
    assert after[0] == before[0] == before[1] != after[1]


def test_all_images_that_cannot_be_used_are_named_at_once_and_nothing_is_left(tmp_path):
    data = folder_of_images(tmp_path / "data")
    for part in ("train", "val"):
        for name in ("0.png", "1.png"):
            (tmp_path / "data" / part / "cat" / name).write_bytes(b"no image")
    Image.fromarray(np.linspace(0, 1, 1600, dtype=np.float32).reshape(40, 40)).save(tmp_path / "data" / "val" / "ant" / "float.tif")
    with pytest.raises(DataError) as caught:
        prepare(data, tmp_path / "cache")
    text = str(caught.value)
    assert text.startswith("5 images cannot be used, so nothing was written:")
    assert all(f"{part}/cat/{name}" in text for part in ("train", "val") for name in ("0.png", "1.png")) and "ant/float.tif (from 0 to 1)" in text
    assert not list((tmp_path / "cache").rglob("*.beton"))
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file() and (path.suffix == ".tif" or path.read_bytes() == b"no image"):
            path.unlink()
    assert prepare(data, tmp_path / "cache").test_samples == 10


@pytest.mark.parametrize(
    ("size", "settings", "advice"),
    [
        ((300, 1), {"img_size": 224}, r"crop or remove it: its longer side can be 55 times the shorter"),
        ((1, 60000), {"img_size": 32}, r"crop or remove it: its longer side can be 2047 times the shorter"),
        ((2000, 1500), {"img_size": 32}, r"set data.max_resolution to at most 1672, or data.write_mode: jpg"),
        ((6000, 100), {"img_size": 224}, r"set data.write_mode: jpg"),
        ((70000, 1500), {"img_size": 32, "write_mode": "jpg"}, r"set data.max_resolution to at most 1672$"),
    ],
)
def test_an_image_too_large_for_the_format_has_advice_that_helps(tmp_path, size, settings, advice):
    data = replace(folder_of_images(tmp_path / "data"), **settings)
    path = tmp_path / "data" / "train" / "ant" / "large.png"
    Image.new("L", size, 128).save(path)
    with pytest.raises(DataError, match=rf"ant/large\.png: too large for a \.beton file at {data.img_size} pixels .*: {advice}"):
        prepare(data, tmp_path / "cache")
    if "max_resolution" in advice:
        assert prepare(replace(data, max_resolution=1672), tmp_path / "cache").classes == 2
    if "jpg" in advice:
        assert prepare(replace(data, write_mode="jpg"), tmp_path / "cache").classes == 2


# what is refused beforehand


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"img_size": 0}, "data.img_size is 0"),
        ({"val_fraction": 1.0}, "data.val_fraction is 1.0"),
        ({"val_fraction": 0.0}, "data.val_fraction is 0.0: it must be above 0 and below 1"),
        ({"shift_px": -1}, "data.shift_px is -1"),
        ({"shift_px": 16}, "data.shift_px is 16: it must be below the image's size, 16 pixels"),
        ({"crop_scale": (0.5, 0.2)}, r"data.crop_scale is \[0.5, 0.2\]"),
        ({"eval_crop": 0.0}, "data.eval_crop is 0.0"),
        ({"max_resolution": 8}, "data.max_resolution is 8: it must be at least img_size, 16"),
        ({"samples": 0}, "data.samples is 0"),
    ],
)
def test_impossible_values_are_told_with_what_is_possible(tmp_path, settings, said):
    with pytest.raises(DataError, match=said):
        prepare(replace(SMALL, **settings), tmp_path)


def test_all_errors_are_told_at_once():
    problems = check_data(DataSpec(source="beton", path="/nowhere/train.beton", val_fraction=2))
    assert [problem.split()[0] for problem in problems] == ["data.val_fraction", "data.test_path", "/nowhere/train.beton:"]


def test_a_ready_file_of_which_no_image_would_be_held_out_is_refused(tmp_path):
    dataset = prepare(SMALL, tmp_path)
    ready = DataSpec(source="beton", path=str(dataset.train), test_path=str(dataset.test), img_size=16, val_fraction=0.001)
    assert check_data(ready) == ["data.val_fraction is 0.001: of 96 training images, no image would be held out: give more images, or raise it"]
    assert check_data(replace(ready, val_fraction=0.1)) == []


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([0, 1] * 8, [0, 1, 2, 7], r"test.beton: test labels that no image of .*train.beton has \(2\): 2, 7: write both files with the same labels"),
        ([0, 2] * 8, [0, *range(3, 33)], r"test labels that no image of .* has \(30\): 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 20 more"),
        ([0, 10**12] * 8, [0], r"its labels go up to 1000000000000, which stands for .* classes, and it has 16 images: number the classes from 0"),
        ([3] * 16, [3], "train.beton: all its labels are 3: a network that learns to tell classes apart needs two or more"),
    ],
)
def test_ready_files_whose_labels_do_not_belong_together_are_refused(tmp_path, train, test, said):
    for name, labels in (("train", train), ("test", test)):
        write_beton(tmp_path / f"{name}.beton", lambda sample: encoded(np.zeros((16, 16, 3), np.uint8), jpg=False), np.array(labels))
    ready = DataSpec(source="beton", path=str(tmp_path / "train.beton"), test_path=str(tmp_path / "test.beton"), img_size=16)
    (problem,) = check_data(ready)
    assert re.search(said, problem) and look_at_data(ready).problems == [problem]


def test_a_look_counts_the_labels_that_are_trained_on(tmp_path):
    dataset = prepare(SMALL, tmp_path)
    ready = DataSpec(source="beton", path=str(dataset.train), test_path=str(dataset.test), img_size=16, val_fraction=0.25)
    labels = look_at_data(ready).labels
    assert len(labels) == 96 and images_for_training(ready, labels) == prepare(ready, tmp_path).train_samples == 72
    assert look_at_data(SMALL).labels is None and look_at_data(replace(SMALL, val_fraction=2)).problems == check_data(replace(SMALL, val_fraction=2))


def test_a_machine_without_ffcv_says_how_to_install_it_and_how_to_do_without(monkeypatch):
    monkeypatch.setattr("jobs.data.prepare.find_spec", lambda name: None if name == "ffcv" else object())
    assert check_data(SMALL) == ["data.loader: ffcv is not installed: run slurm/install.sh, which builds it, or ask for data.loader: torch by name"]
    assert check_data(replace(SMALL, loader="torch")) == []


def test_checking_imports_nothing_heavy():
    code = (
        "import sys; from jobs.data.prepare import check_data; from jobs.experiment.specs import DataSpec; assert check_data(DataSpec()) == [];"
        "print([name for name in ('torch', 'ffcv', 'numba', 'cv2', 'sklearn') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout == "[]\n"
