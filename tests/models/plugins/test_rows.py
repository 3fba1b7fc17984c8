"""What is wrong with a row, in words."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import pytest

from models.plugins.rows import field_problem, method_problem, model_problem, settable
from models.pruning.base import Budget, PruningMethod, Stage
from models.pruning.registry import METHODS
from models.registry import MODELS, ModelEntry
from models.typed import AT_LEAST_1
from tests.support.networks import toy_net


@dataclass(frozen=True, kw_only=True)
class Part:
    size: int = 3


@dataclass(frozen=True, kw_only=True)
class Config:
    width: Annotated[int, AT_LEAST_1] = 4
    kind: Literal["a", "b"] = "a"
    part: Part | None = None
    sizes: tuple[int, ...] = (1, 2)

    def check(self) -> None:
        """Nothing to say."""


def build(config: Config, img_size: int, num_classes: int, scan_backend: str) -> Any:
    return toy_net()


ENTRY = ModelEntry(build=build, config=Config(part=Part(size=1)), img_size=32)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_ours_would_pass_as_a_plug_in(name: str) -> None:
    assert model_problem(name, MODELS[name]) is None


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_ours_would_pass_as_a_plug_in(name: str) -> None:
    assert method_problem(name, METHODS[name]) is None


@dataclass
class Changing:
    width: int = 4


@dataclass(frozen=True, kw_only=True)
class Unchecked:
    width: int = 4


@dataclass(frozen=True, kw_only=True)
class Refusing(Config):
    def check(self) -> None:
        """Refuses everything."""
        raise ValueError("width is odd")


@dataclass(frozen=True, kw_only=True)
class Arrays(Config):
    table: Mapping[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Unreadable(Config):
    table: "NoSuchType" = 3  # type: ignore[name-defined]  # noqa: F821


@dataclass(frozen=True, kw_only=True)
class Labelled(Config):
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Sized(Config):
    img_size: int = 32


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (build, "expected a models.registry.ModelEntry, got the function build(config"),
        (ModelEntry, "expected a models.registry.ModelEntry, got the class ModelEntry"),
        (replace(ENTRY, build=lambda config: None), "build must be a function build(config, img_size, num_classes, scan_backend), got the function"),
        (replace(ENTRY, build="net"), "build must be a function build(config, img_size, num_classes, scan_backend), got a value of type str"),
        (replace(ENTRY, config=Config), "config must be an object of a dataclass, such as Config(), got the class Config"),
        (replace(ENTRY, config={"width": 4}), "config must be an object of a dataclass, such as Config(), got a value of type dict"),
        (replace(ENTRY, config=Changing()), "Changing must not change: write @dataclass(frozen=True, kw_only=True) above it"),
        (replace(ENTRY, config=Unchecked()), "Unchecked needs a method check(self)"),
        (replace(ENTRY, img_size="32"), "img_size must be a whole number of pixels, got '32'"),
        (replace(ENTRY, config=Config(width=0)), "Config: Config.width: must be 1 or more, got 0"),
        (replace(ENTRY, config=Config(kind="c")), "Config: Config.kind: unknown value 'c'"),
        (replace(ENTRY, config=Refusing()), "its options do not go together: width is odd"),
        (replace(ENTRY, config=Labelled()), "Labelled.label: label means something else in an entry of models; give the field another name"),
        (replace(ENTRY, config=Sized()), "Sized.img_size: img_size means something else"),
        (replace(ENTRY, config=Arrays()), "Arrays.table: no setting can be a "),
        (replace(ENTRY, config=Unreadable()), "Unreadable: its annotations cannot be read: NameError: name 'NoSuchType' is not defined"),
    ],
)
def test_a_model_that_is_none_is_refused(entry: Any, message: str) -> None:
    assert model_problem("net", ENTRY) is None
    problem = model_problem("net", entry)
    assert problem is not None and problem.startswith(message)


class Plain(PruningMethod):
    name: ClassVar[str] = "plain"
    strength: float


@dataclass(frozen=True, kw_only=True)
class Stageless(PruningMethod):
    name: ClassVar[str] = "stageless"


@dataclass(frozen=True, kw_only=True)
class Nameless(PruningMethod):
    strength: float = 0.5


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Config, "expected a class that inherits from models.pruning.base.PruningMethod, got the class Config"),
        (Stageless(), "expected a class that inherits from models.pruning.base.PruningMethod, got a value of type Stageless"),
        (Plain, "Plain must be a dataclass: write @dataclass(frozen=True, kw_only=True) above it"),
        (Nameless, "Nameless must have the same name inside: name: ClassVar[str] = 'outside'"),
        (type("Other", (Stageless,), {"__dataclass_fields__": {}}), "Other must have the same name inside"),
    ],
)
def test_a_method_that_is_none_is_refused(method: Any, message: str) -> None:
    assert str(method_problem("outside", method)).startswith(message)


@dataclass(frozen=True, kw_only=True)
class Grouped(PruningMethod):
    name: ClassVar[str] = "outside"
    cluster: int = 2

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """None."""
        return ()


def test_a_knob_that_no_grid_could_set_is_refused() -> None:
    problem = "Grouped.cluster: cluster means something else in an entry of pruning; give the field another name"
    assert method_problem("outside", Grouped) == problem


def test_a_method_without_stages_is_refused() -> None:
    assert method_problem("stageless", Stageless) == "Stageless needs a method stages(self, budget), which gives the stages of a cell"


def test_a_setting_has_a_type_that_yaml_has() -> None:
    good = [int, float | None, Literal["a"], tuple[int, ...], tuple[float, float], list[str], Part, Part | None, Any]
    bad = [dict[str, int], set, complex, type, tuple[dict[str, int], ...], Mapping[str, int] | None]
    assert all(map(settable, good)) and not any(map(settable, bad))
    assert field_problem(Config) is None
