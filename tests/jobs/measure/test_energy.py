import sys
from pathlib import Path

import pytest
import torch

from jobs.measure.energy import Meter, StageEnergy
from jobs.parallel.engine import Ranks

CPU = torch.device("cpu")


def zone(powercap: Path, name: str, energy_uj: int, range_uj: int = 1_000_000_000) -> Path:
    """A package's counter as Linux shows it."""
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder


def test_joules_are_those_of_all_packages_since_the_meter_was_made(tmp_path: Path) -> None:
    packages = [zone(tmp_path, f"intel-rapl:{i}", 5_000_000) for i in range(2)]
    zone(tmp_path, "intel-rapl:0:0", 1_000_000)  # the cores of package 0, which package 0 counts already
    meter = Meter(CPU, tmp_path)
    for package in packages:
        (package / "energy_uj").write_text("7500000")
    assert meter.joules() == pytest.approx(5.0) and meter.missing == ""


def test_a_counter_that_began_again_at_0_is_followed(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", 9_000_000, range_uj=10_000_000)
    meter = Meter(CPU, tmp_path)
    (package / "energy_uj").write_text("2000000")
    assert meter.joules() == pytest.approx(3.0)


def test_a_machine_without_counters_gives_nothing_and_says_why(tmp_path: Path) -> None:
    meter = Meter(CPU, tmp_path)
    assert meter.joules() is None and "no RAPL counters" in meter.missing


def test_a_counter_that_cannot_be_read_gives_nothing_and_says_why(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", 5_000_000)
    meter = Meter(CPU, tmp_path)
    (package / "energy_uj").write_text("")
    assert meter.joules() is None and str(package / "energy_uj") in meter.missing


def test_a_gpu_that_nvml_does_not_know_gives_nothing_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        uuid = "00000000-0000-0000-0000-000000000000"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    meter = Meter(torch.device("cuda"))
    assert meter.joules() is None and "NVML" in meter.missing


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_at_work_uses_joules() -> None:
    meter, work = Meter(torch.device("cuda")), torch.randn(8192, 8192, device="cuda")
    for _ in range(200):
        work @ work
    torch.cuda.synchronize()
    joules = meter.joules()
    if joules is None:
        pytest.skip(meter.missing)
    assert joules > 1


def stage_energy(powercap: Path, monkeypatch: pytest.MonkeyPatch, local_rank: int = 0, before: float | None = 0.0) -> StageEnergy:
    """That of one rank of two on a machine with these counters; the other rank always adds 7 joules."""
    monkeypatch.setattr("jobs.measure.energy.Meter.__init__.__defaults__", (powercap,))
    ranks = Ranks(rank=local_rank, local_rank=local_rank, world=2, device=CPU)
    monkeypatch.setattr(Ranks, "sum", lambda self, tensor: tensor + 7)
    return StageEnergy(ranks, before)


def test_a_stage_that_goes_on_adds_to_what_it_had_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = zone(tmp_path, "intel-rapl:0", 0)
    energy = stage_energy(tmp_path, monkeypatch, before=10.0)
    (package / "energy_uj").write_text("2000000")
    assert (energy.own(), energy.total()) == (12.0, 19.0)


def test_the_second_rank_of_a_node_does_not_count_its_packages_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = zone(tmp_path, "intel-rapl:0", 0)
    energy = stage_energy(tmp_path, monkeypatch, local_rank=1)
    (package / "energy_uj").write_text("2000000")
    assert (energy.own(), energy.total()) == (0.0, 7.0)


@pytest.mark.parametrize(("counters", "before"), [(0, 0.0), (1, None)])
def test_what_one_rank_does_not_know_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counters: int, before: float | None) -> None:
    for i in range(counters):
        zone(tmp_path, f"intel-rapl:{i}", 0)
    energy = stage_energy(tmp_path, monkeypatch, before=before)
    assert energy.own() is None and energy.total() is None


class Nvml:
    """Stands for pynvml on a machine with one GPU, whose counter rises by 2500 mJ with every reading."""

    NVMLError = RuntimeError

    def __init__(self) -> None:
        self.millijoules, self.asked = 1_000_000, list[str]()

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.asked.append(uuid)
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        self.millijoules += 2500
        return self.millijoules


def test_a_gpus_joules_are_the_thousandths_that_nvml_counted_since_the_meter_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        uuid = "1234"

    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    meter = Meter(torch.device("cuda"))
    assert [meter.joules(), meter.joules()] == [2.5, 5.0] and meter.missing == ""
    assert set(nvml.asked) == {"GPU-1234"}
