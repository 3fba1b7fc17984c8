"""config.json: what it holds, and what it refuses."""

import json
from pathlib import Path

import pytest

from jobs.experiment.cell import Cell
from jobs.experiment.cell_config import CellConfig, ConfigError, cell_config, library_version, read_config
from jobs.experiment.files import sha256_of, write_json
from jobs.experiment.specs import DataSpec, ModelSpec
from tests.support.cell_folders import record_of
from tests.support.cells import SE, make_cell

DATA = DataSpec(source="imagefolder", path="/home/somebody/secret", img_size=96, interpolation="bicubic", eval_crop=0.9, max_resolution=500)


def written(folder: Path, cell: Cell) -> CellConfig:
    (folder / "model.safetensors").write_bytes(b"weights")
    config = cell_config(cell, record_of(cell), folder, classes=3, names=["cat", "dog", "owl"])
    write_json(folder / "config.json", config.model_dump(mode="json"))
    return config


def test_a_config_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = written(tmp_path, make_cell(model=SE, data=DATA))
    assert read_config(tmp_path) == config
    assert config.model.spec() == SE
    assert config.files == {"model.safetensors": sha256_of(tmp_path / "model.safetensors")}
    given = config.input.spec()
    assert (given.img_size, given.interpolation, given.eval_crop, given.max_resolution) == (96, "bicubic", 0.9, 500)
    assert (config.input.mean, config.input.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert config.class_names == ("cat", "dog", "owl") and config.library_version == library_version() is not None


def test_it_names_every_option_so_that_another_default_changes_nothing(tmp_path: Path) -> None:
    options = written(tmp_path, make_cell()).model.options
    assert options["depth"] == 4 and options["patch_size"] == 4 and options["se"] is None


def test_it_names_no_path_and_no_host(tmp_path: Path) -> None:
    model = ModelSpec(name="vim_micro", label="vim_micro", options={"pretrained": "/home/somebody/w.pth"}, pretrained_sha256="a" * 64)
    written(tmp_path, make_cell(model=model, data=DATA))
    text = (tmp_path / "config.json").read_text()
    assert "somebody" not in text and "node1" not in text


def test_what_another_program_adds_is_passed_over(tmp_path: Path) -> None:
    config = written(tmp_path, make_cell())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"_name_or_path": "x"}))
    assert read_config(tmp_path) == config


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1}', '{"architectures": ["ResNet"]}'])
def test_another_file_of_that_name_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="config.json is no config of a cell that this version reads"):
        read_config(tmp_path)


def test_the_config_of_a_later_schema_is_refused(tmp_path: Path) -> None:
    written(tmp_path, make_cell())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"schema_version": 2}))
    with pytest.raises(ConfigError, match=r"\(schema_version: .*load it with the version of vssm-bench that wrote it"):
        read_config(tmp_path)
