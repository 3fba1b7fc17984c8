"""What a job does with errors and claims, without training anything."""

import threading
from pathlib import Path

import pytest

from harness import runner
from harness.records import RunFolder
from harness.failures import disk_full, fail, peer_lost
from harness.runner import claimed_together
from jobs.claims import claimed
from jobs.engine import Ranks, rendezvous
from tests.harness.make_orders import orders_of, small_grid


def one_rank() -> Ranks:
    """This process alone."""
    return rendezvous(threads=1)


def test_a_failure_is_kept_with_a_record_for_every_cell_behind_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    orders, paths = orders_of(small_grid(tmp_path), run)
    trunk = orders[0].stages[0]
    fail(run, trunk, orders[0], ValueError("no"), one_rank())
    behind = [path for path in paths if trunk.id in path.stages]
    assert len(behind) == 3
    assert {record.status for path in behind if (record := run.record(path.cell.id))} == {"failed"}


@pytest.mark.parametrize(
    "error",
    [RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1234"), RuntimeError("Error writing file: No space left on device (os error 28)")],
)
def test_a_lost_peer_and_a_full_disk_are_no_fault_of_the_cell(tmp_path: Path, error: Exception) -> None:
    run = RunFolder(tmp_path / "run")
    orders, _ = orders_of(small_grid(tmp_path), run)
    fail(run, orders[0].stages[0], orders[0], error, one_rank())
    assert not list(run.path.glob("**/*.json"))


def test_a_full_disk_is_seen_behind_what_it_led_to() -> None:
    error = RuntimeError("cannot write the checkpoint")
    error.__cause__ = OSError(28, "No space left on device")
    assert disk_full(error) and not disk_full(RuntimeError("other")) and not peer_lost(RuntimeError("other"))


def test_ranks_wait_for_a_claim_without_holding_a_collective_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CLAIM_POLL_S", 0.01)
    asked: list[bool] = []

    class Counting(Ranks):
        def broadcast(self, value: bool) -> bool:
            asked.append(value)
            if len(asked) == 3:
                release.set()
            return value

    release, held = threading.Event(), threading.Event()

    def holder() -> None:
        with claimed(tmp_path / "a"):
            held.set()
            release.wait(10)

    thread = threading.Thread(target=holder)
    thread.start()
    held.wait(10)
    alone = one_rank()
    with claimed_together(tmp_path / "a", Counting(rank=0, local_rank=0, world=1, device=alone.device)):
        assert asked[-1] and asked.count(False) >= 3
    thread.join()
