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


def honest_run(folder: Path) -> Path:
    """The run folder of a finished run with its tables, in `folder`. Processes that ask at once share it."""
    from harness.launch import main as launch  # here, because most tests need none of it

    folder.mkdir(exist_ok=True)
    with claimed(folder / "lock"):
        if not (folder / "runs").exists():
            cluster = {"kind": "debug", "profile_s": 0.001, "profile_batch": 2, "cache": str(folder / "cache")}
            (folder / "grid.yaml").write_text(yaml.safe_dump(GRID | {"cluster": cluster}))
            assert launch([str(folder / "grid.yaml"), "--runs", str(folder / "running")]) == 0
            (folder / "running").rename(folder / "runs")
    return folder / "runs" / "honest"
