"""Energy that this process's device used, where the machine tells: NVML for an NVIDIA GPU, Intel's and AMD's RAPL counters for CPU packages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from jobs.parallel.engine import Ranks

POWERCAP = Path("/sys/class/powercap")


class Counter(Protocol):
    """A counter of energy that only grows."""

    def joules(self) -> float:
        """Its reading."""


class NoEnergy(RuntimeError):
    """The machine does not tell; the message says why."""


@dataclass(frozen=True)
class GpuCounter:
    """Joules of a GPU since its driver was loaded (Volta and later). Counts whatever runs on it."""

    device: torch.device

    def joules(self) -> float:
        """Its reading. NoEnergy where NVML refuses."""
        try:
            import pynvml

            pynvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(uuid)) / 1e3
        except (ImportError, AttributeError) as error:
            raise NoEnergy(f"NVML cannot be asked ({error}); pip install nvidia-ml-py") from error
        except pynvml.NVMLError as error:
            raise NoEnergy(f"NVML gives no energy of this GPU: {error}") from error


class PackageCounter:
    """Joules of one CPU package. Counts whatever runs on it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the package's zone in /sys/class/powercap. NoEnergy where it cannot be read."""
        self.file = folder / "energy_uj"
        self.range_uj = self.read(folder / "max_energy_range_uj")  # where the counter begins again at 0
        self.last_uj, self.total_uj = self.read(self.file), 0

    def read(self, file: Path) -> int:
        """The number in a file."""
        try:
            return int(file.read_text())
        except (OSError, ValueError) as error:
            raise NoEnergy(f"{file} cannot be read ({error}): it is root's on most systems") from error

    def joules(self) -> float:
        """Its reading since it was made; asked at least once a round of the counter, an hour or more."""
        now_uj = self.read(self.file)
        self.total_uj += now_uj - self.last_uj if now_uj >= self.last_uj else now_uj + self.range_uj - self.last_uj
        self.last_uj = now_uj
        return self.total_uj / 1e6


def counters(device: torch.device, powercap: Path = POWERCAP) -> Sequence[Counter]:
    """The counters of a device. Raises NoEnergy where there is none."""
    if device.type == "cuda":
        return [GpuCounter(device)]
    packages = sorted(folder for folder in powercap.glob("*-rapl:*") if folder.name.count(":") == 1)
    if not packages:
        raise NoEnergy(f"this machine has no RAPL counters ({powercap}/intel-rapl:*); virtual machines hide them")
    return [PackageCounter(folder) for folder in packages]


class Meter:
    """Energy from the moment it is made; `silent` says why there is none, and is empty where there is."""

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        self.silent = ""
        try:
            self.counters = counters(device, powercap)
            self.began_j = sum(one.joules() for one in self.counters)
        except NoEnergy as error:
            self.silent = str(error)

    def joules(self) -> float | None:
        """Joules so far; None, and `silent` says why, where the machine does not tell."""
        if self.silent:
            return None
        try:
            return sum(one.joules() for one in self.counters) - self.began_j
        except NoEnergy as error:
            self.silent = str(error)
            return None


class StageEnergy:
    """Joules of a stage in training, over its ranks and restarts. Ranks of a node share its CPU packages: the first of them counts those."""

    def __init__(self, ranks: "Ranks", before: float | None) -> None:
        """`before`: this rank's joules when the stage was killed; None where they were not known."""
        self.ranks, self.before = ranks, before
        self.counted_elsewhere = ranks.device.type == "cpu" and ranks.local_rank > 0
        self.meter = Meter(ranks.device)

    def own(self) -> float | None:
        """This rank's joules so far."""
        if self.counted_elsewhere:
            return 0.0
        here = self.meter.joules()
        return None if here is None or self.before is None else self.before + here

    def total(self) -> float | None:
        """All ranks' joules so far, None where one does not know; a collective."""
        own = self.own()
        total = float(self.ranks.sum(torch.tensor([float("nan") if own is None else own], dtype=torch.float64, device=self.ranks.device)))
        return None if math.isnan(total) else total
