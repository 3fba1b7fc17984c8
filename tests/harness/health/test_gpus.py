"""GPUs, with a driver that the tests make up."""

import pytest
import torch

from harness.health import gpus
from harness.health.gpus import Card
from jobs.experiment.specs import ClusterSpec

ON_GPUS = ClusterSpec(kind="slurm", gpus_per_node=4)


def card(**fields: object) -> Card:
    return Card(**{"name": "A100", "memory_bytes": 80 << 30, "used_bytes": 0, "mig": False} | fields)  # type: ignore[arg-type]


def told(cluster: ClusterSpec = ON_GPUS, *, on_node: bool = True) -> list[tuple[str, str]]:
    return [(finding.state, finding.text) for finding in gpus.gpus(cluster, on_node=on_node)]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> list[Card]:
    """The cards of this machine, which torch can use."""
    cards = [card(), card()]
    monkeypatch.setattr(gpus, "seen", lambda: ("580.1", cards))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr("models.ssm.backends.compiler_problem", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "nccl", type("nccl", (), {"version": staticmethod(lambda: (2, 28, 3))}))
    return cards


def test_a_machine_without_gpus_is_told_by_what_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "seen", lambda: ("", []))
    assert told(ClusterSpec())[0][0] == "ok"
    assert told()[0][0] == "error", "jobs that ask for GPUs run here"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert told(on_node=False)[0][0] == "error", "this environment is that of the nodes"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert told(on_node=False)[0][0] == "ok"


def test_cards_are_named_with_driver_and_nccl(driver: list[Card]) -> None:
    assert told() == [("ok", "2 GPUs: A100, 80 GiB; driver 580.1; CUDA 13.0, NCCL 2.28.3")]
    driver[0] = card(used_bytes=40 << 30)
    assert told()[1] == ("warning", "1 GPU in use by others")
    driver[0] = card(mig=True)
    assert told()[1] == ("warning", "MIG cuts GPUs into slices, which NCCL cannot join")


def test_a_node_without_a_c_compiler_is_told_what_triton_needs(driver: list[Card], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.ssm.backends.compiler_problem", lambda: "there is no C compiler")
    assert told()[1] == ("warning", "the scan's Triton kernels need a C compiler at their first call, and there is no C compiler")


def test_a_build_or_driver_that_cannot_use_them_is_an_error(driver: list[Card], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert told()[0][0] == "error" and "torch cannot use them" in told()[0][1]
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built for CPUs" in told()[0][1]


def test_without_a_driver_nothing_is_seen() -> None:
    version, cards = gpus.seen()
    assert bool(version) == bool(cards)
    assert gpus.text(b"A100") == gpus.text("A100") == "A100"
