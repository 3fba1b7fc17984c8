"""What a finished run teaches."""

import json
import shutil
from pathlib import Path

import pytest

from harness.cost.knowledge import Knowledge
from harness.cost.learned import Learned, device_of, learned, measured_s, newest_records, sample_of
from harness.cost.work import Shape, WorkKey, key_of, kind_of
from harness.grid.read import read_grid
from harness.plan.stages import make_graph
from jobs.experiment.records import Record, read_record
from jobs.experiment.run_folder import RunFolder

ALONE = Shape(1, 1, False)


@pytest.fixture
def records(honest: Path) -> list[Record]:
    return [read_record(path) for path in RunFolder(honest).record_paths()]


def key_and_knowledge(honest: Path, run: RunFolder | None = None, *, local: bool = True) -> tuple[WorkKey, dict[WorkKey, Learned]]:
    key = key_of(read_grid(honest.parents[1] / "grid.yaml").cells[0], ALONE)
    return key, learned(run or RunFolder(honest), honest.parent, {key}, local=local)


def test_every_stage_of_every_record_counts_once(honest: Path, records: list[Record]) -> None:
    key, known = key_and_knowledge(honest)
    stages = {(kind, stage) for kind, by_id in known[key].stages.items() for _, stage in by_id}
    assert known[key].records == len(records) == 10 and {stage for _, stage in stages} == {stage for record in records for stage in record.stages}
    graph = make_graph(read_grid(honest.parents[1] / "grid.yaml").cells)
    assert {kind for kind, _ in stages} == {kind_of(spec) for spec in graph.stages.values()} and known[key].device == records[0].environment.cpu


def test_a_stage_is_as_its_files_say(honest: Path, records: list[Record]) -> None:
    run, stage = RunFolder(honest), records[0].stages[0]
    sample, result = sample_of(run, stage), json.loads((run.export_dir(stage) / "result.json").read_bytes())
    assert sample is not None and (sample.train_s, sample.steps, sample.epochs) == (result["train_s"], result["steps"], result["epochs"])
    assert sample.wall_s >= sample.train_s and sample.file_bytes == sum(path.stat().st_size for path in run.export_dir(stage).iterdir())


def test_steps_of_an_epoch_and_measurements_are_known(honest: Path, records: list[Record]) -> None:
    key, known = key_and_knowledge(honest)
    result = json.loads((RunFolder(honest).export_dir(records[0].stages[0]) / "result.json").read_bytes())
    assert known[key].steps_per_epoch == result["steps"] // result["epochs"]
    assert len(known[key].measured_s[False]) == 2 and len(known[key].measured_s[True]) == 8


def test_an_estimate_of_what_was_learned_is_what_it_took(honest: Path) -> None:
    """The stages of a run, estimated by themselves, sum up to what they took."""
    key, known = key_and_knowledge(honest)
    graph = make_graph(read_grid(honest.parents[1] / "grid.yaml").cells)
    estimated = sum(Knowledge(learned=known).stage(spec, ALONE).seconds for spec in graph.stages.values())
    took = sum(sample.wall_s for by_id in known[key].stages.values() for sample in by_id.values())
    assert estimated == pytest.approx(took)


def test_other_run_folders_teach_too_and_another_work_nothing(honest: Path, tmp_path: Path) -> None:
    key, known = key_and_knowledge(honest, RunFolder(tmp_path / "new"))
    assert known[key].records == 10
    assert learned(RunFolder(honest), honest.parent, {WorkKey("another")}, local=True) == {}


def test_another_cpu_teaches_nothing_of_this_one_but_may_be_a_clusters(records: list[Record]) -> None:
    made = records[0].environment
    other = made.model_copy(update={"cpu": "another"})
    assert device_of(made, local=True) == made.cpu and device_of(other, local=True) is None and device_of(other, local=False) == "another"
    assert device_of(other.model_copy(update={"gpu": "a GPU"}), local=False) == "a GPU"


def test_torn_records_and_stages_that_are_gone_are_left_out(honest: Path, tmp_path: Path) -> None:
    shutil.copytree(honest, tmp_path / "runs" / "honest")
    run = RunFolder(tmp_path / "runs" / "honest")
    first, second, *_ = sorted(run.record_paths())
    first.write_text("{")
    second.write_text(second.read_text().replace('"vim_micro"', '"no such model"'))
    shutil.rmtree(run.path / "stages")
    key = key_of(read_grid(honest.parents[1] / "grid.yaml").cells[0], ALONE)
    assert sum(1 for _ in newest_records(run, run.path.parent)) == 9
    assert learned(run, run.path.parent, {key}, local=True) == {}, "no stage with steps is known"


def test_a_record_without_times_teaches_no_measurement(records: list[Record]) -> None:
    assert measured_s(records[0]) is not None and measured_s(records[0].model_copy(update={"started": ""})) is None


def test_only_so_many_records_are_read(honest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cost.learned.MOST_RECORDS", 3)
    assert sum(1 for _ in newest_records(RunFolder(honest), honest.parent)) == 3
