"""The model card, read as Hugging Face's hub reads it."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from jobs.experiment.cell_config import CellConfig, cell_config
from jobs.experiment.records import Record
from jobs.experiment.specs import DataSpec, Distillation, ModelSpec, RecipeSpec
from jobs.worker.model_card import model_card
from models.pruning.magnitude import Magnitude
from tests.support.cell_folders import record_of
from tests.support.cells import make_cell
from tests.support.records import EVIL

RECIPE = RecipeSpec(epochs=300, ema=0.9999, distill=Distillation(teacher="/home/somebody/teacher.pth"))
DATA = DataSpec(source="imagefolder", path="/home/somebody/imagenet", name="imagenet", interpolation="bicubic")
VIM = ModelSpec(name="vim_micro", label="vim_micro", options={"pretrained": "/home/somebody/vim.pth"}, pretrained_sha256="a" * 64)
PRUNED = make_cell(model=VIM, method=Magnitude(sparsity=0.5), data=DATA, recipe=RECIPE)


def described(cell=PRUNED, **metrics) -> tuple[Record, CellConfig]:
    record = record_of(cell, "e" * 64, **metrics)
    return record, cell_config(cell, record, Path("/nowhere"), classes=1000, names=None)


def test_the_hub_reads_the_accuracy_and_leaves_the_license_to_you() -> None:
    text = model_card(*described())
    card = ModelCard(text)
    top1, top5 = card.data.eval_results
    assert (top1.metric_name, top1.metric_value, top1.dataset_name, top1.task_type) == ("Top-1 accuracy", 90.0, "imagenet", "image-classification")
    assert top5.metric_value == 92.0
    assert card.data.license is None and "# license: choose one" in text
    assert card.data.library_name == "vssm-bench" and {"vim_micro", "pruning", "magnitude"} <= set(card.data.tags)


def test_it_says_what_was_pruned_on_what_and_how_to_make_it_again() -> None:
    card = model_card(*described(sparsity=0.5))
    assert "Method `magnitude`. 50.0% of the prunable weights are zero" in card
    assert "resize of the shorter side to 256 pixels, `bicubic`" in card
    assert "epochs: 300" in card and "ema: 0.9999" in card and "zero_stage" not in card
    assert f"python -m harness.reproduce {PRUNED.id}" in card and "started from those of `vim.pth`" in card


def test_it_warns_of_a_single_seed_and_of_few_test_images() -> None:
    card = model_card(*described(test_samples=360))
    assert "This is one cell: one training, with seed 0." in card
    assert "One test image is 0.28 points, and other test images would move top-1 by about 1.58 points" in card  # sqrt(0.9 * 0.1 / 360)


def test_it_names_no_folder_and_no_host() -> None:
    card = model_card(*described())
    assert "somebody" not in card and "node1" not in card and "teacher.pth" in card


def test_a_dense_cell_with_few_classes_is_described_too() -> None:
    card = ModelCard(model_card(*described(make_cell(), top5=None, sparsity=0.0)))
    assert [result.metric_name for result in card.data.eval_results] == ["Top-1 accuracy"]
    assert "None: this is a dense control" in card.content and "Zeros save" not in card.content and "pruning" not in card.data.tags


@pytest.mark.parametrize("label", [EVIL, "a: b\n---\nlicense: mit", "caf\udce9", "'\"{}[]#&*!|>%@`"])
def test_no_label_breaks_its_form(label: str) -> None:
    cell = make_cell(model=ModelSpec(name="vim_micro", label=label))
    card = ModelCard(model_card(*described(cell)))
    assert card.data.license is None and len(card.data.eval_results) == 2
    card.content.encode()


def test_a_failed_cell_has_no_card() -> None:
    record, config = described()
    with pytest.raises(ValueError, match="has no numbers"):
        model_card(record.model_copy(update={"metrics": None}), config)
