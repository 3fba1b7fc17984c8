"""Records beside the stages that trained them, in a run folder that nothing trained."""

import json
from typing import Any

import pytest

from harness.check import check
from harness.review.evidence import Evidence
from harness.review.stages import trained
from jobs.experiment.files import write_json
from jobs.experiment.job import JobSpec
from jobs.experiment.records import Record
from jobs.experiment.run_folder import RESULT, RunFolder
from tests.support.jobs import finished
from tests.support.records import fake_environment, fake_metrics
from tests.support.runs import FakeRun

OF_STAGE = {"val_top1": 90.0, "train_loss": 0.4, "epochs": 1, "train_s": 3600.0, "ranks": 2, "threads": 4}
OF_CELL = {"val_top1": 90.0, "train_loss": 0.4, "epochs": 2, "train_s": 7200.0, "train_cpu_h": 16.0, "train_gpu_h": None}


@pytest.fixture
def run(fake: FakeRun) -> RunFolder:
    """A finished run: six cells, each with the numbers of its two stages, and weights."""
    job = JobSpec(run="", grid=fake.grid.name, stages=(), cells=(), cluster=fake.grid.cluster)
    for stage in {stage for path in fake.paths for stage in path.stages}:
        write_json(fake.run.export_dir(stage) / RESULT, OF_STAGE)
        (fake.run.export_dir(stage) / "model.safetensors").write_text(stage)
    for path in fake.paths:
        record = finished(job, path).model_copy(update={"metrics": fake_metrics(90.0, **OF_CELL), "environment": fake_environment()})
        fake.run.write_record(record)
        fake.run.record_path(path.cell.id).with_name("model.safetensors").hardlink_to(fake.run.export_dir(path.stages[-1]) / "model.safetensors")
    return fake.run


def edit(run: RunFolder, number: int, **changes: Any) -> Record:
    """Changes fields of a record, or of its metrics."""
    path = sorted(run.record_paths())[number]
    record = json.loads(path.read_bytes())
    for name, value in changes.items():
        (record if name in record else record["metrics"])[name] = value
    path.write_text(json.dumps(record))
    return Record.model_validate(record)


def told(run: RunFolder, *rules: int) -> list[str]:
    """What these rules find, without their findings on digests: the weights of this run are none."""
    return [finding.text for finding in check(Evidence(runs=[run]), rules=rules) if "digest" not in finding.text]


def test_an_honest_run_is_as_its_stages_say(run: RunFolder) -> None:
    assert told(run, 2, 3) == [] and [text for text in told(run, 4, 5) if "stage" in text] == []


def test_a_changed_duration_epoch_or_accuracy_is_not_that_of_the_stages(run: RunFolder) -> None:
    for number, change in enumerate(({"train_s": 7199.0}, {"train_loss": 0.3}, {"val_top1": 91.0}, {"train_cpu_h": 8.0}, {"epochs": 1})):
        edit(run, number, **change)
    texts = [text for text in told(run, 4) if "by the stages" in text]
    assert [text.split(",")[0] for text in texts] == [
        "train_s is 7199.0", "train_loss is 0.3", "val_top1 is 91.0", "train_cpu_h is 8.0", "epochs is 1",
    ]  # fmt: skip


def test_stages_that_are_not_there_or_older_say_less(run: RunFolder) -> None:
    around = fake_environment(ranks=1, threads=2)
    assert trained([{"epochs": 1, "train_s": 3600.0, "train_loss": float("nan")}], around) == {"epochs": 1, "train_s": 3600.0, "train_cpu_h": 2.0}
    edit(run, 0, train_s=1.0)
    for path in run.path.glob(f"stages/*/export/{RESULT}"):
        path.unlink()
    assert not [text for text in told(run, 4) if "by the stages" in text]


def test_a_record_under_the_stages_or_the_name_of_another_cell_is_found(run: RunFolder) -> None:
    first, second = edit(run, 0), edit(run, 1)
    edit(run, 0, stages=second.stages)
    edit(run, 1, pruning="ours")
    names, stages = sorted(told(run, 2))
    assert names == f"it is called vim_micro, ours, and its settings are those of vim_micro, {second.pruning}"
    assert stages.startswith(f"its stages are {', '.join(second.stages)}, and its settings give {', '.join(first.stages)}")


def test_other_weights_than_the_last_stage_left_are_found(run: RunFolder) -> None:
    folder = sorted(run.record_paths())[0].parent
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_text("others")
    (sorted(run.record_paths())[1].parent / "masks.safetensors").write_text("masks that no stage left")
    texts = [text for text in told(run, 5) if "last stage" in text]
    assert [text.split(" is ")[0] for text in texts] == ["model.safetensors", "masks.safetensors"]


def test_a_row_that_was_removed_leaves_its_stages_behind(run: RunFolder) -> None:
    gone = edit(run, 0)
    for name in ("plan.json", "index.json"):
        content = json.loads((run.path / name).read_bytes())
        del content["cells"][gone.id]
        if "stages" in content:
            del content["stages"][gone.stages[-1]]
        (run.path / name).write_text(json.dumps(content))
    run.record_path(gone.id).unlink()
    (note,) = told(run, 3)
    assert note.startswith(f"1 stage trained for no cell that is planned or recorded, such as {gone.stages[-1]}")
    assert all(finding.weight == "note" for finding in check(Evidence(runs=[run]), rules=[3]))
