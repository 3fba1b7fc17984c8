"""The sensitivity of an evaluation: what is measured is what a record holds, and rows count what changed."""

from pathlib import Path

import pytest
import torch

from benchmarks.sensitivity import BASE, SETTINGS, Outcome, evaluated, in_bf16, row
from jobs.data.prepare import prepare
from jobs.experiment.cell import Cell
from jobs.experiment.records import read_record
from models.registry import create_model
from tests.support.forgeries import cells


@pytest.mark.slow
def test_the_accuracy_is_that_of_the_record_and_settings_change_logits_alone(honest: Path) -> None:
    folder = cells(honest, "dense")[0]
    record = read_record(folder / "record.json")
    cell = Cell.from_json(record.spec)
    data = prepare(cell.data, honest.parents[1] / "cache")
    base = evaluated(cell, folder / "model.safetensors", data, BASE)
    assert record.metrics is not None
    assert base.top1 == record.metrics.top1 and base.tested == record.metrics.test_samples and len(base.labels) == 60 + base.tested
    for setting in SETTINGS:
        if not setting.variables:
            other = evaluated(cell, folder / "model.safetensors", data, setting)
            close = 1e-6 if setting.dtype == "fp32" else 5e-3  # the largest logit is 0.05; measured: 1e-8 and 7e-4
            torch.testing.assert_close(other.logits, base.logits, rtol=1e-4, atol=close)
            assert torch.equal(other.labels, base.labels)


def test_a_row_counts_by_hand() -> None:
    labels = torch.tensor([0, 1, 0, 1])
    base = Outcome(logits=torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.5], [4.0, 0.0]]), labels=labels, tested=2)
    other = Outcome(logits=torch.tensor([[0.0, 1.0], [0.0, 3.0], [1.0, 0.5], [0.0, 0.5]]), labels=labels, tested=2)
    assert (base.top1, base.margin) == (100.0, 1.0)
    assert row("x", base, other) == "| x | 50.00 | -50.00 | 2 | 4.0e+00 |" and row("x", base, base) == "| x | 100.00 | 0 | 0 | 0 |"


def test_settings_differ_from_the_base_in_one_thing_each_and_have_names_of_their_own() -> None:
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    for setting in SETTINGS:
        changed = [name for name in vars(BASE) if name != "name" and getattr(setting, name) != getattr(BASE, name)]
        assert len(changed) == (setting.name != "the same again"), setting.name


def test_bf16_keeps_the_statistics_of_batch_norm_in_fp32() -> None:
    model = create_model("mambavision_micro", 10, 32).eval()
    in_bf16(model)
    kinds = {module.running_mean.dtype for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert kinds == {torch.float32} and {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(torch.zeros(1, 3, 32, 32).bfloat16()).dtype == torch.bfloat16
