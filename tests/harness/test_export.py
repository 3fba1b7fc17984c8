"""Networks leave as graphs, and the graphs compute what the networks do."""

from pathlib import Path

import pytest
import torch

from harness.export import ONNX_PACKAGES, ExportError, check_onnx, export, main, program_of
from harness.load import load_cell
from jobs.experiment.specs import ModelSpec
from models.blocks import blocks_of
from models.pruning.structure import Structure, find_groups, restructure
from models.registry import create_model
from models.token_merging import Merging
from tests.support.cell_folders import write_cell
from tests.support.cells import make_cell
from tests.support.removal import moved

VIM = {"dim": 8, "depth": 1, "patch_size": 16}
FAMILIES = {
    "vim": ("vim_micro", VIM),
    "mambavision": ("mambavision_micro", {"dim": 8, "in_dim": 8, "depths": [1, 1, 2, 1]}),
    "vmamba": ("vmamba_micro", {"dim": 8, "depths": [1, 1, 1, 1]}),
    "vssd": ("vssd_micro_32", {"dim": 8, "depths": [1, 1, 1, 1], "heads": [1, 1, 1, 1]}),
    "vit": ("vit_micro", {"dim": 16, "depth": 1}),
    "mambaout": ("mambaout_micro", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}),
}
# Blocks that the tests do without: others of their kind are left.
FURTHER = {"mambavision_micro": slice(-1, None), "vmamba_micro": slice(1, None), "vssd_micro_32": slice(1, -1)}
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def pruned(model: str, **options: object) -> torch.nn.Module:
    """A network without half of the units of its first group and, if that saves time, without further blocks, and with zeros in its head."""
    network = moved(create_model(model, 10, 32, scan_backend="reference", **options))  # a fresh network gives nearly the same without its scans
    groups, blocks = find_groups(network, 32), blocks_of(network)[FURTHER.get(model, slice(0))]
    kept = {group.name: list(range(group.count // 2)) for group in groups[:1]}
    restructure(network, Structure(kept=kept, counts={group.name: group.count for group in groups[:1]}, blocks=blocks), 32, groups)
    for name, parameter in network.named_parameters():
        if "head" in name or "fc" in name:
            parameter.data.view(-1)[::2] = 0
    return network.eval()


def same_logits(network: torch.nn.Module) -> None:
    """Asserts that the graph gives the network's logits for another number of images than it was made with."""
    program = program_of(network, IMAGES[:2])
    with torch.no_grad():
        torch.testing.assert_close(program.module()(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_network_of_every_family_is_followed(family: str) -> None:
    name, options = FAMILIES[family]
    same_logits(pruned(name, **options))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"s4": True}, {"s5": True}], ids=str)
def test_variants_are_followed(options: dict[str, object]) -> None:
    same_logits(pruned("vim_micro", **VIM, **options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a Vim whose tokens merge."""
    merging = Structure(kept={}, counts={}, merging=Merging(tokens={0: (3, 4)}))
    write_cell(tmp_path / "a", make_cell(model=ModelSpec(name="vim_micro", label="vim", options=VIM)), structure=merging)
    return tmp_path / "a"


@pytest.mark.slow
def test_the_command_writes_a_graph_that_torch_reads(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), str(tmp_path / "vim.pt2")]) == 0
    assert "equal to the cell's network" in capsys.readouterr().out
    logits = torch.export.load(tmp_path / "vim.pt2").module()(IMAGES)
    torch.testing.assert_close(logits, load_cell(folder, scan="reference").network(IMAGES))


@pytest.fixture
def onnx() -> None:
    """Skips a test where the packages are not installed."""
    for package in ONNX_PACKAGES:
        pytest.importorskip(package)


@pytest.mark.slow
@pytest.mark.usefixtures("onnx")
def test_the_command_writes_onnx_that_onnx_runtime_reads(tmp_path: Path) -> None:
    masks = {"head.weight": torch.arange(80).reshape(10, 8) % 2 == 0}
    write_cell(tmp_path / "a", make_cell(model=ModelSpec(name="vim_micro", label="vim", options=VIM)), masks=masks)
    done = export(load_cell(tmp_path / "a", scan="reference"), tmp_path / "vim.onnx")
    assert done.equal and [path.name for path in tmp_path.iterdir() if "onnx" in path.name] == ["vim.onnx"]


@pytest.mark.slow
@pytest.mark.usefixtures("onnx")
def test_an_operation_that_torch_has_no_onnx_form_of_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"torch cannot write this network as ONNX: No ONNX function found for .*sort.*: write a .pt2 file"):
        export(load_cell(folder, scan="reference"), tmp_path / "vim.onnx")
    assert not list(tmp_path.glob("*onnx*"))


# what is refused


def test_a_layer_that_onnx_has_no_operations_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.export.ONNX_PACKAGES", ())
    for option, name in (("s4", "S4D"), ("s5", "S5")):
        network = create_model("vim_micro", 10, 32, **VIM, **{option: True})
        with pytest.raises(ExportError, match=rf"^layers\.0\.mixer\S* is an {name}, which computes with complex numbers.*write a .pt2 file"):
            check_onnx(network)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.export.ONNX_PACKAGES", ("onnx_that_is_missing",))
    with pytest.raises(ExportError, match="ONNX needs onnx_that_is_missing: pip install"):
        check_onnx(torch.nn.Linear(1, 1))


@pytest.mark.slow
def test_a_network_that_cannot_be_followed_says_so() -> None:
    class Branching(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 0 else -images

    with pytest.raises(ExportError, match="torch.export cannot follow this network: "):
        program_of(Branching(), IMAGES)


def test_mistakes_in_the_command_are_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(folder), str(tmp_path / "vim.pb")])
    assert "ends in neither .pt2 (torch.export) nor .onnx" in capsys.readouterr().err
    assert main([str(tmp_path / "b"), str(tmp_path / "vim.pt2")]) == 2
    assert "there is no folder" in capsys.readouterr().err
