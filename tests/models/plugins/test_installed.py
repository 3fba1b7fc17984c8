"""Rows of installed packages: entry points in the metadata of a distribution."""

import sys
from pathlib import Path

import pytest

from models.plugins import installed
from models.plugins.content import PluginError
from models.plugins.installed import installed_names, installed_rows, package_path, package_with
from models.plugins.loading import load_copy, load_installed, write_copy
from models.plugins.modules import forget_module
from models.plugins.tables import forget_rows, origin
from models.pruning.base import Budget
from models.pruning.registry import METHODS, create_method
from models.registry import MODELS, create_model
from tests.support.plugins import METHOD, MODEL, own_tables, written  # noqa: F401

NETS = MODEL.replace("MODELS = {", "ROWS = {") + 'NET = ROWS["outside_net"]\n'
POINTS = "[vssm_bench.models]\noutside_net = outside_pkg.nets:NET\n[vssm_bench.pruning]\noutside = outside_pkg:Outside\n[other]\nx = y:z\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder of installed packages, on Python's path."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    installed_rows.cache_clear()
    yield tmp_path / "site"
    forget_module("outside_pkg")
    installed_rows.cache_clear()


def install(site: Path, points: str = POINTS, name: str = "outside-nets") -> None:
    written(site, f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", f"{name.replace('-', '_')}-1.2.dist-info/METADATA")
    written(site, points, f"{name.replace('-', '_')}-1.2.dist-info/entry_points.txt")
    written(site, "from outside_pkg.method import Outside\n", "outside_pkg/__init__.py")
    written(site, METHOD, "outside_pkg/method.py")
    written(site, NETS, "outside_pkg/nets.py")


def test_the_rows_that_metadata_name_are_known_without_an_import(site: Path) -> None:
    install(site)
    assert installed_names("models") == ["outside_net"] and installed_names("data") == []
    assert package_with("pruning", "outside") == "outside_pkg" and package_with("models", "outside") is None
    assert package_path("outside_pkg") == site / "outside_pkg" and "outside_pkg" not in sys.modules


def test_a_package_adds_every_row_that_its_metadata_name(site: Path) -> None:
    install(site)
    plugin = load_installed("outside_pkg").plugin
    assert plugin.name == "outside-nets 1.2" and origin("models", "outside_net") == origin("pruning", "outside") == plugin
    assert METHODS["outside"].__module__ == "outside_pkg.method" and "outside_net" in MODELS


def test_the_copy_takes_the_place_of_the_installation_even_once_that_is_gone(site: Path, tmp_path: Path) -> None:
    install(site)
    loaded = load_installed("outside_pkg")
    folder = write_copy(loaded, tmp_path / "plugins")
    written(site, "raise RuntimeError('the installation')\n", "outside_pkg/__init__.py")
    forget_rows()
    forget_module("outside_pkg")
    assert load_copy(folder, loaded.plugin.sha256).rows == loaded.plugin.rows
    assert str(folder) in str(sys.modules["outside_pkg.method"].__file__) and "outside" in METHODS


def test_what_the_metadata_say_is_part_of_the_identity(site: Path) -> None:
    install(site)
    first = load_installed("outside_pkg").plugin
    forget_rows()
    installed_rows.cache_clear()
    install(site, POINTS.replace("outside_net =", "another_net ="))
    assert load_installed("outside_pkg").plugin.sha256 != first.sha256 and "another_net" in MODELS


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("[vssm_bench.models]\na = outside_pkg.nets:NOTHING\n", "outside-nets 1.2: its entry point a = outside_pkg.nets:NOTHING names nothing"),
        ("[vssm_bench.models]\na = outside_pkg.nowhere:X\n", "ModuleNotFoundError: No module named 'outside_pkg.nowhere'"),
        ("[vssm_bench.model]\na = outside_pkg.nets:NET\n", "unknown group of entry points 'vssm_bench.model'; did you mean 'models'?"),
        ("[vssm_bench.models]\na = outside_pkg:Outside\n", "expected a models.registry.ModelEntry, got the class Outside"),
        ("[vssm_bench.models]\nvim_tiny = outside_pkg.nets:NET\n", "the name is taken: vssm-bench has a model 'vim_tiny'"),
    ],
)
def test_metadata_that_name_no_row_are_refused(site: Path, points: str, message: str) -> None:
    install(site, points)
    with pytest.raises(PluginError) as refused:
        load_installed("outside_pkg")
    assert message in str(refused.value)


def test_two_packages_with_one_row_are_both_named(site: Path) -> None:
    install(site)
    written(site, "Metadata-Version: 2.1\nName: copy\nVersion: 3\n", "copy-3.dist-info/METADATA")
    written(site, "[vssm_bench.models]\noutside_net = copied:NET\n", "copy-3.dist-info/entry_points.txt")
    with pytest.raises(PluginError, match=r"copy 3 and outside-nets 1\.2 both have a row 'outside_net' of vssm_bench\.models"):
        package_with("models", "outside_net")


def test_a_package_that_is_gone_or_has_no_init_is_named(site: Path) -> None:
    (site / "spread").mkdir(parents=True)
    with pytest.raises(PluginError, match="spread has no __init__.py"):
        package_path("spread")
    with pytest.raises(PluginError, match="no_such_pkg is named by its metadata and cannot be imported"):
        package_path("no_such_pkg")


def test_nothing_is_looked_up_at_import() -> None:
    assert "importlib.metadata" not in vars(installed)


def test_a_row_of_an_installed_package_can_be_made_from_python(site: Path) -> None:
    install(site)
    assert sum(p.numel() for p in create_model("outside_net", 10, width=4).parameters()) == 3072 * 4 + 4 + 50
    assert create_method("outside", strength=0.25).stages(Budget(epochs=1, finetune_epochs=1))[1].name == "finetune"
    forget_rows()
    installed_rows.cache_clear()
    (site / "outside_nets-1.2.dist-info" / "entry_points.txt").unlink()
    with pytest.raises(ValueError, match="unknown model 'outside_net'"):
        create_model("outside_net", 10)


@pytest.mark.parametrize("package", ["models", "torch"])
def test_a_package_that_we_use_ourselves_is_no_plug_in(site: Path, package: str) -> None:
    install(site, f"[vssm_bench.models]\na = {package}.registry:x\n")
    before = sys.modules[package]
    with pytest.raises(PluginError, match=f"the package {package} is in use already|{package} is too large"):
        load_installed(package)
    assert sys.modules[package] is before
