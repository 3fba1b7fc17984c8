"""Cells as runs of TensorBoard: a folder of event files for each."""

from collections.abc import Iterable
from pathlib import Path

from analysis.trackers.tracked import Tracked


def write(cells: Iterable[Tracked], folder: Path) -> str:
    """Writes an event file for each cell, with its curves, its final numbers and its settings as text. Returns how to look at them."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for cell in cells:
        writer = EventFileWriter(str(folder / cell.group / cell.id))
        for point in cell.points:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            writer.add_event(Event(wall_time=point.time, step=point.step, summary=Summary(value=values)))
        last = cell.points[-1].step if cell.points else 0
        final = [Summary.Value(tag=f"final/{name}", simple_value=value) for name, value in cell.final.items()]
        writer.add_event(Event(wall_time=cell.finished, step=last, summary=Summary(value=final)))
        writer.add_event(Event(wall_time=cell.finished, step=0, summary=text_pb("settings", described(cell))))
        writer.close()
    return f"tensorboard --logdir {folder}"


def described(cell: Tracked) -> str:
    """A table of the settings, in Markdown."""
    lines = {"cell": cell.name, **({"failure": cell.failure} if cell.failure else {}), **cell.settings}
    return "\n".join(["| setting | value |", "|---|---|", *(f"| {name} | {str(value).replace('|', ' ')} |" for name, value in lines.items())])
