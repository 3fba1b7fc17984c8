"""Cells in the format of every_eval_ever, a shared schema of evaluation results: https://github.com/evaleval/every_eval_ever, version 0.3.0.

A file for each cell that has ended with numbers. Its results are top-1 and top-5 on the test set, each with its binomial standard error.
"""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from analysis.trackers.tracked import Tracked
from jobs.experiment.files import write_text

VERSION: Final = "0.3.0"
LIBRARY: Final = "vssm-bench"
METRICS: Final = {"top1": "top-1 accuracy", "top5": "top-5 accuracy"}


def write(cells: Iterable[Tracked], folder: Path) -> str:
    """Writes a file for each cell with numbers. Returns how to go on."""
    for cell in cells:
        if cell.final:
            write_text(folder / cell.group / f"{cell.id}.json", json.dumps(evaluation(cell), indent=1, ensure_ascii=False) + "\n")
    return f"{folder}: set source_organization_name and evaluator_relationship before you share the files"


def evaluation(cell: Tracked) -> dict[str, Any]:
    """A cell as the schema has it. Times are seconds since 1970, as text."""
    settings = {name: str(value) for name, value in cell.settings.items()}
    finished = str(round(cell.finished))
    costs = {name: str(value) for name, value in cell.final.items() if name not in METRICS}
    return {
        "schema_version": VERSION,
        "evaluation_id": f"{cell.group}/{cell.id}/{finished}",
        "evaluation_timestamp": finished,
        "retrieved_timestamp": finished,
        "source_metadata": {
            "source_name": f"{LIBRARY}, grid {cell.group}",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
        },
        "eval_library": {"name": LIBRARY, "version": "unknown"},
        "model_info": {
            "name": cell.name,
            "id": f"{LIBRARY}/{cell.id}",
            "additional_details": {"deployment_type": "self_deployed", "model_availability": "unknown", **settings, **costs},
        },
        "evaluation_results": list(results(cell, finished)),
    }


def results(cell: Tracked, finished: str) -> Iterator[dict[str, Any]]:
    """The accuracies of a cell."""
    data = str(cell.settings.get("spec.data.name") or cell.settings.get("spec.data.source", "unknown"))
    images = int(cell.final.get("test_samples", 0))
    for metric, words in METRICS.items():
        if metric not in cell.final:
            continue
        score = cell.final[metric]
        error = {"standard_error": {"value": standard_error(score, images), "method": "analytic"}} if images else {}
        yield {
            "evaluation_result_id": f"{cell.id}/{metric}",
            "evaluation_name": f"{data} {words}",
            "evaluation_timestamp": finished,
            "source_data": {"dataset_name": data, "source_type": "other", "additional_details": {"samples_number": str(images)}},
            "metric_config": {
                "evaluation_description": f"{words} on the test set, of the saved network loaded again",
                "metric_id": "accuracy",
                "metric_name": words,
                "metric_kind": "accuracy",
                "metric_unit": "percent",
                "metric_parameters": {"k": int(metric.removeprefix("top"))},
                "lower_is_better": False,
                "score_type": "continuous",
                "min_score": 0,
                "max_score": 100,
            },
            "score_details": {"score": score, "uncertainty": {**error, "num_samples": images}},
        }


def standard_error(percent: float, images: int) -> float:
    """The binomial standard error of an accuracy over so many images, in percent."""
    return math.sqrt(percent * (100 - percent) / images)
