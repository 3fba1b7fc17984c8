"""The main job as a user runs it: real processes, real training, killed on purpose."""

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from harness import launch as module
from harness.grid.read import read_grid
from harness.launch import INTERRUPTED, NOTHING_TO_DO, OK, SOME_FAILED, USAGE, main, publish, to_run, unwritable
from harness.reproduce import REPRODUCED
from harness.reproduce import main as reproduce
from jobs.cluster.claims import claimed
from jobs.cluster.slurm import SchedulerError, SchedulerSilent
from jobs.experiment.job import PlannedCell
from jobs.experiment.records import Record, RecordError, read_record
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec
from models.closed_pipe import CLOSED_PIPE
from models.plugins.tables import forget_rows
from tests.support.commands import GRID, SMALL, command, processes_of, run, wait_for, written
from tests.support.held_launch import kill_all, start_held
from tests.support.runs import FakeRun
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


def records(tmp_path: Path, grid: str = "small") -> dict[str, Record]:
    """Records by pruning label."""
    found = [read_record(path) for path in (tmp_path / "runs" / grid / "cells").glob("*/record.json")]
    return {record.pruning: record for record in found}


@pytest.fixture(autouse=True)
def no_process_is_left(tmp_path: Path) -> "object":
    yield
    left = processes_of(tmp_path)
    for process in left:
        process.kill()
    assert not left


def test_a_mistyped_key_ends_before_anything_is_written(tmp_path: Path) -> None:
    grid = written(tmp_path, GRID.replace("epochs: 2", "epocs: 2"))
    done = run("harness.launch", grid, cwd=tmp_path)
    assert done.returncode == USAGE
    assert f"{grid}:3" in done.stderr and "did you mean 'epochs'" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_missing_grid_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere.yaml")]) == USAGE and "nowhere.yaml" in capsys.readouterr().err


def test_without_the_environment_a_command_says_how_to_enter_it(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-m", "harness.launch", "grid.yaml"]  # -S: no installed packages
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (
        done.returncode == USAGE
        and done.stderr.endswith("then run: . .venv/bin/activate\n")
        and "lacks torch" in done.stderr
        and "Traceback" not in done.stderr
    ), done.stderr


class Ended(NamedTuple):
    """The exit code of a launch, and what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Here:
    """The command in the process of the tests, which has imported torch, where nothing of a process is tested."""

    folder: Path
    output: pytest.CaptureFixture[str]

    def launch(self, text: str, *options: str) -> Ended:
        """What a launch of a grid ends with."""
        self.output.readouterr()
        return Ended(main([str(written(self.folder, text)), *options]), *self.output.readouterr())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Here]:
    """The command, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGHUP)}
    yield Here(tmp_path, capsys)
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_missing_data_end_before_anything_is_written(here: Here) -> None:
    done = here.launch(GRID + "data: {source: imagefolder, path: /nowhere/at/all}\n")
    assert done.code == USAGE and "/nowhere/at/all" in done.err
    assert not (here.folder / "runs").exists()


def test_a_network_that_the_images_do_not_fit_ends_before_anything_is_written(here: Here) -> None:
    done = here.launch(GRID.replace(SMALL, "{name: vim_micro, patch_size: 64}"))
    assert done.code == USAGE and "patch_size" in done.err
    assert not (here.folder / "runs").exists()


def test_a_dry_run_says_what_would_run_and_writes_nothing(here: Here) -> None:
    done = here.launch(GRID, "--dry-run")
    assert done.code == OK and "2 cells" in done.out and "saved by sharing" in done.out
    assert not (here.folder / "runs").exists()


@pytest.mark.parametrize("module", ["harness.launch", "harness.status"])
def test_a_full_output_is_not_told_as_a_full_run_folder(fake: FakeRun, tmp_path: Path, module: str) -> None:
    words = ["grid.yaml", "--dry-run"] if module == "harness.launch" else []
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command(module, *words), cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode not in (OK, NOTHING_TO_DO) and "the output could not be written: No space left on device" in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr and "cannot write" not in ended.stderr


@pytest.mark.slow
def test_a_launch_that_is_killed_with_its_job_goes_on_to_its_leaderboard_then_has_nothing_to_do_and_reproduces(
    here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user types it. What `reproduce` trains undisturbed, in one process, has the weights of the run that was killed and then had two jobs."""
    grid = written(tmp_path, GRID.replace("stages_per_job: 3", "stages_per_job: 9, checkpoint_steps: 5"))
    launcher = start_held(grid, stages=0, step=6)
    wait_for(lambda: list(tmp_path.glob("runs/small/stages/*/checkpoints/step-*")), launcher)
    kill_all(tmp_path)
    launcher.communicate()
    (tmp_path / "held").unlink()
    assert not records(tmp_path)

    second = run("harness.launch", written(tmp_path, GRID), cwd=tmp_path)
    assert second.returncode == OK, second.stdout + second.stderr
    board = tmp_path / "runs" / "small" / "leaderboard.csv"
    assert {row["pruning"] for row in csv.DictReader(board.read_text().splitlines())} == {"dense", "magnitude(0.9)"}
    assert str(Path("runs/small/leaderboard.csv")) in second.stdout
    found = records(tmp_path)
    pruned = found["magnitude(0.9)"].metrics
    assert pruned is not None and pruned.sparsity_prunable == pytest.approx(0.9, abs=1e-4) and pruned.test_samples > 300
    assert found["dense"].stages[0] == found["magnitude(0.9)"].stages[0], "the dense training is shared"

    stamp = {path: path.stat().st_mtime_ns for path in board.parent.glob("cells/*/record.json")}
    again = here.launch(GRID)
    assert again.code == NOTHING_TO_DO and "nothing to do" in again.out
    assert stamp == {path: path.stat().st_mtime_ns for path in board.parent.glob("cells/*/record.json")}
    for record in found.values():
        assert reproduce([record.id[:6]]) == REPRODUCED and "reproduced: equal to the bit" in capsys.readouterr().out


TINY = f"""
name: small
data: {{source: synthetic, samples: 60, classes: 2, loader: torch}}
recipe: {{epochs: 1, finetune_epochs: 1, batch_size: 16, lr: 1.0e+30, clip_grad: null}}
models: [{SMALL}]
pruning: [dense, {{method: magnitude, sparsity: 0.9}}]
seeds: [0]
notify: {{command: 'echo $VSSM_BENCH_EVENT $VSSM_BENCH_FAILED $VSSM_BENCH_FAILURE >> told', timeout_s: 600}}
cluster: {{kind: local, stages_per_job: 3, profile_s: 0.001, profile_batch: 2}}
"""


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_cell_with_a_record_is_told_and_is_retried_when_asked(here: Here, tmp_path: Path) -> None:
    """By a job, and the second time in the process of the launch."""
    done = here.launch(TINY)
    assert done.code == SOME_FAILED, done.out + done.err
    failures = {record.failure.kind for record in records(tmp_path).values() if record.failure}
    assert failures == {"diverged"} and len(records(tmp_path)) == 2
    in_process = TINY.replace("kind: local", "kind: debug")
    again = here.launch(in_process)
    assert again.code == NOTHING_TO_DO and "--retry-failed" in again.out
    assert here.launch(in_process, "--retry-failed").code == SOME_FAILED
    first, end, *others = (tmp_path / "told").read_text().splitlines()
    assert first.startswith("first_failure ") and "diverged: " in first and end == "end 2" and len(others) == 2


MORTAL = """
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from models.registry import ModelEntry

@dataclass(frozen=True, kw_only=True)
class Config:
    folder: str = ""

    def check(self):
        pass

def build(config, img_size, num_classes, scan_backend):
    from torch import nn

    class Mortal(nn.Sequential):
        def forward(self, images):
            folder = Path(config.folder)
            if self.training:
                (folder / "compiler").write_text(str("torch._dynamo" in sys.modules))
            if os.environ.get("RANK") == "1" and any(folder.glob("runs/*/stages/*/checkpoints/step-*")) and not (folder / "grave").exists():
                (folder / "grave").touch()
                os.kill(os.getpid(), 9)
            return super().forward(images)

    return Mortal(nn.Flatten(), nn.Linear(3 * img_size**2, num_classes))

MODELS = {"mortal": ModelEntry(build=build, config=Config(), img_size=32)}
"""
ON_TWO_RANKS = """
name: small
plugins: [mortal.py]
data: {{source: synthetic, samples: 60, classes: 2, loader: torch}}
recipe: {{epochs: 2, finetune_epochs: 0, batch_size: 16, warmup_epochs: 0, zero_stage: 2}}
models: [{{name: mortal, folder: {folder}}}]
pruning: [dense]
seeds: [0]
cluster: {{kind: local, max_parallel: 1, stages_per_job: 9, tasks_per_node: 2, checkpoint_steps: 2, profile_s: 0.001, profile_batch: 2}}
"""


@pytest.mark.slow
def test_two_ranks_train_one_cell_and_the_death_of_one_ends_the_job(here: Here, tmp_path: Path) -> None:
    """The network of rank 1 kills its process, as kill -9 does, in the first step after a checkpoint."""
    written(tmp_path, MORTAL, "mortal.py")
    done = here.launch(ON_TWO_RANKS.format(folder=tmp_path))
    forget_rows()
    assert done.code == OK, done.out + done.err
    assert (tmp_path / "compiler").read_text() == "False", "a rank starts in half the time without torch's compiler, also with ZeRO"
    assert (tmp_path / "grave").exists() and "a job died without an error" in done.out and "goes on from its last checkpoint" in done.out
    assert {record.environment.ranks for record in records(tmp_path).values()} == {2}
    assert len(list((tmp_path / "runs" / "small" / "jobs").iterdir())) == 2, "the job ended and a second one went on"


def ranks_of(tmp_path: Path) -> list[psutil.Process]:
    """The ranks that work for a run folder under `tmp_path`."""
    return [process for process in processes_of(tmp_path) if "submitit.core._submit" in process.info["cmdline"]]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_launch_that_is_stopped_stops_its_jobs_and_keeps_what_is_done(tmp_path: Path, how: signal.Signals) -> None:
    heeded = signal.SIG_IGN if how == signal.SIGTERM else signal.SIG_DFL  # what a shell's & does, to this test's own process perhaps

    def begin() -> None:
        signal.signal(signal.SIGINT, heeded)

    launcher = start_held(written(tmp_path, GRID), stages=0, step=1, preexec_fn=begin)
    wait_for(lambda: list(tmp_path.glob("runs/small/jobs/*/stages.json")) and ranks_of(tmp_path), launcher)
    launcher.send_signal(how)
    output, _ = launcher.communicate(timeout=PATIENCE_S)
    assert launcher.returncode == INTERRUPTED and "resumes" in output
    assert not processes_of(tmp_path)
    assert json.loads((tmp_path / "runs" / "small" / "plan.json").read_text())["grid"] == "small"


def test_a_torn_record_is_named_with_what_to_do(here: Here) -> None:
    cell = read_grid(written(here.folder, GRID)).cells[0].id
    path = here.folder / "runs" / "small" / "cells" / cell / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"id": "')
    done = here.launch(GRID, "--dry-run")
    assert done.code == OK and f"cells/{cell}/record.json is not a record" in done.err and "remove it" in done.err


def test_a_folder_of_another_user_is_named_with_its_owner_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "small"
    path.mkdir(parents=True)
    text = unwritable(PermissionError(13, "Permission denied", str(path / "plan.json")), path)
    assert f"belongs to {path.owner()}" in text and "chmod -R g+w" in text and "umask 002" in text
    assert "free space there" in unwritable(OSError(28, "No space left on device", str(path)), path)


def test_failed_and_blocked_cells_run_again_only_when_asked(fake: FakeRun) -> None:
    first, second = fake.trunks
    done, failed, left = fake.cells_of(first)
    fake.finish(first)
    fake.record(done)
    fake.fail(failed.stages[1])
    fake.fail(second)
    blocked = fake.cells_of(second)
    ids = {planned.cell.id for planned in (failed, *blocked)}
    assert to_run(fake.run, fake.paths, retry_failed=False) == ((left,), ids)
    again, failures = to_run(fake.run, fake.paths, retry_failed=True)
    assert failures == ids and {planned.cell.id for planned in again} == {left.cell.id, *ids}


@pytest.fixture
def untrained(fake: FakeRun, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A grid whose local jobs only leave their records. The leaderboard is written."""

    def run_locally(cluster: ClusterSpec, run: RunFolder, jobs: object, cells: Sequence[PlannedCell]) -> None:
        for planned in cells:
            fake.record(planned)

    monkeypatch.setattr(module, "run_locally", run_locally)
    monkeypatch.setattr(module, "publish", lambda run: True)
    return fake


def test_a_launch_whose_leaderboard_was_not_written_did_not_go_well(untrained: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "publish", lambda run: False)
    assert main(["grid.yaml"]) == SOME_FAILED
    assert all(untrained.run.record(planned.cell.id) for planned in untrained.paths)


def test_a_launch_that_runs_all_cells_goes_well_and_then_has_nothing_to_do(untrained: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid.yaml"]) == OK
    assert "small: 6 of 6 cells to run" in capsys.readouterr().out
    assert main(["grid.yaml"]) == NOTHING_TO_DO
    assert "nothing to do: 6 of 6 cells are done" in capsys.readouterr().out


def test_a_launch_with_a_failed_cell_did_not_go_well(untrained: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_locally", lambda cluster, run, jobs, cells: untrained.fail(untrained.trunks[0]))
    assert main(["grid.yaml"]) == SOME_FAILED


def test_while_another_launch_of_the_grid_is_at_work_there_is_nothing_to_do(untrained: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    with claimed(untrained.run.launch_lock):
        assert main(["grid.yaml"]) == NOTHING_TO_DO
    assert "is launching this grid already" in capsys.readouterr().out
    assert not any(untrained.run.record(planned.cell.id) for planned in untrained.paths)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SchedulerSilent("squeue: Unable to contact slurm controller"), SOME_FAILED, "nothing was submitted; running jobs go on; launch again later"),
        (SchedulerError("sbatch: error: Batch job submission failed: Invalid qos"), SOME_FAILED, "Invalid qos: nothing was submitted"),
        (OSError(28, "No space left on device", "/runs/small"), SOME_FAILED, "cannot write /runs/small: No space left on device"),
        (RecordError("cells/a/record.json is not a record"), USAGE, "cells/a/record.json is not a record"),
        (KeyboardInterrupt(), INTERRUPTED, "the same command resumes"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_stops_a_launch_has_its_exit_code_and_its_remedy(
    untrained: FakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    def stopped(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "previous_jobs", stopped)
    assert main(["grid.yaml"]) == code
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
    assert not any(untrained.run.record(planned.cell.id) for planned in untrained.paths)


@pytest.mark.parametrize(("code", "well"), [(0, True), (CLOSED_PIPE, True), (2, False)])
def test_a_leaderboard_that_nobody_reads_is_written_all_the_same(code: int, well: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("harness.launch.subprocess.run", lambda words, check: subprocess.CompletedProcess(words, code))
    assert publish(RunFolder(tmp_path)) is well
