"""An honest run, trained once for all tests that read or falsify a finished run."""

from pathlib import Path

import yaml

from jobs.cluster.claims import claimed

GRID = {
    "name": "honest",
    "data": {"source": "synthetic", "samples": 60, "classes": 2, "loader": "torch"},
    "recipe": {"epochs": 1, "finetune_epochs": 1, "batch_size": 16, "warmup_epochs": 0},
    "models": [{"name": "vim_micro", "dim": 8, "depth": 2}],
    "pruning": [  # networks of each kind that a record can tell of: whole, masked, smaller, with fewer tokens
        "dense",
        {"method": "random", "sparsity": 0.5},
        {"method": "magnitude", "sparsity": 0.5},
        {"method": "structured", "ratio": 0.5},
        {"method": "token_merging", "r": 8, "layers": "all"},
    ],
    "seeds": [0, 1],
}


TUNED = GRID | {
    "name": "tuned",
    "pruning": ["dense", {"method": "dense", "rounds": 1}, {"method": "magnitude", "sparsity": 0.5}],
    "tune": {"finetune_lr": [1.0e-4, 2.0e-2, 1.0e30]},  # the last one diverges; dense with rounds never fine-tunes
    "seeds": [0],
}


def honest_run(folder: Path) -> Path:
    """The run folder of a finished run with its tables, in `folder`. Processes that ask at once share it."""
    return finished_run(folder, GRID)


def tuned_run(folder: Path) -> Path:
    """The same of cells that choose among trials, one of which fails."""
    return finished_run(folder, TUNED)


def finished_run(folder: Path, grid: dict[str, object]) -> Path:
    """The run folder of a finished run of a grid, in `folder`."""
    from harness.launch import main as launch  # here, because most tests need none of it

    folder.mkdir(exist_ok=True)
    with claimed(folder / "lock"):
        if not (folder / "runs").exists():
            cluster = {"kind": "debug", "profile_s": 0.001, "profile_batch": 2, "cache": str(folder / "cache")}
            (folder / "grid.yaml").write_text(yaml.safe_dump(grid | {"cluster": cluster}))
            assert launch([str(folder / "grid.yaml"), "--runs", str(folder / "running")]) == 0
            (folder / "running").rename(folder / "runs")
    return folder / "runs" / str(grid["name"])
