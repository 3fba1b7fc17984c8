"""Plug-ins in ids, records and pickled jobs."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.experiment.cell import Cell
from jobs.experiment.identity import data_identity, method_identity, model_identity, result_settings
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.plugins import (
    PARTS,
    PluginCopy,
    check_plugins,
    copies_for,
    copy_in,
    digests_of,
    load_copies,
    loaded_copy,
    names_in,
    source_problem,
    without_plugin,
)
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.sources import SOURCES, SourceEntry
from jobs.experiment.specs import ClusterSpec, DataSpec, ModelSpec
from models.plugins.loading import Loaded, load_file, write_copy
from models.plugins.tables import TABLES, forget_rows
from models.pruning.chain import Chain
from models.pruning.registry import METHODS, create_method
from tests.support.cells import make_cell
from tests.support.plugins import METHOD, MODEL, SOURCE, own_tables, written  # noqa: F401

NET = ModelSpec(name="outside_net", label="outside_net")


def loaded(folder: Path, text: str = MODEL + METHOD + SOURCE) -> Loaded:
    return load_file(written(folder, text))


def cell_of(**parts: Any) -> Cell:
    return Cell.from_json(make_cell(**parts).to_json())


def test_the_content_enters_the_identity_of_each_row_of_a_plug_in_and_of_no_other(tmp_path: Path) -> None:
    ours = make_cell()
    sha256 = loaded(tmp_path).plugin.sha256[:12]
    assert model_identity(NET)["plugin_sha256"] == sha256
    assert method_identity(METHODS["outside"]())["plugin_sha256"] == sha256
    assert data_identity(DataSpec(source="grey"))["plugin_sha256"] == sha256
    assert cell_of().id == ours.id, "a cell of our rows keeps its id beside a plug-in"


def test_each_part_gives_a_cell_of_its_own_and_the_name_of_the_file_none(tmp_path: Path) -> None:
    def ids(text: str, name: str) -> list[str]:
        forget_rows()
        load_file(written(tmp_path, text, name))
        return [cell_of(model=NET).id, cell_of(method=METHODS["outside"]()).id, cell_of(data=DataSpec(source="grey")).id]

    first, renamed = ids(MODEL + METHOD + SOURCE, "a.py"), ids(MODEL + METHOD + SOURCE, "b.py")
    edited = ids(MODEL + METHOD + SOURCE + "# edited\n", "a.py")
    assert first == renamed and not set(first) & set(edited) and len({*first, make_cell().id}) == 4


def test_a_record_says_which_plug_in_and_only_its_content_decides(tmp_path: Path) -> None:
    plugin = loaded(tmp_path).plugin
    spec: Any = cell_of(model=NET, method=METHODS["outside"](), data=DataSpec(source="grey")).to_json()
    assert all((spec[part]["plugin"], spec[part]["plugin_sha256"]) == ("plugin.py", plugin.sha256) for part in PARTS)
    assert digests_of(spec) == [plugin.sha256] and "plugin" not in without_plugin(spec["data"])
    renamed = {**spec, **{part: spec[part] | {"plugin": "b.py"} for part in PARTS}}
    other = {**spec, "model": spec["model"] | {"plugin_sha256": "0" * 64}}
    assert result_settings(renamed) == result_settings(spec) != result_settings(other)
    assert digests_of(make_cell().to_json()) == []


def test_a_cell_needs_the_very_content_that_it_was_run_with(tmp_path: Path) -> None:
    loaded(tmp_path)
    spec = cell_of(model=NET).to_json()
    forget_rows()
    with pytest.raises(ValueError, match=r"model 'outside_net' is of the plug-in plugin\.py \(\w{12}\), and no plug-in has it here"):
        check_plugins(spec)
    load_file(written(tmp_path, MODEL + "# edited\n"))
    with pytest.raises(ValueError, match=r"is of the plug-in plugin\.py \(\w{12}\), and the plug-in plugin\.py \(\w{12}\) has it here"):
        Cell.from_json(spec)


def test_a_job_loads_its_plug_ins_before_the_methods_that_need_them(tmp_path: Path) -> None:
    plugin = loaded(tmp_path)
    run = RunFolder(tmp_path / "run")
    write_copy(plugin, run.plugins_dir)
    cell = cell_of(model=NET, method=METHODS["outside"](), data=DataSpec(source="grey"))
    copies = tuple(copies_for(run, cell.to_json()))
    assert copies == (copy_in(run, plugin.plugin.sha256),)
    job = JobSpec(plugins=copies, run=str(run.path), grid="g", stages=(), cells=(PlannedCell(cell=cell, stages=()),), cluster=ClusterSpec())
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    (tmp_path / "plugin.py").unlink()
    code = "import pickle, sys; job = pickle.load(open(sys.argv[1], 'rb')); print(job.cells[0].cell.method, job.cells[0].cell.id)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "job")], capture_output=True, text=True, check=True)
    assert done.stdout == f"Outside(strength=0.5) {cell.id}\n"


def test_a_copy_unpickles_to_itself(tmp_path: Path) -> None:
    plugin = loaded(tmp_path)
    folder = write_copy(plugin, tmp_path / "plugins")
    copy = PluginCopy(folder=str(folder), sha256=plugin.plugin.sha256)
    assert pickle.loads(pickle.dumps(copy)) == loaded_copy(copy.folder, copy.sha256) == copy


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "expected a jobs.experiment.sources.SourceEntry, got a value of type int"),
        ({"img_size": 0}, "img_size must be a whole number of pixels, got 0"),
        ({"reader": print}, "reader must be a jobs.data.content.Reader with the functions problems, identity and read; it has no problems"),
        ({"mean": (0.5, 0.5)}, "mean and std must be three numbers each, std above 0, got (0.5, 0.5)"),
        ({"std": (0.5, 0.5, 0)}, "mean and std must be three numbers each, std above 0"),
        ({"path": "needed"}, "path must be True (needed), False (refused) or None (taken), got 'needed'"),
    ],
)
def test_a_source_that_is_none_is_refused(tmp_path: Path, entry: Any, message: str) -> None:
    loaded(tmp_path)
    assert source_problem("grey", SOURCES["grey"]) is None
    given = SourceEntry(**{**vars(SOURCES["grey"]), **entry}) if isinstance(entry, dict) else entry
    assert str(source_problem("grey", given)).startswith(message)


def test_all_three_tables_can_be_added_to() -> None:
    assert list(TABLES) == [table for table, _ in PARTS.values()] == ["models", "pruning", "data"]
    assert create_method("dense").name == "dense"


def test_each_method_of_a_chain_has_its_plug_in(tmp_path: Path) -> None:
    plugin = loaded(tmp_path).plugin
    cell = cell_of(method=Chain(methods=(METHODS["outside"](), create_method("magnitude", sparsity=0.9))))
    spec: Any = cell.to_json()
    first, second = spec["pruning"]["knobs"]["methods"]
    assert (first["plugin_sha256"], "plugin" in second, "plugin" in spec["pruning"]) == (plugin.sha256, False, False)
    assert digests_of(spec) == [plugin.sha256] and Cell.from_json(spec) == cell
    renamed = {**spec, "pruning": {**spec["pruning"], "knobs": {**spec["pruning"]["knobs"], "methods": [first | {"plugin": "b.py"}, second]}}}
    assert result_settings(renamed) == result_settings(spec)
    forget_rows()
    with pytest.raises(ValueError, match=r"pruning method 'outside' is of the plug-in plugin\.py"):
        Cell.from_json(spec)
    load_file(written(tmp_path, METHOD + "# edited\n"))
    assert make_cell(method=Chain(methods=(METHODS["outside"](), create_method("magnitude", sparsity=0.9)))).id != cell.id


def test_the_copies_of_a_cell_are_loaded_and_no_others(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    write_copy(loaded(tmp_path, MODEL), run.plugins_dir)
    spec = cell_of(model=NET).to_json()
    forget_rows()
    load_file(written(tmp_path, METHOD))
    load_copies(run, spec)
    assert Cell.from_json(spec).model.name == "outside_net" and "outside" not in METHODS
    assert names_in(spec) == ["plugin.py"] and names_in(make_cell().to_json()) == []
