"""Ranks that meet through a file."""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.parallel import rendezvous
from jobs.parallel.rendezvous import Meeting, MeetingError, host, meet, own_addresses, store_at, usable_addresses, use_interface_of
from tests.support.processes import finish_ranks, start_ranks
from tests.support.waiting import PATIENCE_S, wait_until

SOON = timedelta(seconds=PATIENCE_S)


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
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_ranks_meet_and_leave_no_file(tmp_path: Path, rank_0: threading.Thread) -> None:
    store = meet(tmp_path / "meeting", rank=1, world=2, one_node=False, timeout=SOON)
    rank_0.join(PATIENCE_S)
    assert not (tmp_path / "meeting").exists() and int(os.environ["MASTER_PORT"]) > 0
    assert store.add("seen", 1) == 1


def test_an_address_that_does_not_answer_is_passed_over(tmp_path: Path, rank_0: threading.Thread) -> None:
    wait_until((tmp_path / "meeting").exists, "rank 0 to write its address")
    meeting = json.loads((tmp_path / "meeting").read_text())
    (tmp_path / "meeting").write_text(json.dumps({**meeting, "addresses": ["no.such.host.invalid", *meeting["addresses"]]}))
    meet(tmp_path / "meeting", rank=1, world=2, one_node=False, timeout=SOON)
    assert os.environ["MASTER_ADDR"] == meeting["addresses"][0]


def test_somebody_else_at_the_address_is_not_taken_for_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "ANSWER_S", PATIENCE_S)
    other = host(tmp_path / "other", True, SOON)
    assert store_at("127.0.0.1", other.port, "our secret", SOON) is None
    assert store_at("127.0.0.1", other.port, json.loads((tmp_path / "other").read_text())["secret"], SOON) is not None


def test_an_address_that_this_machine_has_too_is_not_rank_0s_on_another_one() -> None:
    mine, elsewhere = own_addresses()[-1], "192.0.2.77"
    assert usable_addresses(Meeting(host="another", addresses=[mine, elsewhere], port=1, secret="")) == [elsewhere]
    assert usable_addresses(Meeting(host=socket.gethostname(), addresses=[mine], port=1, secret="")) == [mine]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks whose clock moves by all their patience whenever they wait."""
    now = [0.0]
    monkeypatch.setattr(rendezvous, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: now.append(now.pop() + 2 * PATIENCE_S)))


@pytest.mark.usefixtures("impatient")
def test_a_rank_0_that_never_comes_is_told_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(MeetingError, match="has not written .*meeting"):
        meet(tmp_path / "meeting", rank=1, world=2, one_node=True, timeout=SOON)


@pytest.mark.usefixtures("impatient")
def test_ranks_that_never_come_are_counted(tmp_path: Path) -> None:
    with pytest.raises(MeetingError, match="only 1 of 3 ranks"):
        meet(tmp_path / "meeting", rank=0, world=3, one_node=True, timeout=SOON)


CARDS = {"lo": "127.0.0.1", "idrac0": "169.254.0.2", "virbr0": "192.168.122.1", "eno1": "10.1.0.7"}


def has_cards(monkeypatch: pytest.MonkeyPatch, **up: bool) -> None:
    """Plays this machine's network cards. `up`: further ones, without an address."""
    import psutil

    addresses = {name: [SimpleNamespace(address=address)] for name, address in CARDS.items()} | {name: [] for name in up}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: addresses)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: {name: SimpleNamespace(isup=up.get(name, True)) for name in addresses})
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)


def cards_taken() -> list[str | None]:
    return [os.environ.get(name) for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")]


@pytest.mark.parametrize(
    ("address", "up", "taken"),
    [
        ("10.1.0.7", {}, ["=eno1", "eno1"]),
        ("10.1.0.7", {"ib0": True}, [None, "eno1"]),
        ("10.1.0.7", {"hsn0": True}, [None, "eno1"]),
        ("10.1.0.7", {"ib0": False}, ["=eno1", "eno1"]),
        ("127.0.0.1", {}, [None, None]),
        ("", {}, [None, None]),
        ("10.9.9.9", {}, [None, None]),
    ],
)
def test_the_card_of_the_address_that_works_is_taken(monkeypatch: pytest.MonkeyPatch, address: str, up: dict[str, bool], taken: list[str]) -> None:
    has_cards(monkeypatch, **up)
    use_interface_of(address)
    assert cards_taken() == taken


def test_a_card_that_the_user_names_stays(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    has_cards(monkeypatch)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "virbr0")
    use_interface_of("10.1.0.7")
    assert cards_taken() == ["virbr0", "eno1"]
    told = "GLOO_SOCKET_IFNAME=eno1 (the card that reaches the other nodes), NCCL_SOCKET_IFNAME=virbr0 (set by the environment)"
    assert capsys.readouterr().out == f"network: {told}\n"


def test_what_is_left_to_a_library_is_told_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    has_cards(monkeypatch, ib0=True)
    use_interface_of("10.1.0.7")
    assert capsys.readouterr().out.endswith(", NCCL_SOCKET_IFNAME is left to the library\n"), "it knows InfiniBand better"


NAMES = (f"vssm-{os.getpid()}-a", f"vssm-{os.getpid()}-b")  # another run of the tests on this machine has others


@pytest.fixture
def two_nodes() -> Iterator[tuple[str, ...]]:
    """Two network namespaces with a wire between them, and before it a card that leads nowhere and has the same address in both."""

    def ip(*words: str, check: bool = True) -> None:
        subprocess.run(["ip", *words], check=check, capture_output=True)

    for name in NAMES:
        ip("netns", "del", name, check=False)
        ip("netns", "add", name)
        ip("-n", name, "link", "add", "bmc0", "type", "veth", "peer", "name", "bmc1")
        ip("-n", name, "address", "add", "192.168.99.1/24", "dev", "bmc0")
        for card in ("bmc0", "bmc1", "lo"):
            ip("-n", name, "link", "set", card, "up")
    ip("link", "add", "eth9", "netns", NAMES[0], "type", "veth", "peer", "name", "eth9", "netns", NAMES[1])
    for number, name in enumerate(NAMES, 1):
        ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "eth9")
        ip("-n", name, "link", "set", "eth9", "up")
    yield NAMES
    for name in NAMES:
        ip("netns", "del", name, check=False)


CLONE_NEWNET, CLONE_NEWUTS = 0x40000000, 0x04000000  # of <sched.h>


def member(folder: Path, nodes: list[str]) -> None:
    """A rank: moves to the network and the name of its node, and meets the others. `nodes`: of all ranks."""
    import torch

    from jobs.parallel.engine import rendezvous

    rank, libc = int(os.environ["RANK"]), ctypes.CDLL(None, use_errno=True)
    node = nodes[rank]
    with open(f"/run/netns/{node}", "rb") as network:
        assert libc.setns(network.fileno(), CLONE_NEWNET) == 0 and libc.unshare(CLONE_NEWUTS) == 0, os.strerror(ctypes.get_errno())
    socket.sethostname(node)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]
    os.environ |= {"NNODES": "2", "LOCAL_RANK": str(nodes[:rank].count(node)), "MEETING_FILE": str(folder / "meeting")}
    ranks = rendezvous(threads=1)
    print("sum", int(ranks.sum(torch.tensor([ranks.rank + 1]))), os.environ.get("GLOO_SOCKET_IFNAME"), os.environ.get("NCCL_SOCKET_IFNAME"))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and ip, for networks of its own")
def test_nodes_with_a_card_that_leads_nowhere_take_the_one_that_leads_to_each_other(tmp_path: Path, two_nodes: tuple[str, ...]) -> None:
    """Three ranks: two on the first node, where every address answers, and one on the second."""
    first, second = two_nodes
    ended = finish_ranks(start_ranks(f"{__name__}:member", 3, tmp_path, nodes=[first, first, second]), tmp_path)
    assert [(status, "sum 6 eth9 =eth9" in output) for status, output in ended] == [(0, True)] * 3, ended
