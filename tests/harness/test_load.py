"""A cell's folder, or a copy of it, gives the network that was measured."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from harness.load import LoadError, load_cell
from jobs.experiment.records import read_record
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import DataSpec, ModelSpec
from models.plugins.loading import load_file as load_plugin_file
from models.plugins.loading import write_copy
from models.plugins.tables import forget_rows
from models.pruning.structure import Structure, find_groups
from models.registry import create_model
from models.token_merging import Merging
from tests.support.cell_folders import write_cell
from tests.support.cells import make_cell
from tests.support.plugins import MODEL, own_tables, written  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests" / "fixtures" / "run_of_0_1" / "small"
SMALL = ModelSpec(name="vim_micro", label="vim_micro", options={"dim": 8, "depth": 2})
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def narrower() -> Structure:
    """A structure that removes half of the first group's units."""
    group = find_groups(create_model("vim_micro", 10, 32, dim=8, depth=2), 32)[0]
    return Structure(kept={group.name: list(range(group.count // 2))}, counts={group.name: group.count})


def merging() -> Structure:
    """A structure of a network whose weights all stay, and whose tokens merge."""
    return Structure(kept={}, counts={}, merging=Merging(tokens={1: (40, 64)}))


PRUNED = {
    "dense": dict,
    "masked": lambda: {"masks": {"head.weight": torch.arange(80).reshape(10, 8) % 2 == 0}},
    "narrower": lambda: {"structure": narrower()},
    "without a block": lambda: {"structure": Structure(kept={}, counts={}, blocks=("layers.0",))},
    "with merging tokens": lambda: {"structure": merging()},
}


@pytest.mark.parametrize("pruned", PRUNED)
def test_a_copy_of_the_folder_gives_the_network_bit_for_bit(tmp_path: Path, pruned: str) -> None:
    network = write_cell(tmp_path / "run" / "cells" / "a", make_cell(model=SMALL), **PRUNED[pruned]())
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    cell = load_cell(str(tmp_path / "elsewhere" / "cells" / "a"), scan="reference")
    assert not cell.network.training
    with torch.no_grad():
        assert torch.equal(cell.network(IMAGES), network(IMAGES))


def test_five_lines_name_the_class_of_an_image(tmp_path: Path) -> None:
    write_cell(tmp_path / "a", make_cell(model=SMALL), classes=3, names=("cat", "dog", "owl"))
    cell = load_cell(tmp_path / "a" / "model.safetensors")
    scores = cell.network(cell.preprocess(Image.new("RGB", (32, 32), "red")))
    assert scores.shape == (1, 3) and cell.class_names[scores.argmax()] in ("cat", "dog", "owl")


def test_classes_without_names_have_numbers(tmp_path: Path) -> None:
    write_cell(tmp_path / "a", make_cell(model=SMALL), classes=3)
    assert load_cell(tmp_path / "a").class_names == ("0", "1", "2")


# cells that are older than config.json


@pytest.mark.parametrize("folder", [path.parent for path in sorted(OLD.glob("cells/*/model.safetensors"))], ids=lambda folder: folder.name)
def test_a_cell_of_version_0_1_is_loaded_by_its_record(folder: Path) -> None:
    cell, record = load_cell(folder), json.loads((folder / "record.json").read_bytes())
    parameters = list(cell.network.parameters())
    assert sum(parameter.numel() for parameter in parameters) == record["metrics"]["params"]
    assert sum(int(parameter.count_nonzero()) for parameter in parameters) == record["metrics"]["params_nonzero"]
    assert cell.config.classes == 10 and cell.config.cell == record["id"]


# what is refused


def test_a_folder_that_is_no_cell_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="there is no folder .*name the folder of a cell"):
        load_cell(tmp_path / "a")
    (tmp_path / "cells").mkdir()
    with pytest.raises(LoadError, match=r"has no model.safetensors, .*\(it holds cells\)"):
        load_cell(tmp_path)
    with pytest.raises(LoadError, match=r"has no model.safetensors, .*\(it is empty\)"):
        load_cell(tmp_path / "cells")
    (tmp_path / "cells" / "model.safetensors").touch()
    with pytest.raises(LoadError, match="has neither config.json nor record.json"):
        load_cell(tmp_path / "cells")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a cell whose tokens merge: without structure.json its weights would load as another network."""
    write_cell(tmp_path / "a", make_cell(model=SMALL), structure=merging())
    return tmp_path / "a"


def test_a_missing_structure_is_noticed_even_where_the_weights_would_fit(folder: Path) -> None:
    (folder / "structure.json").unlink()
    with pytest.raises(LoadError, match="structure.json is missing: it says which parts of the network are gone"):
        load_cell(folder)


def test_a_structure_of_another_cell_is_noticed(folder: Path, tmp_path: Path) -> None:
    write_cell(tmp_path / "b", make_cell(model=SMALL))
    shutil.copy(folder / "structure.json", tmp_path / "b")
    with pytest.raises(LoadError, match="structure.json is not of this cell"):
        load_cell(tmp_path / "b")


def test_weights_that_changed_are_refused_unless_they_are_wanted(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["head.bias"] += 1
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(LoadError, match=r"is not the file that the cell measured .*verify=False"):
        load_cell(folder)
    assert torch.equal(load_cell(folder, verify=False).network.head.bias, weights["head.bias"])


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"\xff" * 100])
def test_a_torn_file_of_weights_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(LoadError, match="is not the file that the cell measured"):
        load_cell(folder)
    with pytest.raises(LoadError, match="do not fit together; copy the whole folder"):
        load_cell(folder, verify=False)


def test_weights_of_another_shape_are_refused(folder: Path, tmp_path: Path) -> None:
    wider = ModelSpec(name="vim_micro", label="wider", options={"dim": 12, "depth": 2})
    write_cell(tmp_path / "b", make_cell(model=wider))
    shutil.copy(tmp_path / "b" / "model.safetensors", folder)
    with pytest.raises(LoadError, match="do not fit together; copy the whole folder"):
        load_cell(folder, verify=False)


def edited(folder: Path, **changes: object) -> Path:
    """The folder, in whose config the model is changed."""
    path = folder / "config.json"
    config = json.loads(path.read_bytes())
    config["model"] |= changes
    path.write_text(json.dumps(config))
    return folder


def test_a_model_or_an_option_that_this_version_lacks_is_named(folder: Path) -> None:
    with pytest.raises(LoadError, match="this version cannot build vim_micro: .*depht: unknown field; did you mean 'depth'"):
        load_cell(edited(folder, options={"depht": 3}))
    with pytest.raises(LoadError, match="unknown model 'vim_mikro'; did you mean 'vim_micro'"):
        load_cell(edited(folder, name="vim_mikro"))


def test_a_config_that_cannot_be_read_is_refused_rather_than_passed_over(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(LoadError, match="config.json is no config of a cell"):
        load_cell(folder)


def test_a_record_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "record.json").write_text("{}")
    with pytest.raises(LoadError, match="has no config.json, and its record.json does not help"):
        load_cell(folder)


# plug-ins


def test_the_copy_of_a_plug_in_is_asked_for_by_its_path_and_never_run_unasked(tmp_path: Path) -> None:
    copy = write_copy(load_plugin_file(written(tmp_path, MODEL)), tmp_path / "run" / "plugins")
    folder = tmp_path / "run" / "cells" / "a"
    network = write_cell(folder, make_cell(model=ModelSpec(name="outside_net", label="outside_net", options={"width": 4})))
    forget_rows()
    shutil.copytree(folder, tmp_path / "away")
    with pytest.raises(LoadError, match=f"outside_net is of the plug-in plugin.py: its copy is {copy}; read that code"):
        load_cell(folder)
    with pytest.raises(LoadError, match=f"the run folder that trained the cell has a copy, runs/<grid>/plugins/{copy.name}"):
        load_cell(tmp_path / "away")
    loaded = load_cell(tmp_path / "away", plugin=copy)
    with torch.no_grad():
        assert torch.equal(loaded.network(IMAGES), network(IMAGES))


def test_another_plug_in_than_the_cells_is_refused(tmp_path: Path) -> None:
    write_copy(load_plugin_file(written(tmp_path, MODEL)), tmp_path / "plugins")
    write_cell(tmp_path / "a", make_cell(model=ModelSpec(name="outside_net", label="outside_net")))
    forget_rows()
    other = write_copy(load_plugin_file(written(tmp_path, MODEL.replace("nn.ReLU", "nn.GELU"), "other.py")), tmp_path / "plugins")
    with pytest.raises(LoadError, match="outside_net is of the plug-in plugin.py"):
        load_cell(tmp_path / "a")
    with pytest.raises(LoadError, match="other.py is not the plug-in"):
        load_cell(tmp_path / "a", plugin=other)


def test_a_plug_in_for_a_model_of_ours_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="leave out plugin"):
        load_cell(folder, plugin=tmp_path)


# a run that was trained


@pytest.mark.slow
def test_the_cells_of_a_run_give_their_recorded_accuracy_from_plain_images(honest: Path) -> None:
    from jobs.data.sources import reader_of

    for path in RunFolder(honest).record_paths():
        record = read_record(path)
        cell = load_cell(path.parent, scan="reference")
        test = reader_of("synthetic").read(DataSpec(source="synthetic", samples=60, classes=2), 32).test
        images = torch.cat([cell.preprocess(Image.fromarray(test.image(number))) for number in range(len(test.labels))])
        with torch.no_grad():
            hits = cell.network(images).argmax(1) == torch.from_numpy(test.labels)
        assert record.metrics is not None and 100 * float(hits.double().mean()) == pytest.approx(record.metrics.top1)
        assert (path.parent / "README.md").read_text().startswith("---\nlibrary_name: vssm-bench\n")
