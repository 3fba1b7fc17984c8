"""docs/plugins.md: its grid and its three plug-ins run as they are printed, from an empty folder, with the package installed as a wheel."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.check import main as check
from harness.reproduce import REPRODUCED
from harness.reproduce import main as reproduce
from jobs.experiment.records import Record
from jobs.experiment.run_folder import RunFolder
from tests.support.plugins import own_tables  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/plugins.md").read_text()
FLOORS = ("harness", "jobs", "models", "analysis")
QUICK = "cluster: {kind: local, stages_per_job: 8, max_parallel: 1, profile_s: 0.001, profile_batch: 2, cache: cache}"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package. It is built without a compiler; the libraries that this tree has built are put in."""
    folder = tmp_path_factory.mktemp("wheel")
    for floor in FLOORS:
        shutil.copytree(ROOT / floor, folder / "source" / floor, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, folder / "source")
    offline = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", folder / "site", folder / "source"]
    subprocess.run(command, env=os.environ | {"CC": "false", "CXX": "false"}, check=True, capture_output=True)
    for library in [path for floor in FLOORS for path in (ROOT / floor).rglob("*.so")]:
        shutil.copy(library, folder / "site" / library.relative_to(ROOT))
    return folder / "site"


@pytest.fixture(scope="module")
def folder(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the page's grid was launched, and nothing else was before."""
    folder = tmp_path_factory.mktemp("empty")
    plugins = re.findall(r'^```python\n("""(my_\w+\.py): .*?)^```', PAGE, re.S | re.M)
    assert [name for _, name in plugins] == ["my_models.py", "my_methods.py", "my_data.py"]
    for text, name in plugins:
        (folder / name).write_text(text)
    grid = re.search(r"^```yaml\n(.*?)^```", PAGE, re.S | re.M)
    assert grid
    (folder / "grid.yaml").write_text(re.sub(r"^cluster: .*$", QUICK, grid[1], flags=re.M))
    write_images(folder / "images.npz")
    surroundings = os.environ | {"PYTHONPATH": str(site)}
    code = "import harness, runpy, sys; print(harness.__file__, file=sys.stderr); runpy.run_module('harness.launch', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, "grid.yaml"], cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.startswith(f"{site}/harness/__init__.py"), "what ran is the installed package"
    return folder


def write_images(path: Path) -> None:
    """Noise that is brighter in the second of two classes."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 96), ("test", 16)):
        labels = np.arange(count) // 2 % 2
        images = random.integers(0, 100, (count, 32, 32, 3)) + 100 * labels[:, None, None, None]
        arrays |= {f"{part}_labels": labels, f"{part}_images": images.astype(np.uint8)}
    np.savez(path, **arrays)


def records(folder: Path) -> dict[tuple[str, str], Record]:
    run = RunFolder(folder / "runs" / "outside")
    every = [run.record(path.parent.name) for path in run.record_paths()]
    return {(record.model, record.pruning): record for record in every if record}


def test_every_cell_has_a_record_with_numbers_as_those_of_our_rows_have(folder: Path) -> None:
    done = records(folder)
    assert set(done) == {(model, method) for model in ("vim_micro", "small_cnn(width=16)") for method in ("dense", "balanced(0.5)")}
    assert {record.status for record in done.values()} == {"done"}
    dense, pruned = (done["small_cnn(width=16)", method].metrics for method in ("dense", "balanced(0.5)"))
    assert dense and pruned
    assert dense.params == 9 * (3 * 16 + 2 * 16 * 16) + 3 * 2 * 16 + 2 * 16 + 2  # three convolutions, their norms, the head
    assert pruned.params_nonzero == dense.params - 16 * 14 - 32 * 72 - 2 * 8  # half of 27, 144 and 16 weights of each neuron
    assert dense.macs == 32 * 32 * 9 * 3 * 16 + (16 * 16 + 8 * 8) * 9 * 16 * 16 + 2 * 16
    assert dense.throughput_img_per_s > 0 and pruned.speedup_measured


def test_records_and_ids_name_the_plug_ins_of_the_rows_that_they_use(folder: Path) -> None:
    done = records(folder)
    spec = done["small_cnn(width=16)", "balanced(0.5)"].spec
    assert [spec[part]["plugin"] for part in ("model", "pruning", "data")] == ["my_models.py", "my_methods.py", "my_data.py"]
    ours = done["vim_micro", "dense"].spec
    assert "plugin" not in ours["model"] and "plugin" not in ours["pruning"]
    copies = {path.name for path in (folder / "runs" / "outside" / "plugins").iterdir()}
    assert copies == {spec[part]["plugin_sha256"][:12] for part in ("model", "pruning", "data")}


def test_a_cell_is_reproduced_from_the_copies_once_the_files_are_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = records(folder)["small_cnn(width=16)", "balanced(0.5)"].id
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    for file in folder.glob("my_*.py"):
        file.unlink()
    assert reproduce([cell]) == REPRODUCED


def test_the_run_is_checked_with_its_plug_ins_only_if_their_code_may_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(folder / "runs" / "outside")
    check([run])
    assert "it uses my_data.py, a plug-in, whose copy in the folder runs only with --plugins" in " ".join(capsys.readouterr().out.split())
    check([run, "--plugins", "--json"])
    rules = {rule["rule"]: rule for rule in json.loads(capsys.readouterr().out)["rules"]}
    assert [rules[number]["state"] for number in (2, 6, 7)] == ["holds"] * 3
