"""`python -m models flops`: models by name and options, and files with what lies beside them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models.flops import CONVENTIONS
from models.flops_report import lines_of, named, report_of, subject_of, value_of
from models.pruning.structure import find_groups, remove
from models.registry import create_model

SMALL: dict[str, Any] = {"dim": 16, "depth": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), ("true", True), ("null", None), ("1e-3", 1e-3), ("lin", "lin"), ("2,2,8,2", [2, 2, 8, 2]), ("[h, h_flip]", ["h", "h_flip"]),
     ("h,w2", ["h", "w2"]), ("[1]", [1]), ("[h]", ["h"])],
)  # fmt: skip
def test_a_value_is_read_as_it_is_meant(text: str, value: object) -> None:
    assert value_of(text) == value


def test_a_name_takes_variants_and_settings() -> None:
    assert named("vim_tiny+se+s4", ["depth=12", "se.ratio=8"]) == ("vim_tiny", {"se": {"ratio": 8}, "s4": True, "depth": 12})
    assert report_of(subject_of("vim_micro+se", ["scan=h,v_flip"])).model == "vim_micro(scan=h-v_flip)+se"


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ("vim_tny", [], "did you mean 'vim_tiny'"),
        ("vim_tiny", ["dpth=3"], "did you mean 'depth'"),
        ("vim_tiny", ["depth"], "--set depth: give a value, such as --set depth=12"),
        ("vim_tiny+swa", [], "it has no attention"),
        ("none.pth", [], "there is no file none.pth"),
        ("vim_tiny", ["depth=0"], "1 or more"),
        ("", [], "unknown model ''; valid: vim_tiny"),
    ],
)
def test_what_names_no_model_is_refused(target: str, settings: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        subject_of(target, settings)


def test_options_of_an_image_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not divide 7 x 7 patches"):
        report_of(subject_of("vim_micro", ["scan=[w2]"], img_size=28))
    with pytest.raises(ValueError, match="--model names the model of a file, and 'vim_tiny' is no file"):
        subject_of("vim_tiny", [], "vim_tiny")


def cell(folder: Path, weights: dict[str, torch.Tensor], kept: dict[str, list[int]] | None = None, **data: Any) -> Path:
    """The folder of a finished cell, as far as the report reads it."""
    options = SMALL | {"se": {"ratio": 4}, "pretrained": "elsewhere.pth", "pretrained_key": None}
    spec = {"model": {"name": "vim_micro", "options": options}, "data": {"img_size": None} | data}
    (folder / "record.json").write_text(json.dumps({"spec": spec}))
    save_file(weights, folder / "model.safetensors")
    if kept:
        (folder / "structure.json").write_text(json.dumps({"kept": kept, "counts": {}, "notes": []}))
    return folder


def test_a_cell_s_file_counts_its_smaller_shapes_and_the_weights_that_are_not_zero(tmp_path: Path) -> None:
    network = create_model("vim_micro", 7, 32, se={}, **SMALL)
    whole = report_of(subject_of("vim_micro+se", ["dim=16", "depth=2"], classes=7))
    kept = {"layers.0.mixer.d_inner": [0, 3, 5], "layers.1.mixer.d_state_b": [1, 2]}
    remove(network, find_groups(network, 32), kept)
    with torch.no_grad():
        network.head.weight[:, :8] = 0
    report = report_of(subject_of(str(cell(tmp_path, dict(network.state_dict()), kept)), []))
    assert (report.model, report.img_size, report.classes) == ("vim_micro(dim=16,depth=2)+se", 32, 7)
    assert report.parameters == sum(part.numel() for part in network.parameters()) < whole.parameters
    assert report.nonzero == sum(int(part.count_nonzero()) for part in network.parameters()) <= report.parameters - 56
    scanned = 9 * 65 * (3 * 8 * 2 + 32 * 8 + 32 * 2)  # channels x states of both directions of both blocks
    assert report.tally.scan == scanned and report.tally.products < whole.tally.products


def test_the_image_size_of_a_file_is_read_from_its_positions(tmp_path: Path) -> None:
    network = create_model("vim_micro", 10, 48, se={}, **SMALL)
    path = cell(tmp_path, dict(network.state_dict())) / "model.safetensors"
    assert report_of(subject_of(str(path), [])).img_size == 48
    assert report_of(subject_of(str(path), [], img_size=32)).img_size == 32


def test_a_file_without_a_record_needs_the_name_of_its_model(tmp_path: Path) -> None:
    network = create_model("vim_micro", 10, 32, **SMALL)
    path = tmp_path / "official.pth"
    torch.save({"model": network.state_dict()}, path)
    with pytest.raises(ValueError, match="does not say which model it holds.*name the model with --model, such as --model vim_tiny"):
        subject_of(str(path), [])
    report = report_of(subject_of(str(path), ["dim=16", "depth=2"], "vim_micro"))
    assert (report.parameters, report.file) == (sum(part.numel() for part in network.parameters()), str(path))
    with pytest.raises(ValueError, match="does not fit the model"):
        report_of(subject_of(str(path), ["dim=16", "depth=1"], "vim_micro"))


def test_weights_under_older_names_are_counted_too(tmp_path: Path) -> None:
    weights = create_model("vmamba_micro", 10, 32, dim=8, depths=[1, 1, 1, 1]).state_dict()
    older = {name.replace(".op.", ".self_attention.").replace("classifier.head", "head"): tensor for name, tensor in weights.items()}
    torch.save(older, tmp_path / "older.pth")
    report = report_of(subject_of(str(tmp_path / "older.pth"), ["dim=8", "depths=1,1,1,1"], "vmamba_micro"))
    assert report.nonzero == sum(int(tensor.count_nonzero()) for tensor in weights.values())


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    folder = cell(tmp_path, {"a": torch.zeros(1)})
    (folder / "record.json").write_text(content)
    with pytest.raises(ValueError, match="record.json, which describes the weights beside it"):
        subject_of(str(folder), [])


def test_settings_do_not_change_what_a_file_holds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--set changes a model, and .* holds one already"):
        subject_of(str(cell(tmp_path, {"a": torch.zeros(1)})), ["depth=1"])


def test_a_report_names_every_convention_and_what_it_leaves_out() -> None:
    report = report_of(subject_of("vim_micro", []))
    text = "\n".join(lines_of(report, per_layer=True))
    assert all(each.name in text and f"leaves out {each.left_out}" in text for each in CONVENTIONS)
    assert "layers.3.mixer.out_proj" in text and "146,570" in text and "of them not zero" not in text
    plain = json.loads(json.dumps(report.as_json(per_layer=True)))
    assert plain["parameters"] == 146_570 and [each["name"] for each in plain["counts"]] == [each.name for each in CONVENTIONS]
    assert {"name", "kind", "parameters", "macs", "scan_flops"} == plain["layers"][0].keys()
    assert "layers" not in report.as_json(per_layer=False)


def test_a_model_of_timm_s_is_counted_by_its_name() -> None:
    report = report_of(subject_of("timm/resnet18", []))
    assert (report.parameters, round(report.tally.products / 1e9, 2)) == (11_689_512, 1.81)


def test_a_folder_that_holds_no_weights_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file .*model.safetensors, and no model of this name"):
        subject_of(str(tmp_path), [])


def test_the_plug_in_of_a_cell_s_model_is_named(tmp_path: Path) -> None:
    folder = cell(tmp_path, {"a": torch.zeros(1)})
    record = json.loads((folder / "record.json").read_text())
    record["spec"]["model"] |= {"name": "outside_net", "plugin": "mine.py", "plugin_sha256": "0123456789abcdef"}
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="holds outside_net, a model of the plug-in mine.py: give --plugins and its file, or .*0123456789ab/"):
        subject_of(str(folder), [])


def test_an_image_that_a_network_does_not_take_is_told_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"vim_micro\(dim=999999999\) does not run on its images: "):
        report_of(subject_of("vim_micro", ["dim=999999999"]))
    with pytest.raises(ValueError, match="mlp_ratio leaves no hidden unit for 32 channels: raise it"):
        report_of(subject_of("vmamba_micro", ["mlp_ratio=0.001"]))
    with pytest.raises(ValueError, match="--pretrained-key names weights in a file, and 'vim_tiny' is no file"):
        subject_of("vim_tiny", [], key="ema")
    with pytest.raises(ValueError, match="timm/inception_v4 does not run on images of 32 px: "):
        report_of(subject_of("timm/inception_v4", [], img_size=32))
