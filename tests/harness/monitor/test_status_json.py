"""The status for scripts."""

import json
from pathlib import Path

import jsonschema
import pytest

from harness.monitor.run_status import Observer
from harness.monitor.status_json import result_of, status_json
from tests.support.fake_slurm import FakeSlurm
from tests.support.runs import FakeRun

SCHEMA = json.loads((Path(__file__).parents[3] / "harness/schemas/status.schema.json").read_text())


def test_every_part_keeps_to_the_schema(fake: FakeRun, slurm: FakeSlurm) -> None:
    one, two = fake.trunks
    fake.finish(one)
    done, failed, ran = fake.cells_of(one)
    fake.finish(done.stages[1])
    fake.record(done)
    fake.fail(failed.stages[1], traceback='Traceback\n  File "/x/jobs/a.py", line 3, in f\nValueError: no')
    fake.submit({"17_0": [ran.stages[1]], "17_1": [two]})
    slurm.queue(j17_0="RUNNING", j17_1="PENDING:Priority")
    fake.beat(ran.stages[1])
    shown = json.loads(json.dumps(status_json(Observer(fake.run).look()).to_json()))
    jsonschema.validate(shown, SCHEMA)
    assert shown["cells"] == {"done": 1, "running": 1, "queued": 3, "blocked": 0, "failed": 1, "open": 0, "unknown": 0}
    assert shown["result"] == "under way" and shown["cell_states"][failed.cell.id] == "failed" and shown["models"][0]["cells"]["done"] == 1
    (stage,) = shown["at_work"]
    assert (stage["stage"], stage["phase"], stage["epoch"], stage["fraction"], stage["job"]) == (ran.stages[1], "training", 1, 0.25, "17_0")
    (failure,) = shown["failures"]
    assert (failure["kind"], failure["location"], failure["stages"]) == ("ValueError", "jobs/a.py:3 in f", [failed.stages[1]])
    assert shown["expected_end"].endswith("+00:00") and shown["left_s"] > 0


@pytest.mark.parametrize(
    ("counts", "result"),
    [
        ({"done": 3}, "done"),
        ({"done": 1, "blocked": 2}, "failed"),
        ({"failed": 1, "open": 1}, "open"),
        ({"failed": 1, "unknown": 1, "open": 1}, "unknown"),
        ({"failed": 1, "queued": 1, "unknown": 1}, "under way"),
    ],
)
def test_the_result_is_the_first_that_holds(fake: FakeRun, counts: dict[str, int], result: str) -> None:
    status = Observer(fake.run).look()
    object.__setattr__(status, "counts", counts)
    assert result_of(status) == result
