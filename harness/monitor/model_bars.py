"""A progress bar for each model, as wide as the terminal leaves room for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.text import Text

from harness.monitor.run_status import ModelProgress
from harness.text import counted

MODELS = 12  # that are shown
NAME, BAR = (12, 40), (6, 40)  # least and greatest widths
TRAINED, LOST, LEFT = "█", "x", "░"


@dataclass(frozen=True, kw_only=True)
class ModelBars:
    """What rich prints: a line for each model with its name, bar, percentage, cells done, and cells that failed."""

    models: Sequence[ModelProgress]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The lines."""
        shown = self.models[:MODELS]
        ends = [ending(model) for model in shown]
        needed, least, most = max((cell_len(model.model) for model in shown), default=0), *NAME
        tail = max(map(cell_len, ends), default=0)
        name = min(max(least, min(needed, most)), max(1, options.max_width - tail - BAR[0] - 2), needed)
        bar = min(BAR[1], max(1, options.max_width - name - tail - 2))
        for model, end in zip(shown, ends, strict=True):
            yield line(model, end, name, bar)
        if len(self.models) > len(shown):
            yield Text(f"and {counted(len(self.models) - len(shown), 'more model')}", style="dim")


def ending(model: ModelProgress) -> str:
    """' 45%   3/12', with the number of cells that will not end well."""
    bad = model.cells.get("failed", 0) + model.cells.get("blocked", 0)
    return f"{int(100 * model.fraction):3}%  {model.ended}/{model.total}" + (f"  {bad} failed" if bad else "")


def line(model: ModelProgress, end: str, name: int, bar: int) -> Text:
    """A model's line, its name and bar in these widths."""
    title = model.model if cell_len(model.model) <= name else set_cell_size(model.model, max(1, name - 1)) + "~"
    text = Text(set_cell_size(title, name) + " ", no_wrap=True, overflow="crop")
    trained, lost, left = parts(model, bar)
    text.append(TRAINED * trained, style="green" if model.fraction == 1 else "cyan").append(LOST * lost, style="red").append(LEFT * left, style="dim")
    return text.append(f" {end}", style="red" if model.cells.get("failed") or model.cells.get("blocked") else "")


def parts(model: ModelProgress, width: int) -> tuple[int, int, int]:
    """Characters of a bar for what was trained, what is lost and what is left. A bar is full only when all is trained."""
    if not model.epochs:
        return 0, 0, width
    trained = int(width * model.fraction)
    lost = min(width - trained, max(round(width * model.lost / model.epochs), 1 if model.lost else 0))
    return trained, lost, width - trained - lost
