"""Network cards."""

from types import SimpleNamespace

import psutil
import pytest

from harness.health import network
from jobs.parallel.rendezvous import INTERFACES


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> dict[str, SimpleNamespace]:
    """The cards of this machine."""
    known = {"lo": SimpleNamespace(isup=True), "eth0": SimpleNamespace(isup=True), "ib0": SimpleNamespace(isup=False)}
    monkeypatch.setattr(psutil, "net_if_stats", lambda: known)
    monkeypatch.setattr(network, "own_addresses", lambda: ["10.0.0.1"])
    for name in INTERFACES:
        monkeypatch.delenv(name, raising=False)
    return known


def test_fast_cards_are_named(cards: dict[str, SimpleNamespace]) -> None:
    (finding,) = network.network(2)
    assert finding.state == "ok" and finding.text.endswith("eth0; ranks take the card on which rank 0 answers")
    cards["ib0"].isup = True
    (finding,) = network.network(2)
    assert finding.text.endswith("eth0, ib0; ib0 for NCCL")


def test_a_card_that_is_set_and_not_there_is_a_warning(cards: dict[str, SimpleNamespace], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "=eth")
    assert next(network.network(2)).state == "ok", "NCCL takes beginnings"
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "hsn0")
    (finding,) = network.network(2)
    assert finding.state == "warning" and "no card here is named hsn0" in finding.text


def test_several_nodes_need_an_address(cards: dict[str, SimpleNamespace], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "own_addresses", lambda: ["127.0.0.1"])
    assert next(network.network(1)).state == "ok"
    assert next(network.network(2)).state == "warning"
