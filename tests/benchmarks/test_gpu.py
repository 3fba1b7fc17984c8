"""The page of a lent GPU: its rows at tiny sizes on a CPU, and what a failure, a crash and the end of the time leave in it."""

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import checks, latency, networks, rows
from benchmarks.gpu import page as page_module
from benchmarks.gpu.__main__ import SECTIONS, main
from benchmarks.gpu.kernels import kernel_rows, launch_rows
from benchmarks.gpu.page import OVER, Page, fill, table
from benchmarks.gpu.rows import MARK, Broken, Row, Section, measured
from benchmarks.gpu.sizes import CPU, GPU
from jobs.measure.speed import Timing
from tests.benchmarks.test_official import convolve, scan
from tests.support import upstream_kernels
from tests.support.triton_device import needs_triton
from tests.support.waiting import PATIENCE_S, wait_until


@pytest.fixture(autouse=True)
def _thread() -> None:
    torch.set_num_threads(1)


TINY = replace(CPU, models=("vim_micro",), backends=("cpu",), seconds=0.001)


@pytest.mark.parametrize("name", [name for name in SECTIONS if name not in ("latency", "machine", "launch")])
def test_every_row_can_be_measured_on_a_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.ssm.check.LENGTHS", (5,))
    planned = SECTIONS[name].rows(TINY)
    figures = dict(measured(planned))
    assert list(figures) == list(range(len(planned)))
    for number, values in figures.items():
        official = "official" in str(planned[number].labels)
        assert ("mamba-ssm and causal-conv1d" in str(values.get("error"))) == official, values
        assert official or all(value != 0 and value == value for key, value in values.items() if not key.startswith(("took", "error"))), values


def test_an_image_is_timed_in_the_ways_of_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "WAYS", ({}, {"cuda_graphs": True}))
    (_, plain), (_, graphs) = measured(latency.latency_rows(TINY))
    assert plain["one image, ms"] > 0 and graphs["error"] == "NotMeasurable: CUDA graphs need a GPU"


SHORT = replace(CPU.scans[0], length=3, channels=2, states=2)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is timed runs once: Triton's interpreter is slow."""

    def race(runs: dict[str, Callable[[], object]], *_: object, **__: object) -> dict[str, Timing]:
        return {name: Timing(calls_s=(1.0,), turns_s=(1.0,), stable=run() is None) for name, run in runs.items()}

    monkeypatch.setattr("jobs.measure.speed.race", race)


@needs_triton
def test_the_triton_kernels_are_timed(once: None) -> None:
    figures = [values for _, values in measured(kernel_rows(replace(TINY, backends=("triton",), scans=(SHORT,), batch=1)))]
    assert len(figures) == 3 and all(values["forward + backward, ms"] > 0 for values in figures), figures


def test_mamba_ssms_kernels_are_timed_and_the_official_composition_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins that refuse what the kernels refuse."""
    upstream_kernels.install(monkeypatch)
    for module in ("scan", "conv"):
        monkeypatch.setattr(f"models.ssm.{module}.resolve_backend", lambda tensor, backend: "cuda" if backend == "cuda" else "reference")
    monkeypatch.setattr("benchmarks.official.upstream_kernels", lambda: (scan, convolve))
    sizes = replace(TINY, backends=("cuda",), scans=(SHORT,))
    for _, values in measured(kernel_rows(sizes)):
        assert values["forward + backward, ms"] > 0, values
    assert checks.composition("vim_micro", sizes)["error, relative"] < 1e-4
    assert networks.speed("vim_micro", "fp32", "official", "auto", sizes)["training, img/s"] > 0


@needs_triton
def test_other_launches_of_the_backward_scan_compute_the_same(once: None) -> None:
    assert launch_rows(TINY) == []
    planned = launch_rows(replace(TINY, backends=("triton",), scans=(SHORT,), batch=1))
    figures = [values for _, values in measured(planned[:2])]
    assert len(planned) == 8 and all(values["difference, relative"] < 1e-5 and values["forward, ms"] > 0 for values in figures), figures


def test_a_gpu_is_given_every_row_with_words_of_its_own() -> None:
    for section in SECTIONS.values():
        labels = [tuple(row.labels.items()) for row in section.rows(GPU)]
        assert labels and len(set(labels)) == len(labels)
    ways = {tuple(row.labels.values())[0::2] for row in SECTIONS["networks"].rows(GPU)}
    assert {("vim_tiny", "ours"), ("vim_tiny", "official"), ("vssd_tiny", "ours"), ("vmamba_tiny_s1l8", "ours")} <= ways
    assert sum(section.seconds for section in SECTIONS.values()) < 1.6 * 600  # each may use up its own, and most take less


def fails(error: Exception) -> None:
    raise error


def test_an_error_is_a_row_and_the_next_row_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = [Row(labels={}, measure=partial(fails, ValueError("no\nsuch thing"))), Row(labels={}, measure=lambda: {"x": 1.0})]
    figures = dict(measured(planned))
    assert figures[0]["error"] == "ValueError: no" and figures[1]["x"] == 1.0


def test_after_an_error_of_the_device_no_row_is_measured_in_this_process() -> None:
    planned = [Row(labels={}, measure=partial(fails, torch.AcceleratorError("an illegal memory access"))), Row(labels={}, measure=dict)]
    figures = []
    with pytest.raises(Broken, match="illegal memory access"):
        figures.extend(pair for pair in iter(measured(planned).__next__, None))
    assert rows.is_sticky(torch.AcceleratorError("x")) and not rows.is_sticky(torch.OutOfMemoryError("x")) and not rows.is_sticky(ValueError())


def page_of(folder: Path, count: int) -> Page:
    section = Section(title="Title", about="About.", rows=lambda sizes: [], seconds=9)
    return Page(folder=folder, title="Page", sections={"s": section}, labels={"s": [{"row": f"r{number}"} for number in range(count)]})


def script(body: str):
    """A process that runs `body` with the number of the first row as `first`, and `row(number, **values)` to print one."""
    head = f"import json, os, sys, time\nfirst = int(sys.argv[1])\ndef row(n, **v): print({MARK!r} + json.dumps([n, v]), flush=True)\n"
    return lambda name, first: [sys.executable, "-S", "-c", head + body, str(first)]


class OverWithARow(threading.Thread):
    """A timer whose time is over as soon as there is a row, however long that takes."""

    def __init__(self, page: Path, seconds: float, act: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.page, self.act = page, act

    def run(self) -> None:
        wait_until(self.page.exists, "a row")
        self.act()

    def cancel(self) -> None:
        """It has acted."""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("print('a package talks')\nfor n in range(first, 3): row(n, x=n)", [0, 1, 2]),
        ("for n in range(first, 3):\n    if n == 1: os.abort()\n    row(n, x=n)", [0, "its process ended with -6", 2]),
        ("if first < 2: row(first, error='Broken: x'); sys.exit(3)\nrow(2, x=2)", ["Broken: x", "Broken: x", 2]),
        ("sys.exit('torch sees no GPU here')", ["ended with 1: torch sees no GPU"] * 3),
        ("row(0, x=0); time.sleep(1200)", [0, "ended when the time was over", OVER]),
    ],
    ids=["well", "crash", "broken device", "no GPU", "hangs"],
)
def test_whatever_a_process_does_the_page_has_all_rows(tmp_path: Path, body: str, expected: list[int | str], monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of(tmp_path, 3)
    if "sleep" in body:
        monkeypatch.setattr(page_module, "time", SimpleNamespace(monotonic=lambda: float((tmp_path / "gpu.json").exists())))
        monkeypatch.setattr(page_module.threading, "Timer", partial(OverWithARow, tmp_path / "gpu.json"))
    fill(page, "s", script(body), 1.0 if "sleep" in body else time.monotonic() + PATIENCE_S)
    written = json.loads((tmp_path / "gpu.json").read_text())["sections"]["s"]
    assert [row["row"] for row in written] == ["r0", "r1", "r2"]
    for row, want in zip(written, expected, strict=True):
        assert row["x"] == want if isinstance(want, int) else want in row["error"]
    text = (tmp_path / "gpu.md").read_text()
    assert text.startswith("# Page\n") and "## Title" in text and all(f"| r{number} |" in text for number in range(3))


def test_no_process_starts_when_the_time_is_over(tmp_path: Path) -> None:
    page = page_of(tmp_path, 2)
    fill(page, "s", script("row(0, x=0)"), time.monotonic() - 1)
    assert [row["error"] for row in page.rows("s")] == [OVER, OVER]


def test_a_table_has_three_digits_the_errors_last_and_no_empty_column() -> None:
    text = table([{"a": "x|y", "n": 1234.5, "error": None, "none": None}, {"error": "bad", "a": "z", "n": 0.012345}])
    assert text == "| a | n | error |\n|---|---:|---|\n| x\\|y | 1,234 |  |\n| z | 0.0123 | bad |\n"


@pytest.mark.slow
def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--out", str(tmp_path), "--only", "machine", "launch"]) == 0
    assert capsys.readouterr().out.startswith("The machine: 1 rows\n")
    (row,) = json.loads((tmp_path / "gpu.json").read_text())["sections"]["machine"]
    assert row["torch"] == torch.__version__ and "no figure here says anything of a GPU" in (tmp_path / "gpu.md").read_text()
