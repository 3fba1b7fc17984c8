"""Energy used by this process's device, where the machine measures it: NVML for an NVIDIA GPU, Intel's and AMD's RAPL counters for CPU packages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from jobs.parallel.engine import Ranks

POWERCAP = Path("/sys/class/powercap")


class EnergyCounter(Protocol):
    """A counter of energy, which never decreases."""

    def joules(self) -> float:
        """The present reading."""


class NoEnergy(RuntimeError):
    """The machine does not measure energy, or not for this user. The message gives the reason."""


@dataclass(frozen=True)
class GpuCounter:
    """Joules of a GPU since its driver was loaded (Volta and later), for all processes on it."""

    device: torch.device

    def joules(self) -> float:
        """The present reading. NoEnergy where NVML refuses."""
        try:
            import pynvml

            pynvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(uuid)) / 1e3)
        except (ImportError, AttributeError) as error:
            raise NoEnergy(f"NVML cannot be used ({error}); pip install nvidia-ml-py") from error
        except pynvml.NVMLError as error:
            raise NoEnergy(f"NVML gives no energy of this GPU: {error}") from error


class PackageCounter:
    """Joules of one CPU package, for all processes on it."""

    def __init__(self, folder: Path) -> None:
        """Starts at 0. `folder`: the package's zone in /sys/class/powercap. NoEnergy where it cannot be read."""
        self.file = folder / "energy_uj"
        self.range_uj = self.read(folder / "max_energy_range_uj")  # the value after which the counter starts again at 0
        self.last_uj, self.total_uj = self.read(self.file), 0

    def read(self, file: Path) -> int:
        """The number in a file."""
        try:
            return int(file.read_bytes())
        except (OSError, ValueError) as error:
            raise NoEnergy(f"{file} cannot be read ({error}): on most systems only root may read it") from error

    def joules(self) -> float:
        """Joules since the start. Must be called more often than the counter starts again, which takes an hour or more."""
        now_uj = self.read(self.file)
        self.total_uj += now_uj - self.last_uj if now_uj >= self.last_uj else now_uj + self.range_uj - self.last_uj
        self.last_uj = now_uj
        return self.total_uj / 1e6


def counters(device: torch.device, powercap: Path = POWERCAP) -> Sequence[EnergyCounter]:
    """The counters of a device. Raises NoEnergy where it has none."""
    if device.type == "cuda":
        return [GpuCounter(device)]
    packages = sorted(folder for folder in powercap.glob("*-rapl:*") if folder.name.count(":") == 1)
    if not packages:
        raise NoEnergy(f"this machine has no RAPL counters ({powercap}/intel-rapl:*); virtual machines hide them")
    return [PackageCounter(folder) for folder in packages]


class Meter:
    """Energy of a device since the meter was made. `missing` is the reason why it is unknown, and empty where it is known."""

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        self.missing = ""
        try:
            self.counters = counters(device, powercap)
            self.began_j = sum(counter.joules() for counter in self.counters)
        except NoEnergy as error:
            self.missing = str(error)

    def joules(self) -> float | None:
        """Joules so far; None where they are unknown, and `missing` then has the reason."""
        if self.missing:
            return None
        try:
            return sum(counter.joules() for counter in self.counters) - self.began_j
        except NoEnergy as error:
            self.missing = str(error)
            return None


class StageEnergy:
    """Joules of a stage in training, over its ranks and restarts. Only the first rank of a node counts the node's CPU packages."""

    def __init__(self, ranks: "Ranks", before: float | None) -> None:
        """`before`: this rank's joules before a restart; None where they are unknown."""
        self.ranks, self.before = ranks, before
        self.counted_elsewhere = ranks.device.type == "cpu" and ranks.local_rank > 0
        self.meter = Meter(ranks.device)

    def own(self) -> float | None:
        """This rank's joules so far, None where they are unknown."""
        if self.counted_elsewhere:
            return 0.0
        since_start = self.meter.joules()
        return None if since_start is None or self.before is None else self.before + since_start

    def total(self) -> float | None:
        """All ranks' joules so far, None where those of any rank are unknown; a collective."""
        own = self.own()
        total = float(self.ranks.sum(torch.tensor([float("nan") if own is None else own], dtype=torch.float64, device=self.ranks.device)))
        return None if math.isnan(total) else total
