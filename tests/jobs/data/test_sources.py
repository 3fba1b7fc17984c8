"""Each source in its real format, in small."""

import pickle

import numpy as np
import pytest
from PIL import Image

from jobs.data.beton import DataError
from jobs.data.sources import CIFARS, READERS, content_key
from jobs.experiment.specs import DataSpec
from tests.support.images import write_cifar, write_folder


def read(data, img_size=32):
    assert READERS[data.source].problems(data) == []
    return READERS[data.source].read(data, img_size)


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
@pytest.mark.parametrize("inner", [True, False])
def test_cifar_is_read_from_its_official_files_in_either_folder(tmp_path, source, inner):
    images, labels = write_cifar(tmp_path, source)
    content = read(DataSpec(source=source, path=str(tmp_path / CIFARS[source].folder if inner else tmp_path)))
    assert content.classes == CIFARS[source].classes and len(content.test.labels) == 20
    assert (content.train.labels == labels).all()
    assert all((content.train.image(sample) == images[sample].transpose(1, 2, 0)).all() for sample in range(len(labels)))


def test_an_absent_cifar_file_is_named_with_the_remedy(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    (problem,) = READERS["cifar10"].problems(DataSpec(source="cifar10", path=str(tmp_path)))
    assert "cifar-10-batches-py lacks data_batch_3: unpack" in problem
    (problem,) = READERS["cifar10"].problems(DataSpec(source="cifar10", path=str(tmp_path / "nowhere")))
    assert "nowhere: no such folder: unpack" in problem
    assert "data.path is not set" in READERS["cifar10"].problems(DataSpec(source="cifar10"))[0]


def test_empty_files_of_cifar_are_known_before_a_job_reads_them(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"")
    (problem,) = READERS["cifar10"].problems(DataSpec(source="cifar10", path=str(tmp_path)))
    assert problem.startswith(f"{tmp_path}: files of 0 bytes: data_batch_3: unpack the python version from ")


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("module", ["builtins", "os", "numpy", "numpy.lib"])
def test_a_pickle_that_names_anything_but_arrays_is_refused_before_it_runs(tmp_path, module):
    write_cifar(tmp_path)
    content = pickle.dumps(Attack(tmp_path / "ran"), protocol=2).replace(b"cio\nopen", f"c{module}\nopen".encode())
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match="test_batch: not an official CIFAR pickle .it names"):
        read(DataSpec(source="cifar10", path=str(tmp_path)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((2, 30), np.uint8), b"labels": [1, 2]},
        {b"labels": [1]},
        [1, 2],
    ],
)
def test_a_cifar_file_of_other_content_is_refused_by_name(tmp_path, batch):
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(batch))
    with pytest.raises(DataError, match="data_batch_2: (not a batch|damaged)"):
        read(DataSpec(source="cifar10", path=str(tmp_path)))


def test_a_truncated_cifar_file_is_refused_by_name(tmp_path):
    write_cifar(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="data_batch_2: not an official CIFAR pickle"):
        read(DataSpec(source="cifar10", path=str(tmp_path)))


def test_class_folders_are_numbered_by_name_and_pixels_are_kept(tmp_path):
    write_folder(tmp_path / "train", count=3)
    write_folder(tmp_path / "val", classes=("cat",), count=2)
    content = read(DataSpec(source="imagefolder", path=str(tmp_path)))
    assert content.classes == 2 and content.train.labels.tolist() == [0, 0, 0, 1, 1, 1]  # ant, cat
    assert content.test.labels.tolist() == [1, 1]
    expected = np.random.default_rng([0, 2]).integers(0, 256, (40, 50, 3), dtype=np.uint8)  # train/cat/2.png
    assert (content.train.image(5) == expected).all()


def test_grey_and_transparent_images_become_rgb(tmp_path):
    write_folder(tmp_path / "train", classes=("a", "b"), count=0)
    Image.new("L", (6, 5)).save(tmp_path / "train" / "b" / "black.png")
    write_folder(tmp_path / "val", classes=("a", "b"))
    Image.fromarray(np.full((5, 6), 77, np.uint8)).save(tmp_path / "train" / "a" / "grey.png")
    Image.new("RGBA", (6, 5), (1, 2, 3, 128)).save(tmp_path / "train" / "a" / "see.png")
    content = read(DataSpec(source="imagefolder", path=str(tmp_path), val_fraction=0.5))
    assert (content.train.image(0) == 77).all() and content.train.image(0).shape == (5, 6, 3)
    assert abs(content.train.image(1).astype(int) - 128).max() <= 2, "half of white, and half of nearly black"


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_broken_image_is_named(tmp_path, suffix):
    write_folder(tmp_path / "train", suffix=suffix)
    write_folder(tmp_path / "val", suffix=suffix)
    path = tmp_path / "train" / "cat" / f"1{suffix}"
    path.write_bytes(path.read_bytes()[:200])
    content = read(DataSpec(source="imagefolder", path=str(tmp_path)))
    with pytest.raises(DataError, match=f"cat/1{suffix}: cannot be decoded"):
        content.train.image(4)


def test_a_wrong_folder_layout_is_told_apart(tmp_path):
    def problems(**settings):
        return "; ".join(READERS["imagefolder"].problems(DataSpec(source="imagefolder", **settings)))

    assert "data.path is not set" in problems()
    write_folder(tmp_path / "train")
    assert f"{tmp_path / 'val'}: no such folder" in problems(path=str(tmp_path))
    write_folder(tmp_path / "val", classes=("cat", "dog"))
    assert "class folders that" in problems(path=str(tmp_path)) and "lacks: dog" in problems(path=str(tmp_path))
    assert "holds no class folders" in problems(path=str(tmp_path / "train" / "cat"), test_path=str(tmp_path / "val"))
    assert problems(path=str(tmp_path / "train"), test_path=str(tmp_path / "train")) == ""


def test_digits_are_scikit_learns_in_a_fixed_split():
    from sklearn.datasets import load_digits

    content = read(DataSpec())
    assert (len(content.train.labels), len(content.test.labels)) == (1438, 359)
    assert np.bincount(content.test.labels).min() >= 34 and np.bincount(content.test.labels).max() <= 37
    ours = sorted(
        (content_part.image(sample).tobytes(), int(label))
        for content_part in (content.train, content.test)
        for sample, label in enumerate(content_part.labels)
    )
    official = load_digits()
    theirs = sorted(
        (np.stack([np.round(pixels / 16 * 255)] * 3, -1).astype(np.uint8).tobytes(), int(label))
        for pixels, label in zip(official.images, official.target, strict=True)
    )
    assert ours == theirs


def test_synthetic_classes_can_be_told_by_their_spectra():
    content = read(DataSpec(source="synthetic", samples=200, classes=10))

    def spectra(part, count):
        return np.array([np.abs(np.fft.rfft2(part.image(sample), axes=(0, 1)))[:12, :12].reshape(-1) for sample in range(count)])

    train, test = spectra(content.train, 200), spectra(content.test, 50)
    means = np.array([train[content.train.labels == label].mean(0) for label in range(10)])
    found = ((test[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (found == content.test.labels).mean() > 0.9


def test_the_key_follows_content_and_settings_of_writing_alone(tmp_path):
    write_cifar(tmp_path)
    data = DataSpec(source="cifar10", path=str(tmp_path))
    key = content_key(data, 32, 1)
    assert key == content_key(DataSpec(source="cifar10", path=str(tmp_path), flip=True, augment="crop", loader="torch", val_fraction=0.5), 32, 1)
    assert len({key, content_key(data, 64, 1), content_key(data, 32, 2), content_key(DataSpec(source="digits"), 32, 1)}) == 4
    path = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(path.read_bytes() + b"more")
    assert content_key(data, 32, 1) != key
