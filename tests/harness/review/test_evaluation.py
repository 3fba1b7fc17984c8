"""Networks that are evaluated again, and what verifications left."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.check import check
from harness.review.evaluation import compared
from harness.review.evidence import Evidence
from jobs.experiment.files import sha256_of, write_json
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.verification import verified_dir
from jobs.train.evaluation import Scores
from tests.support.forgeries import broken, cells, edit, rewrite
from tests.support.records import fake_record, fake_run, fake_verification

slow = pytest.mark.slow


@slow
def test_a_forgery_in_all_files_is_found_by_evaluating_again(run: Path, honest: Path) -> None:
    """The weights, their digest and the accuracy were changed together."""
    cell = cells(run, "dense")[0]
    rewrite(cell / "model.safetensors", lambda tensors: tensors["head.bias"].copy_(torch.tensor([-1e4, 1e4])))
    before = json.loads((cell / "record.json").read_bytes())["metrics"]["test_samples"]
    edit(cell, weights_sha256=sha256_of(cell / "model.safetensors"), metrics__top1=100.0)
    assert before >= 10
    assert 16 in broken(run, evaluate=6, cache=str(honest.parents[1] / "cache"), rules=[16])


@slow
def test_data_that_is_not_here_is_no_fault_but_is_said(run: Path, tmp_path: Path) -> None:
    for cell in run.glob("cells/*"):
        edit(cell, spec__data=lambda data: data | {"source": "cifar10", "path": str(tmp_path / "nowhere")})
    findings = check(Evidence(runs=[RunFolder(run)]), evaluate=1, cache=str(tmp_path / "cache"), rules=[16])
    assert any(finding.rule == 16 and finding.weight == "unchecked" and "nowhere" in finding.text for finding in findings)


def test_both_accuracies_are_held_against_what_is_seen_here(tmp_path: Path) -> None:
    (cell,) = Evidence(runs=[RunFolder(fake_run(tmp_path, [fake_record(97.5)]))]).measured  # top-5 99.5, 360 images
    seen = Scores(top1=97.5, top5=99.5, loss=0.5, samples=360)
    assert list(compared(cell, seen)) == []
    (note,) = compared(cell, replace(seen, top1=97.5 - 100 / 360))
    assert note.weight == "note" and "top-1 is 97.2222 here, and 97.5000 in the record: 1 of 360 images" in note.text
    (fault,) = compared(cell, replace(seen, top5=99.5 - 200 / 360))
    assert fault.weight == "fault" and "top-5 is 98.9444 here" in fault.text
    (fault,) = compared(cell, replace(seen, top5=None))
    assert fault.weight == "fault" and "top-5 is none here" in fault.text
    assert [finding.weight for finding in compared(cell, replace(seen, samples=359))] == ["fault", "fault"]


def test_verifications_are_notes_and_no_faults(tmp_path: Path) -> None:
    record = fake_record(97.0)
    run = fake_run(tmp_path, [record, fake_record(96.0, seed=1)])
    for name, about in (("a", record), ("b", record.model_copy(update={"weights_sha256": "b" * 64}))):
        write_json(verified_dir(run, record.id) / f"{name}.json", fake_verification(about, "fail", by="Ada").model_dump(mode="json"))
    notes = [finding for finding in check(Evidence(runs=[RunFolder(run)]), rules=[16]) if finding.weight == "note"]
    assert [note.text for note in notes] == [
        "verified by Ada on 2026-11-28: fail: for the tests",
        "verified by Ada on 2026-11-28, of other numbers than the record has now: fail: for the tests",
    ]
