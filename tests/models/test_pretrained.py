"""Checkpoint files in the official wrappers."""

import argparse
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from models.positions import resampled
from models.pretrained import load_pretrained, without_prefixes
from models.registry import create_model, effective_options, model_label
from tests.support.golden import filled


def micro(**options: object) -> nn.Module:
    return create_model("vim_micro", num_classes=10, depth=1, **options)


@pytest.mark.parametrize(("wrapper", "prefix"), [("model", ""), ("state_dict", ""), (None, ""), ("state_dict", "module."), ("model", "encoder.")])
def test_every_official_wrapper_is_read(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    weights = {prefix + name: tensor for name, tensor in filled(micro()).state_dict().items()}
    torch.save({wrapper: weights, "epoch": 3, "args": argparse.Namespace(lr=1e-3)} if wrapper else weights, tmp_path / "official.pth")
    loaded = micro(pretrained=tmp_path / "official.pth").state_dict()
    assert all(torch.equal(loaded[name.removeprefix(prefix)], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("prefix", ["model.", "backbone.", "_orig_mod.", "net.", "module.", "module._orig_mod.", "model.encoder.", "net.backbone."])
@pytest.mark.parametrize("head", ["with the prefix", "without"])
def test_a_prefix_of_all_names_or_of_all_but_the_heads_is_removed(tmp_path: Path, prefix: str, head: str) -> None:
    if "encoder" in prefix and head == "without":
        return  # what stands beside an encoder is a decoder's
    weights = filled(micro()).state_dict()
    bare = ("head.",) if head == "without" else ()
    torch.save({(name if name.startswith(bare) else prefix + name): tensor for name, tensor in weights.items()}, tmp_path / "w.pth")
    loaded = micro(pretrained=tmp_path / "w.pth").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_a_prefix_of_some_names_is_not_removed(tmp_path: Path) -> None:
    weights = {f"model.{name}": tensor for name, tensor in micro().state_dict().items()} | {"criterion.weight": torch.ones(2)}
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="missing cls_token"):
        micro(pretrained=tmp_path / "w.pth")


def test_a_prefix_stays_where_two_tensors_would_get_the_same_name() -> None:
    weights = {"model.head.weight": torch.ones(1), "head.weight": torch.zeros(1)}
    assert without_prefixes(weights) == weights


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_the_first_tensors_name(tmp_path: Path, value: float) -> None:
    weights = filled(micro()).state_dict()
    weights["layers.0.mixer.A_log"][1, 2] = value
    weights["norm_f.weight"][:] = value
    torch.save(weights, tmp_path / "w.pth")
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match="w.pth: layers.0.mixer.A_log holds NaN or infinity, 1 of its 1024 values"):
            micro(pretrained=tmp_path / "w.pth")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_weights_of_whole_or_complex_numbers_are_refused_by_name(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in micro().state_dict().items()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=f"cls_token is {str(dtype)[6:]}, and weights must be floating-point numbers"):
        micro(pretrained=tmp_path / "w.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_floating_point_type_are_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in filled(micro()).state_dict().items()}, tmp_path / "w.pth")
    model = micro(pretrained=tmp_path / "w.pth")
    assert model.norm_f.weight.dtype == torch.float32
    assert torch.equal(model.norm_f.weight, filled(micro()).norm_f.weight.to(dtype).float())


def test_counters_of_batch_normalisation_may_be_whole_numbers(tmp_path: Path) -> None:
    weights = filled(create_model("mambavision_micro", 10)).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    assert any(not tensor.is_floating_point() for tensor in weights.values())
    create_model("mambavision_micro", 10, pretrained=tmp_path / "w.pth")


def test_weights_without_values_are_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        torch.save(micro().state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="cls_token holds no values"):
        micro(pretrained=tmp_path / "w.pth")


def test_weights_of_another_image_size_are_loaded_with_their_positions_resampled(tmp_path: Path) -> None:
    weights = filled(micro(img_size=64)).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    model = micro()
    assert load_pretrained(model, tmp_path / "w.pth").sentences == ("position embeddings were resampled from 16 x 16 to 8 x 8 patches, bicubic",)
    assert torch.equal(model.pos_embed, resampled(weights["pos_embed"], 8, model))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items() if name != "pos_embed")
    assert load_pretrained(micro(img_size=64), tmp_path / "w.pth").sentences == ()
    with torch.device("meta"):
        micro(pretrained=tmp_path / "w.pth")


@pytest.mark.parametrize("shape", [(1, 60, 64), (1, 65, 32), (1, 1, 64), (65, 64), (1, 8, 8, 64)])
def test_positions_that_are_no_square_of_patches_are_refused_by_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    torch.save(micro().state_dict() | {"pos_embed": torch.zeros(shape)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"does not fit the model: pos_embed is \(.*\), the model has \(1, 65, 64\)"):
        micro(pretrained=tmp_path / "w.pth")


def test_a_key_chooses_the_averaged_weights(tmp_path: Path) -> None:
    averaged = filled(micro()).state_dict()
    torch.save({"model": micro().state_dict(), "model_ema": averaged}, tmp_path / "w.pth")
    chosen = micro(pretrained=tmp_path / "w.pth", pretrained_key="model_ema")
    assert torch.equal(chosen.norm_f.weight, averaged["norm_f.weight"])


def test_a_checkpoint_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"model": micro().state_dict()}, tmp_path / "official.pth")
    with pytest.raises(ValueError, match=r"official.pth does not fit the model: .*A_log is \(128, 8\), the model has \(128, 4\)"):
        micro(d_state=4, pretrained=tmp_path / "official.pth")
    with pytest.raises(ValueError, match="missing layers.0.se.reduce.weight"):
        micro(se={}, pretrained=tmp_path / "official.pth")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Fraction(1, 2)}, tmp_path / "pickled.pth")
    with pytest.raises(ValueError, match="pickled.pth is no checkpoint"):
        micro(pretrained=tmp_path / "pickled.pth")


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        micro(pretrained=tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="there is no file .*absent.pth"):
        micro(pretrained=tmp_path / "absent.pth")


HEADS = ("head.", "classifier.head.")


@pytest.mark.parametrize("name", ["vim_micro", "mambavision_micro", "vmamba_micro", "vssd_micro_32", "vit_micro", "mambaout_micro"])
@pytest.mark.parametrize("prefix", ["", "backbone.", "module.model."])
def test_a_file_without_a_head_leaves_the_head_fresh_and_says_so(tmp_path: Path, name: str, prefix: str) -> None:
    weights = {key: tensor for key, tensor in filled(create_model(name, 10)).state_dict().items() if not key.startswith(HEADS)}
    torch.save({f"{prefix}{key}": tensor for key, tensor in weights.items()}, tmp_path / "backbone.pth")
    torch.manual_seed(3)
    model = create_model(name, 7)
    head = {key: tensor.clone() for key, tensor in model.state_dict().items() if key.startswith(HEADS)}
    assert load_pretrained(model, tmp_path / "backbone.pth").sentences == ("the head is fresh, because the file has none",)
    loaded = model.state_dict()
    assert head and head.keys() | weights.keys() == loaded.keys()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in (head | weights).items())


def test_a_head_that_lacks_a_part_or_a_network_that_lacks_more_than_its_head_is_refused(tmp_path: Path) -> None:
    weights = micro().state_dict()
    torch.save({key: tensor for key, tensor in weights.items() if key != "head.bias"}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="does not fit the model: missing head.bias$"):
        micro(pretrained=tmp_path / "w.pth")
    torch.save({key: tensor for key, tensor in weights.items() if not key.startswith(("head.", "norm_f."))}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="does not fit the model: missing norm_f.weight$"):
        micro(pretrained=tmp_path / "w.pth")


def test_only_the_last_layer_of_a_head_may_be_missing(tmp_path: Path) -> None:
    weights = {key: tensor for key, tensor in filled(create_model("mambaout_micro", 10)).state_dict().items() if not key.startswith("head.fc.")}
    torch.save(weights, tmp_path / "w.pth")
    model = create_model("mambaout_micro", 7)
    assert load_pretrained(model, tmp_path / "w.pth").sentences == ("the head is fresh, because the file has none",)
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in weights.items())


@pytest.mark.parametrize("name", ["vim_micro", "mambavision_micro", "vmamba_micro", "vssd_micro_32", "vit_micro", "mambaout_micro"])
def test_of_every_family_a_head_of_other_classes_stays_fresh(tmp_path: Path, name: str) -> None:
    weights = filled(create_model(name, 9)).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    model = create_model(name, 7)
    assert load_pretrained(model, tmp_path / "w.pth").sentences == ("the head is fresh, because the file's has 9 classes and the data 7",)
    other = [key for key, tensor in model.state_dict().items() if not torch.equal(tensor, weights[key])]
    assert len(other) == 2 and {key.rpartition(".")[2] for key in other} == {"weight", "bias"}


def test_a_head_of_other_classes_stays_fresh(tmp_path: Path) -> None:
    torch.save({"model": filled(create_model("vim_micro", num_classes=1000, depth=1)).state_dict()}, tmp_path / "official.pth")
    model = micro()
    assert load_pretrained(model, tmp_path / "official.pth").sentences == ("the head is fresh, because the file's has 1000 classes and the data 10",)
    assert model.head.weight.shape == (10, 64) and not model.head.bias.any()
    assert torch.equal(model.norm_f.weight, filled(micro()).norm_f.weight)


def test_a_grid_may_name_a_checkpoint() -> None:
    assert effective_options("vim_tiny", {"pretrained": "/data/vim_t.pth"}) == {"pretrained": "/data/vim_t.pth"}
    assert model_label("vim_tiny", {"pretrained": "/data/vim_t.pth"}) == "vim_tiny(pretrained=vim_t.pth)"


def test_a_checkpoint_is_checked_without_memory_for_the_model(tmp_path: Path) -> None:
    torch.save({"model": filled(micro()).state_dict()}, tmp_path / "official.pth")
    with torch.device("meta"):  # as the launcher does
        micro(pretrained=tmp_path / "official.pth")
        with pytest.raises(ValueError, match="does not fit the model"):
            micro(d_state=4, pretrained=tmp_path / "official.pth")
