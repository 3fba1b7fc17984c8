import json
from pathlib import Path

import pytest

from jobs.train.metrics import MetricsLog, Reporter, StageProgress

PROGRESS = StageProgress(epoch=1, epochs=2, step=3, steps=6, loss=0.5, img_per_s=10.0, eta_s=1.0, val_top1=None, time=0.0)


def test_going_on_cuts_what_stands_beyond_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for step in (5, 10, 15):
        log.write({"step": step})
    MetricsLog(path, 10).write({"step": 12})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5, 10, 12]


def test_a_line_that_a_kill_tore_is_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5}\n{"step": 10, "lo')
    MetricsLog(path, 10).write({"step": 10})
    assert path.read_text() == '{"step": 5}\n{"step": 10}\n'


def test_progress_is_told_once_a_second_unless_it_is_news(tmp_path, monkeypatch):
    now, told = [100.0], []
    monkeypatch.setattr("jobs.train.metrics.time.monotonic", lambda: now[0])
    reporter = Reporter(tmp_path / "progress.json", told.append)
    for seconds, news in ((0.0, False), (0.5, False), (0.6, True), (0.9, False), (1.7, False)):
        now[0] = 100.0 + seconds
        reporter.report(PROGRESS, now=news)
    assert len(told) == 3
    assert json.loads((tmp_path / "progress.json").read_text())["step"] == 3


@pytest.mark.parametrize("damage", [b"\xff\n", b"{}\n", b"[]\n", b'{"step": "4"}\n', b"{"])
def test_lines_after_a_damaged_one_are_written_again(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damage + b'{"step": 3}\n')
    MetricsLog(path, step=3)
    assert path.read_bytes() == b'{"step": 1}\n'
