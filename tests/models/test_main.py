"""`python -m models`: the table of models."""

import json
from pathlib import Path

import pytest

from models.__main__ import COLUMNS, entries, main, row
from models.plugins.tables import forget_rows
from models.registry import MODELS
from tests.support import plugins


def test_every_model_has_a_row_and_variants_load_no_official_weights() -> None:
    assert {name for name, _ in entries()} == set(MODELS)
    assert row("vim_micro", {}).startswith("| vim_micro | 32 | 146,570 |") and row("vim_micro", {}).endswith("| no |")
    assert row("vim_tiny", {}).endswith("| yes |") and row("vim_tiny", {"se": {}}).endswith("| no |")


def test_the_command_prints_a_markdown_table_with_a_line_for_each_entry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("models.__main__.entries", lambda: iter([("vim_micro", {}), ("vim_micro", {"se": {}})]))
    assert main([]) == 0
    heading, rule, *lines = capsys.readouterr().out.splitlines()
    assert heading == "| " + " | ".join(COLUMNS) + " |" and rule == "|---|---:|---:|---:|---:|---|"
    assert lines == [row("vim_micro", {}), row("vim_micro", {"se": {}})]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The first cells of the rows that a command prints."""
    assert main(arguments) == 0
    return [line.split(" | ")[0].removeprefix("| ") for line in capsys.readouterr().out.splitlines()[2:]]


def test_rows_are_filtered_by_family_size_pixels_option_and_official_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--family", "vim", "--size", "micro", "--option", "none") == ["vim_micro"]
    assert printed(capsys, "--pixels", "32", "--option", "scan") == ["vim_micro(scan=h-h_flip-w2-w2_flip)"]
    assert printed(capsys, "--official", "--family", "vim", "--size", "stride8") == ["vim_tiny_stride8", "vim_small_stride8"]


def test_rows_are_printed_for_scripts_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--family", "vit", "--pixels", "32", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["model"], row["family"], row["parameters"], row["official"]) == ("vit_micro", "vit", 208_074, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "vsd"], "unknown family 'vsd'; did you mean 'vssd'?"),
        (["--size", "huge"], "no row is like that; sizes: 32, b, base"),
        (["flops", "vim_tny"], "unknown model 'vim_tny'; did you mean 'vim_tiny'?"),
        (["flops", "vim_tiny", "--img-size", "0"], "--img-size must be 1 or more, not 0"),
        (["flops", "none.safetensors"], "there is no file none.safetensors"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith(message)


def test_flops_prints_one_network_and_its_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flops", "vim_micro", "--per-layer", "--img-size", "16"]) == 0
    assert "one image of 16 x 16 pixels" in (text := capsys.readouterr().out) and "layers.3.mixer.in_proj" in text
    assert main(["flops", "vim_micro", "--json", "--classes", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == 3


def test_models_of_plug_ins_are_listed_and_counted_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = plugins.written(tmp_path, plugins.MODEL)
    assert printed(capsys, "--family", "outside", "--plugins", str(plugin)) == ["outside_net"]
    assert main(["flops", "outside_net", "--set", "width=4", "--plugins", str(plugin)]) == 0
    assert "12,342" in capsys.readouterr().out, "3072 x 4 + 4 + 4 x 10 + 10 parameters"
    assert main(["--plugins", str(tmp_path / "plugni.py")]) == 1
    assert "did you mean 'plugin.py'?" in capsys.readouterr().err
    forget_rows()


FAULTY = {
    "build": ("return nn.Seq", "config.depth\n    return nn.Seq", "AttributeError: 'Config' object has no attribute 'depth'"),
    "forward": ("return nn.Sequential(", "return Broken(", "RuntimeError: no such thing"),
    "value": ("return nn.Seq", "raise ValueError('never')\n    return nn.Seq", "ValueError: never"),
}
BROKEN = """
from torch import nn

class Broken(nn.Sequential):
    def forward(self, images):
        raise RuntimeError("no such thing")
"""


@pytest.mark.parametrize("name", FAULTY)
def test_an_error_in_a_plug_ins_network_names_its_file_and_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, message = FAULTY[name]
    plugin = plugins.written(tmp_path, plugins.MODEL.replace(old, new) + BROKEN)
    for words in (["flops", "outside_net"], ["--family", "outside"]):
        assert main([*words, "--plugins", str(plugin)]) == 1
        said = capsys.readouterr().err
        line = int(said.removeprefix(f"{plugin}:").partition(":")[0])
        assert said == f"{plugin}:{line}: {message}\n" and len(plugin.read_text().splitlines()) >= line > 10
    forget_rows()
