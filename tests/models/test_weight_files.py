"""What a checkpoint file may hold, which of its weights are taken, and how files that hold none are refused."""

import argparse
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.weight_files import read_weights
from tests.support.official import yacs_node

LAST, AVERAGED = {"a.weight": torch.ones(2)}, {"a.weight": torch.zeros(2)}


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "w.pth")
    return folder / "w.pth"


@pytest.mark.parametrize(
    "beside",
    [np.float64(76.1), np.float32(0.5), np.int64(3), np.bool_(True), np.arange(3.0), np.array(["a"]), np.float16(1), {"best": [np.float64(1.0)]}],
    ids=lambda value: type(value).__name__,
)
def test_numbers_and_arrays_of_numpy_may_stand_beside_the_weights(tmp_path: Path, beside: object) -> None:
    assert torch.equal(read_weights(saved(tmp_path, {"model": LAST, "best": beside}))["a.weight"], LAST["a.weight"])


def test_a_numpy_number_under_the_module_name_of_numpy_1_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": LAST, "best": np.float64(1)})
    content = path.read_bytes()
    assert content.count(b"numpy._core.multiarray") == 1
    torch.save({"model": LAST, "best": np.float64(1)}, path, _use_new_zipfile_serialization=False)  # not compressed and without checksums
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert "a.weight" in read_weights(path)


@pytest.mark.parametrize(
    "beside",
    [
        Path("/runs"),
        PurePosixPath("a"),
        datetime(2024, 2, 29),
        timedelta(hours=3),
        argparse.Namespace(out=Path("x")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_paths_and_times_of_a_command_line_may_stand_beside_the_weights(tmp_path: Path, beside: object) -> None:
    assert "a.weight" in read_weights(saved(tmp_path, {"model": LAST, "args": beside}))


def test_settings_of_yacs_may_stand_beside_the_weights_without_yacs(tmp_path: Path) -> None:
    with yacs_node({"MODEL": {"NAME": "vssm1_tiny_0230s", "DEPTHS": [2, 2, 8, 2]}, "OUTPUT": "/runs"}) as config:
        path = saved(tmp_path, {"model": LAST, "config": config})
    assert "yacs" not in sys.modules and torch.equal(read_weights(path)["a.weight"], LAST["a.weight"])


@pytest.mark.parametrize(
    ("content", "key", "value"),
    [
        ({"checkpoint": {"model": LAST, "epoch": 3}, "version": 1}, None, 1),
        ({"model": {"state_dict": LAST}, "optimizer": {"state": {}}}, None, 1),
        ({"model": {"state_dict": LAST}, "model_ema": {"state_dict": AVERAGED}}, "model_ema", 0),
        ({"checkpoint": {"model": {"module": LAST}}}, None, 1),
        ({"weights": LAST}, None, 1),
    ],
)
def test_weights_in_a_checkpoint_within_a_checkpoint_are_found(tmp_path: Path, content: object, key: str | None, value: int) -> None:
    assert read_weights(saved(tmp_path, content), key)["a.weight"].tolist() == [value, value]


def test_a_file_of_torch_is_read_under_the_ending_of_safetensors(tmp_path: Path) -> None:
    saved(tmp_path, {"model": LAST}).rename(tmp_path / "w.safetensors")
    assert "a.weight" in read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [{"model": None}, {"model": {}}, [torch.ones(1)], torch.ones(1), {"model": {"a": np.ones(1)}}, {0: LAST}])
def test_a_file_without_a_state_dict_is_refused_with_the_command_that_makes_one(tmp_path: Path, content: object) -> None:
    with pytest.raises(ValueError, match=r"holds no state dict, .*; save the weights of its network alone: torch.save\(network.state_dict\(\), "):
        read_weights(saved(tmp_path, content))


def test_an_array_of_python_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint"):
        read_weights(saved(tmp_path, {"model": LAST, "best": np.array([Fraction(1, 2)], dtype=object)}))


def test_safetensors_are_read_under_any_name(tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.bin"):
        save_file(LAST, tmp_path / name)
        with torch.device("meta"):
            assert torch.equal(read_weights(tmp_path / name)["a.weight"], LAST["a.weight"])


@pytest.mark.parametrize(
    ("content", "key", "value"),
    [
        ({"model": LAST, "model_ema": AVERAGED}, None, 1),
        ({"state_dict_ema": AVERAGED, "state_dict": LAST}, None, 1),
        ({"model": LAST, "model_ema": AVERAGED}, "model_ema", 0),
        ({"model_ema": AVERAGED, "epoch": 3}, None, 0),
        ({"model.a.weight": LAST["a.weight"], "model_ema.a.weight": AVERAGED["a.weight"]}, None, 1),
        ({"model.a.weight": LAST["a.weight"], "model_ema.a.weight": AVERAGED["a.weight"]}, "model_ema", 0),
    ],
)
def test_of_last_and_averaged_weights_the_last_are_taken_unless_a_key_names_others(
    tmp_path: Path, content: object, key: str | None, value: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_weights(saved(tmp_path, content), key)["a.weight"].tolist() == [value, value]
    printed = capsys.readouterr().err
    assert (printed == "") == (key is not None)
    if key is None:
        assert "are loaded" in printed and printed.count("\n") == 1


def test_a_file_with_one_set_of_weights_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_weights(saved(tmp_path, {"model": LAST, "optimizer": {"state": {}}}))
    assert capsys.readouterr().err == ""


def test_keys_that_are_not_there_are_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights under 'model_ma'; did you mean 'model_ema'\\? valid: model, model_ema"):
        read_weights(saved(tmp_path, {"model": LAST, "model_ema": AVERAGED}), "model_ma")
    with pytest.raises(ValueError, match="leave pretrained_key out"):
        read_weights(saved(tmp_path, LAST), "model")
    with pytest.raises(ValueError, match="it holds weights under generator, critic: choose with pretrained_key"):
        read_weights(saved(tmp_path, {"generator": LAST, "critic": LAST}))
    assert read_weights(saved(tmp_path, {"generator": LAST, "critic": AVERAGED}), "critic")["a.weight"].tolist() == [0, 0]


def torch_bytes(folder: Path) -> bytes:
    return saved(folder, {"model": LAST}).read_bytes()


def safetensors_bytes(folder: Path) -> bytes:
    save_file(LAST, folder / "whole")
    return (folder / "whole").read_bytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: b"", "it is empty; copy it again"),
        (lambda folder: b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (lambda folder: b"<!DOCTYPE html><html>", "web page"),
        (lambda folder: b"epoch,top1\n1,0.5\n", "neither of torch.save nor of safetensors"),
        (lambda folder: b"\x93NUMPY\x01\x00", "neither of torch.save nor of safetensors"),
        (lambda folder: b"\x89HDF\r\n\x1a\n\0\0", "neither of torch.save nor of safetensors"),
        (lambda folder: b"\x1f\x8b\x08\0", "neither of torch.save nor of safetensors"),
        (lambda folder: b'{"weight_map": {}}', "text in JSON, such as an index of weights in several files; give the file that holds the weights"),
        (lambda folder: torch_bytes(folder)[:-200], "damaged or cut short .*; copy it again"),
        (lambda folder: safetensors_bytes(folder)[:-2], "damaged or cut short .*; copy it again"),
    ],
    ids=["empty", "LFS", "web page", "text", "NumPy", "HDF5", "gzip", "JSON", "cut", "cut safetensors"],
)
def test_files_that_are_no_checkpoint_are_refused_in_one_line_with_the_remedy(tmp_path: Path, make: Callable[[Path], bytes], message: str) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(make(tmp_path))
    with pytest.raises(ValueError, match=f"pretrained: .*bad.pth is no checkpoint.*{message}") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_an_object_that_might_run_code_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"it also holds a fractions\.Fraction; if you trust it, save the weights alone: torch.save\(") as caught:
        read_weights(saved(tmp_path, {"model": LAST, "ratio": Fraction(1, 2)}))
    assert "\n" not in str(caught.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder: give the checkpoint file in it"):
        read_weights(tmp_path)


def test_a_tensor_beside_weights_is_no_set_of_weights(tmp_path: Path) -> None:
    content: dict[str, Tensor | dict[str, Tensor]] = {"model": LAST, "step": torch.tensor(3)}
    assert set(read_weights(saved(tmp_path, content))) == {"a.weight"}
