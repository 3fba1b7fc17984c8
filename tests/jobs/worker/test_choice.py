"""The choice among trials: what it is, when it is made, and what is left when it is killed. The trials' exports are made up."""

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.grid.read import read_grid
from harness.plan.jobs import make_jobs, planned_cells
from harness.plan.stages import make_graph
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.records import Failure
from jobs.experiment.run_folder import RunFolder
from jobs.train.exports import StageResult, read_result
from jobs.worker import choice as module
from jobs.worker import job as worker
from jobs.worker.choice import choose, own_path, tuning_record, unended_trials
from jobs.worker.failures import BlockedError
from jobs.worker.job import run_job
from tests.support.jobs import finished
from tests.support.one_stage import one_rank

GRID = """
name: tuned
models: [vim_micro]
pruning: [{method: magnitude, sparsity: 0.5}]
tune: {TUNE}
seeds: [0]
"""


class Tuned:
    """A tuned cell whose trials end as a test says."""

    def __init__(self, folder: Path, tune: str = "finetune_lr: [1e-4, 1e-3, 2e-3]") -> None:
        (folder / "grid.yaml").write_text(GRID.replace("TUNE", tune))
        grid = read_grid(folder / "grid.yaml")
        graph = make_graph(grid.cells)
        self.run = RunFolder(folder / "runs" / "tuned")
        self.planned: PlannedCell = planned_cells(grid, graph)[0]
        self.choice = graph.stages[self.planned.stages[-1]]
        self.last = [trial.stages[-1] for trial in self.planned.trials]
        self.jobs = make_jobs(grid, graph, self.run, [self.planned])

    def job(self) -> JobSpec:
        """A job that chooses, and does nothing else."""
        return dataclasses.replace(self.jobs[0], stages=(self.choice,), cells=(self.planned,))

    def end(self, *accuracies: float | None) -> None:
        """Trials end with these validation accuracies; None: this one fails."""
        for stage, accuracy in zip(self.last, accuracies, strict=True):
            if accuracy is None:
                self.run.write_failure(stage, Failure(kind="diverged", message="no", stage=stage))
                continue
            export = self.run.export_dir(stage)
            export.mkdir(parents=True)
            result = StageResult(val_top1=accuracy, val_loss=1.0, train_loss=1.0, steps=3, epochs=4, train_s=5.0, train_img_per_s=6.0, sparsity=0.5)
            (export / "result.json").write_text(json.dumps(dataclasses.asdict(result)))
            (export / "model.safetensors").write_text(f"weights of {stage}")
            (export / "rewind-000000001.safetensors").write_text("not handed on")

    def choose(self) -> None:
        """The stage that chooses runs."""
        self.run.stage_dir(self.choice.id).mkdir(parents=True, exist_ok=True)
        choose(self.run, self.choice, one_rank())

    def weights(self) -> str:
        """The weights that it leaves."""
        return (self.run.export_dir(self.choice.id) / "model.safetensors").read_text()


@pytest.mark.parametrize(
    ("accuracies", "chosen"),
    [
        ((10.0, 30.0, 20.0), 1),
        ((30.0, 20.0, 30.0), 0),  # of equals the first
        ((None, 20.0, 30.0), 2),
        ((None, None, 1.0), 2),
        ((math.nan, 1.0, 0.0), 1),
        ((0.0, math.nan, None), 0),
    ],
)
def test_the_best_on_validation_images_hands_on_its_weights(tmp_path: Path, accuracies: tuple[Any, ...], chosen: int) -> None:
    tuned = Tuned(tmp_path)
    tuned.end(*accuracies)
    tuned.choose()
    assert tuned.weights() == f"weights of {tuned.last[chosen]}"
    assert own_path(tuned.run, tuned.planned) == tuned.planned.trials[chosen].stages
    result = read_result(tuned.run.stage_dir(tuned.choice.id))
    assert result is not None and (result.val_top1, result.epochs, result.train_s) == (accuracies[chosen], 0, 0.0), "it trained nothing itself"
    assert sorted(path.name for path in tuned.run.export_dir(tuned.choice.id).iterdir()) == ["choice.json", "model.safetensors", "result.json"]


def test_the_record_names_every_trial_and_why_it_has_no_accuracy(tmp_path: Path) -> None:
    tuned = Tuned(tmp_path)
    tuned.end(None, math.nan, 30.0)
    tuned.choose()
    record = tuning_record(tuned.run, tuned.planned)
    assert record is not None and record.chosen == 2 and record.train_s == 10.0
    assert [(trial.values["finetune_lr"], trial.val_top1, trial.failure) for trial in record.trials] == [
        (1e-4, None, "diverged"),
        (1e-3, None, "validation accuracy is NaN"),
        (2e-3, 30.0, ""),
    ]


def test_if_all_trials_fail_so_does_the_cell(tmp_path: Path) -> None:
    tuned = Tuned(tmp_path)
    tuned.end(None, None, math.nan)
    run_job(tuned.job())
    failure, record = tuned.run.failure(tuned.choice.id), tuned.run.record(tuned.planned.cell.id)
    assert failure is not None and failure.kind == "NoTrialLeft" and failure.message.startswith("all 3 trials have failed: see ")
    assert record is not None and record.status == "failed" and record.tuning is None


def test_a_failed_trial_is_no_failure_of_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = Tuned(tmp_path)

    def diverge(*_: object) -> None:
        raise ArithmeticError("no number")

    monkeypatch.setattr(worker, "run_stage", diverge)
    trial = next(spec for job in tuned.jobs for spec in job.stages if spec.id == tuned.last[0])
    run_job(dataclasses.replace(tuned.job(), stages=(trial,)))
    assert tuned.run.failure(tuned.last[0]) is not None and tuned.run.record(tuned.planned.cell.id) is None


def test_it_waits_until_every_trial_has_ended(tmp_path: Path) -> None:
    tuned = Tuned(tmp_path)
    assert unended_trials(tuned.run, tuned.choice) == tuned.last
    tuned.last, every = tuned.last[:2], tuned.last
    tuned.end(10.0, None)
    assert unended_trials(tuned.run, tuned.choice) == every[2:]
    with pytest.raises(BlockedError, match=f"the choice among 3 trials waits for {every[2]}"):
        worker.run_stage(tuned.run, tuned.choice, tuned.job().cluster, one_rank())
    assert not tuned.run.done(tuned.choice.id) and tuned.run.failure(tuned.choice.id) is None


def test_a_trial_behind_a_failed_training_has_ended(tmp_path: Path) -> None:
    tuned = Tuned(tmp_path, "lr: [1e-3, 2e-3]")
    first = tuned.planned.trials[0].stages[0]
    tuned.run.write_failure(first, Failure(kind="diverged", message="no", stage=first))
    assert unended_trials(tuned.run, tuned.choice) == tuned.last[1:]
    tuned.last = tuned.last[1:]
    tuned.end(20.0)
    tuned.choose()
    assert own_path(tuned.run, tuned.planned) == tuned.planned.trials[1].stages


def test_killed_at_any_file_it_makes_the_same_choice_and_never_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = Tuned(tmp_path)
    tuned.end(10.0, 30.0, 20.0)

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    for name in ("write_json", "asdict"):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(module, name, killed)
            tuned.choose()
        assert not tuned.run.done(tuned.choice.id)
    worker.run_stage(tuned.run, tuned.choice, tuned.job().cluster, one_rank())
    assert tuned.weights() == f"weights of {tuned.last[1]}"
    result = tuned.run.export_dir(tuned.last[2]) / "result.json"
    result.write_text(result.read_text().replace("20.0", "90.0"))
    worker.run_stage(tuned.run, tuned.choice, tuned.job().cluster, one_rank())
    assert tuned.weights() == f"weights of {tuned.last[1]}", "a choice that is made stays"


def test_without_hard_links_the_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = Tuned(tmp_path)
    tuned.end(10.0, 30.0, 20.0)

    def refused(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    tuned.choose()
    assert tuned.weights() == f"weights of {tuned.last[1]}"


def test_a_method_that_no_key_touches_has_one_trial_and_makes_no_choice(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(
        GRID.replace("TUNE", "finetune_lr: [1e-4, 1e-3]").replace("{method: magnitude, sparsity: 0.5}", "{method: dense, rounds: 1}")
    )
    grid = read_grid(tmp_path / "grid.yaml")
    graph = make_graph(grid.cells)
    planned = planned_cells(grid, graph)[0]
    assert len(planned.trials) == 1 and planned.stages == planned.trials[0].stages == planned.required
    assert not any(spec.trials for spec in graph.stages.values())


def test_the_choice_runs_in_the_job_of_its_trials_or_behind_all_of_them(tmp_path: Path) -> None:
    tuned = Tuned(tmp_path)
    assert [len(job.stages) for job in tuned.jobs] == [1, 1, 1, 1, 1] and tuned.jobs[-1].stages == (tuned.choice,)
    tuned.end(10.0, None, 20.0)
    grid = read_grid(tmp_path / "grid.yaml")
    left = make_jobs(grid, make_graph(grid.cells), tuned.run, [tuned.planned])
    assert [spec.id for job in left for spec in job.stages][-1:] == [tuned.choice.id]
    assert tuned.last[1] not in {spec.id for job in left for spec in job.stages}, "a trial that has failed is spent"


def test_a_record_that_is_there_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = Tuned(tmp_path)
    tuned.end(10.0, 30.0, 20.0)
    measured: list[object] = []
    monkeypatch.setattr(worker, "measure_cell", lambda *given: measured.append(SimpleNamespace(given=given)))
    tuned.run.write_record(finished(tuned.job(), tuned.planned))
    run_job(tuned.job())
    assert tuned.run.done(tuned.choice.id) and measured == []
