"""A progress bar for each model."""

import pytest
from rich.console import Console

from harness.monitor.model_bars import MODELS, ModelBars, parts
from harness.monitor.run_status import ModelProgress


def model(name: str = "vim_micro", *, trained: float = 5.0, lost: float = 0.0, failed: int = 0) -> ModelProgress:
    """A model with ten epochs in four cells."""
    return ModelProgress(model=name, cells={"done": 1, "failed": failed, "queued": 3 - failed}, epochs=10.0, trained=trained, lost=lost)


def printed(*models: ModelProgress, width: int = 80) -> list[str]:
    """The lines at a width."""
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(ModelBars(models=models))
    return capture.get().splitlines()


def test_a_line_has_name_bar_percentage_and_cells() -> None:
    assert printed(model(), width=40) == ["vim_micro " + "█" * 10 + "░" * 10 + "  50%  1/4"]
    assert printed(model(lost=2.5, failed=1), width=50) == ["vim_micro " + "█" * 10 + "xxxxx" + "░" * 5 + "  50%  1/4  1 failed"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_bars_of_all_models_begin_and_end_together_within_the_width(width: int) -> None:
    lines = printed(model("a"), model("vmamba_tiny_s1l8+se+another_part_with_a_long_name"), model("b", trained=10.0), width=width)
    assert len(lines) == 3 and max(map(len, lines)) <= width
    starts = {min(line.index(sign) for sign in "█░" if sign in line) for line in lines}
    assert len(starts) == 1 and "~" in lines[1]


def test_a_bar_is_full_only_when_all_is_trained_and_a_lost_stage_is_always_seen() -> None:
    assert parts(model(trained=9.99), 10) == (9, 0, 1) and parts(model(trained=10.0), 10) == (10, 0, 0)
    assert parts(model(trained=9.99, lost=0.01), 10) == (9, 1, 0) and parts(model(trained=0.0, lost=10.0), 10) == (0, 10, 0)
    assert parts(ModelProgress(model="", cells={}, epochs=0.0, trained=0.0, lost=0.0), 10) == (0, 0, 10)


def test_only_so_many_models_are_shown() -> None:
    lines = printed(*(model(f"model_{number}") for number in range(MODELS + 2)))
    assert len(lines) == MODELS + 1 and lines[-1] == "and 2 more models"
