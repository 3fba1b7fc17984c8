"""Rows that plug-ins add to the tables."""

from pathlib import Path

import pytest

from models.plugins.content import PluginError
from models.plugins.tables import TABLES, Plugin, add_rows, forget_rows, origin, rows_of, unchanged_tables
from models.pruning.registry import METHODS, create_method
from models.registry import MODELS
from tests.support.plugins import own_tables  # noqa: F401

MINE = Plugin(name="mine.py", module="mine", path=Path("mine.py"), sha256="1" * 64)
OTHER = Plugin(name="other.py", module="other", path=Path("other.py"), sha256="2" * 64)
VIM = MODELS["vim_micro"]


def add(plugin: Plugin, **rows: object) -> None:
    add_rows(plugin, {"models": rows}, lambda table, name: f"{plugin.name}:7")


def test_a_row_is_there_until_it_is_forgotten_and_its_plug_in_is_known() -> None:
    before = dict(MODELS)
    add(MINE, net=VIM, net2=VIM)
    assert MODELS["net"] is VIM and origin("models", "net") is MINE and origin("models", "vim_micro") is None and origin("pruning", "net") is None
    assert rows_of(MINE) == ["model net", "model net2"] and rows_of(OTHER) == []
    forget_rows()
    assert before == MODELS and origin("models", "net") is None


def test_a_name_that_is_taken_is_refused_and_nothing_is_added() -> None:
    with pytest.raises(PluginError, match=r"^mine\.py:7: MODELS\['vim_micro'\]: the name is taken: vssm-bench has a model 'vim_micro'"):
        add(MINE, net=VIM, vim_micro=VIM)
    assert "net" not in MODELS
    add(MINE, net=VIM)
    with pytest.raises(PluginError, match=r"the name is taken: mine\.py has a model 'net'"):
        add(OTHER, net=VIM)
    add(MINE, net=VIM)  # the same content again


@pytest.mark.parametrize("name", ["", "a b", "a+se", "a(1)", "timm/x", "ä", 3, "a\n"])
def test_a_name_that_labels_could_not_show_is_refused(name: object) -> None:
    with pytest.raises(PluginError, match="a name has letters, digits"):
        add_rows(MINE, {"models": {name: VIM}}, lambda table, row: "mine.py")  # type: ignore[dict-item]


def test_a_row_whose_own_code_fails_is_refused_by_the_kind_of_its_error() -> None:
    class Meta(type):
        @property
        def name(cls) -> str:
            raise RuntimeError("not today")

    from dataclasses import dataclass

    from models.pruning.base import PruningMethod

    method = dataclass(frozen=True, kw_only=True)(Meta("Odd", (PruningMethod,), {}))
    with pytest.raises(PluginError, match="RuntimeError: not today"):
        add_rows(MINE, {"pruning": {"odd": method}}, lambda table, name: "mine.py:1")


def test_a_change_to_a_table_itself_is_undone_and_refused() -> None:
    before = dict(METHODS)
    with pytest.raises(PluginError, match=r"changes the table METHODS of vssm-bench itself; write a dictionary METHODS = \{\.\.\.\} of its own"):
        with unchanged_tables("mine.py"):
            METHODS["mine"] = METHODS.pop("magnitude")
    assert list(before) == list(METHODS) and create_method("magnitude", sparsity=0.5)
    with pytest.raises(KeyError):
        with unchanged_tables("mine.py"):
            TABLES["models"].rows["net"] = VIM
            raise KeyError
    assert "net" not in MODELS
