"""From a file to rows, and from a copy in a run folder to the same rows."""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from models.plugins.content import PluginError
from models.plugins.loading import DESCRIPTION, load_copy, load_file, read_copy, write_copy
from models.plugins.tables import forget_rows, origin
from models.pruning.registry import METHODS
from models.registry import MODELS, OptionError, create_model, model_config, model_label
from tests.support.plugins import METHOD, MODEL, own_tables, written  # noqa: F401


def refusal(path: Path) -> str:
    with pytest.raises(PluginError) as refused:
        load_file(path)
    return str(refused.value).removeprefix(f"{path.parent}/")


def test_a_file_adds_its_rows_which_work_as_ours_do(tmp_path: Path) -> None:
    plugin = load_file(written(tmp_path, MODEL + METHOD)).plugin
    assert origin("models", "outside_net") == origin("pruning", "outside") == plugin and plugin.name == "plugin.py"
    assert sum(p.numel() for p in create_model("outside_net", 10, 32, width=4).parameters()) == 3072 * 4 + 4 + 50
    assert model_label("outside_net", {"width": 4}) == "outside_net(width=4)"
    with pytest.raises(OptionError, match="outside_net: widht: unknown field; did you mean 'width'"):
        model_config("outside_net", {"widht": 4})
    with pytest.raises(OptionError, match="width must be at most 64"):
        model_config("outside_net", {"width": 65})


def test_a_file_can_be_loaded_again_and_moved(tmp_path: Path) -> None:
    first = load_file(written(tmp_path, MODEL)).plugin
    second = load_file(written(tmp_path, MODEL, "moved.py")).plugin
    assert first.sha256 == second.sha256 and origin("models", "outside_net") is second


def test_a_package_imports_its_own_files(tmp_path: Path) -> None:
    written(tmp_path, MODEL, "mine/nets.py")
    folder = written(tmp_path, "from .nets import MODELS\n", "mine/__init__.py").parent
    assert load_file(folder).plugin.name == "mine" and "outside_net" in MODELS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "plugin.py: it adds nothing: a plug-in has one or more dictionaries of its own: MODELS, METHODS"),
        ("MODEL = {'a': 1}\n", "did you mean 'MODELS'?"),
        ("MODELS = {}\n", "it adds nothing"),
        ("MODELS = ['a']\n", "plugin.py: MODELS must be a dictionary from names to rows, got a value of type list"),
        ("\nMODELS = {\n    'a':\n    1}\n", "plugin.py:3: MODELS['a']: expected a models.registry.ModelEntry, got a value of type int"),
        ("x = 1\nMETHODS = dict(a=x)\n", "plugin.py:2: METHODS['a']: expected a class that inherits"),
        ("from models.registry import MODELS\n", "plugin.py: it adds nothing: a plug-in has one or more dictionaries of its own"),
        ("from models.registry import MODELS\nMODELS['a'] = MODELS['vim_micro']\n", "changes the table MODELS of vssm-bench itself"),
        ("import models.registry as r\nMODELS = {'vim_tiny': r.MODELS['vim_micro']}\n", "plugin.py:2: MODELS['vim_tiny']: the name is taken"),
    ],
)
def test_a_plug_in_that_adds_no_row_is_refused(tmp_path: Path, text: str, message: str) -> None:
    before = dict(MODELS)
    assert message in refusal(written(tmp_path, text))
    assert before == MODELS


def test_a_copy_is_the_plug_in_whatever_becomes_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, MODEL)
    loaded = load_file(path)
    folder = write_copy(loaded, tmp_path / "plugins")
    assert folder.name == loaded.plugin.sha256[:12] and sorted(file.name for file in folder.iterdir()) == [DESCRIPTION, "plugin.py"]
    path.unlink()
    forget_rows()
    assert load_copy(folder, loaded.plugin.sha256).name == "plugin.py" and "outside_net" in MODELS
    assert [file.name for file in (tmp_path / "plugins").iterdir()] == [folder.name], "nothing is left beside"


def test_a_copy_that_was_changed_is_refused_by_name_and_written_anew_by_a_launch(tmp_path: Path) -> None:
    loaded = load_file(written(tmp_path, MODEL))
    folder = write_copy(loaded, tmp_path / "plugins")
    (folder / "plugin.py").write_text(MODEL.replace("8", "9"))
    with pytest.raises(PluginError, match="is not the plug-in plugin.py that was launched: it was changed. Launch the grid again"):
        load_copy(folder, loaded.plugin.sha256)
    write_copy(loaded, tmp_path / "plugins")
    assert read_copy(folder, loaded.plugin.sha256).files == loaded.files


@pytest.mark.parametrize("description", [None, "", "{}", '{"name": 1, "module": "x", "file": "y", "rows": [1]}'])
def test_a_copy_that_is_damaged_or_gone_is_refused(tmp_path: Path, description: str | None) -> None:
    loaded = load_file(written(tmp_path, MODEL))
    folder = write_copy(loaded, tmp_path / "plugins")
    (folder / DESCRIPTION).unlink() if description is None else (folder / DESCRIPTION).write_text(description)
    with pytest.raises(PluginError, match="cannot be read .* launch the grid again to write it anew"):
        load_copy(folder, loaded.plugin.sha256)


def test_half_a_copy_of_a_killed_launch_is_replaced(tmp_path: Path) -> None:
    loaded = load_file(written(tmp_path, MODEL))
    folder = tmp_path / "plugins" / loaded.plugin.sha256[:12]
    folder.mkdir(parents=True)
    (folder / "plugin.py").write_text("half")
    write_copy(loaded, tmp_path / "plugins")
    assert json.loads((folder / DESCRIPTION).read_bytes())["sha256"] == loaded.plugin.sha256
    load_copy(folder, loaded.plugin.sha256)


def test_two_contents_of_one_plug_in_live_in_one_process(tmp_path: Path) -> None:
    old = load_file(written(tmp_path, METHOD))
    first = METHODS["outside"]()
    forget_rows()
    load_file(written(tmp_path, METHOD.replace("0.5", "0.75")))
    assert METHODS["outside"]().strength == 0.75 and first.strength == 0.5
    assert old.plugin.module == type(first).__module__


def test_an_object_of_a_plug_in_is_unpickled_in_a_process_that_has_loaded_the_copy(tmp_path: Path) -> None:
    loaded = load_file(written(tmp_path, METHOD))
    folder = write_copy(loaded, tmp_path / "plugins")
    content = pickle.dumps(dataclasses.replace(METHODS["outside"](), strength=0.25))
    code = f"""
import pickle
from pathlib import Path
from models.plugins.loading import load_copy
load_copy(Path({str(folder)!r}), {loaded.plugin.sha256!r})
print(pickle.loads({content!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Outside(strength=0.25)\n"
