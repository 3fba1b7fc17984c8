"""Ranks that meet through a file."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.parallel import rendezvous
from jobs.parallel.rendezvous import Meeting, MeetingError, host, meet, own_addresses, store_at, usable_addresses

SOON = timedelta(seconds=600)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a meeting sets is forgotten."""
    monkeypatch.setattr(os, "environ", dict(os.environ))


@pytest.fixture
def rank_0(tmp_path: Path) -> Iterator[threading.Thread]:
    """Rank 0 of two, on its way."""
    kept: list[object] = []  # the store ends with its last reference
    thread = threading.Thread(target=lambda: kept.append(meet(tmp_path / "meeting", rank=0, world=2, one_node=False, timeout=SOON)))
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive()


def test_ranks_meet_and_leave_no_file(tmp_path: Path, rank_0: threading.Thread) -> None:
    store = meet(tmp_path / "meeting", rank=1, world=2, one_node=False, timeout=SOON)
    rank_0.join(30)
    assert not (tmp_path / "meeting").exists() and int(os.environ["MASTER_PORT"]) > 0
    assert store.add("seen", 1) == 1


def test_an_address_that_does_not_answer_is_passed_over(tmp_path: Path, rank_0: threading.Thread) -> None:
    while not (tmp_path / "meeting").exists():
        time.sleep(0.01)
    meeting = json.loads((tmp_path / "meeting").read_text())
    (tmp_path / "meeting").write_text(json.dumps({**meeting, "addresses": ["no.such.host.invalid", *meeting["addresses"]]}))
    meet(tmp_path / "meeting", rank=1, world=2, one_node=False, timeout=SOON)
    assert os.environ["MASTER_ADDR"] == meeting["addresses"][0]


def test_somebody_else_at_the_address_is_not_taken_for_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "ANSWER_S", 30.0)
    other = host(tmp_path / "other", True, SOON)
    assert store_at("127.0.0.1", other.port, "our secret", SOON) is None
    assert store_at("127.0.0.1", other.port, json.loads((tmp_path / "other").read_text())["secret"], SOON) is not None


def test_an_address_that_this_machine_has_too_is_not_rank_0s_on_another_one() -> None:
    mine, elsewhere = own_addresses()[-1], "192.0.2.77"
    assert usable_addresses(Meeting(host="another", addresses=[mine, elsewhere], port=1, secret="")) == [elsewhere]
    assert usable_addresses(Meeting(host=socket.gethostname(), addresses=[mine], port=1, secret="")) == [mine]


def test_a_rank_0_that_never_comes_is_told_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(MeetingError, match="has not written .*meeting"):
        meet(tmp_path / "meeting", rank=1, world=2, one_node=True, timeout=timedelta(seconds=0.3))


def test_ranks_that_never_come_are_counted(tmp_path: Path) -> None:
    with pytest.raises(MeetingError, match="only 1 of 3 ranks"):
        meet(tmp_path / "meeting", rank=0, world=3, one_node=True, timeout=timedelta(seconds=1))
