"""Small plug-ins, written where a test wants them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.plugins.tables import forget_rows

MODEL = """
from dataclasses import dataclass
from models.registry import ModelEntry

@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 8

    def check(self) -> None:
        if self.width > 64:
            raise ValueError("width must be at most 64")

def build(config, img_size, num_classes, scan_backend):
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(3 * img_size**2, config.width), nn.ReLU(), nn.Linear(config.width, num_classes))

MODELS = {
    "outside_net": ModelEntry(build=build, config=Config(), img_size=32),
}
"""
METHOD = """
from dataclasses import dataclass
from typing import ClassVar
from models.pruning.base import PruningMethod
from models.pruning.knobs import finetune, trunk

@dataclass(frozen=True, kw_only=True)
class Outside(PruningMethod):
    name: ClassVar[str] = "outside"
    strength: float = 0.5

    def stages(self, budget):
        return trunk(budget), finetune(budget, self)

    def begin(self, network):
        network.set_masks({name: weight.abs() > weight.abs().quantile(self.strength) for name, weight in network.weights().items()})

METHODS = {"outside": Outside}
"""
SOURCE = """
from dataclasses import dataclass
import numpy as np
from jobs.data.content import Content, Part, Reader
from jobs.experiment.sources import SourceEntry

@dataclass(frozen=True, kw_only=True)
class Options:
    light: int = 100

    def check(self):
        if self.light > 200:
            raise ValueError("light must be at most 200")

def part(count, light):
    labels = np.arange(count) % 2
    return Part(labels=labels, image=lambda sample: np.full((8, 8, 3), light * labels[sample] + sample % 50, np.uint8), name=str)

def read(data, img_size):
    return Content(classes=2, train=part(80, data.options.light), test=part(20, data.options.light))

READER = Reader(problems=lambda data: [], identity=lambda data, by_content: 1, read=read)
SOURCES = {
    "grey": SourceEntry(img_size=8, images=80, reader=READER, options=Options()),
}
"""
GRID = """
name: outside
plugins: [plugin.py]
models: [{name: outside_net, width: 4}]
pruning: [dense, {method: outside, strength: 0.25}]
data: {source: grey}
recipe: {epochs: 1, finetune_epochs: 1, batch_size: 16}
seeds: [0]
"""


def written(folder: Path, text: str, name: str = "plugin.py") -> Path:
    """A file of a plug-in."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def own_tables() -> Iterator[None]:
    """Takes a test's rows out of the tables again."""
    yield
    forget_rows()
