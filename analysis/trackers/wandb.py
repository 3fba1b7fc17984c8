"""Cells as offline runs of Weights & Biases, which `wandb sync` uploads. A run has the cell's id, so that a second upload changes the same run."""

from collections.abc import Iterable
from pathlib import Path

from analysis.trackers.tracked import Tracked


def write(cells: Iterable[Tracked], folder: Path) -> str:
    """Writes an offline run for each cell; nothing is sent. Returns how to upload them."""
    import wandb

    settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True)
    for cell in cells:
        run = wandb.init(
            mode="offline",
            dir=str(folder),
            project=cell.group,
            id=cell.id,
            name=cell.name,
            config=dict(cell.settings),
            settings=settings,
        )
        for point in cell.points:
            run.log({**point.values, "time": point.time}, step=point.step)
        run.summary.update({f"final/{name}": value for name, value in cell.final.items()})
        if cell.failure:
            run.summary.update({"failure": cell.failure})
        run.finish(exit_code=1 if cell.failure else 0)
    return f"wandb sync {folder}/wandb/offline-run-*"
