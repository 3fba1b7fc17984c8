"""The live report in a real headless Chromium."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.live import LiveReport, LiveServer
from jobs.experiment.records import Record
from tests.support.browser import CHROMIUM, Page, page
from tests.support.records import fake_curve, fake_grid, fake_run
from tests.support.runs import fake_run as launched

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")]

FRAME = "document.querySelector('iframe:not(.next)')"
USED = f"""(() => {{
  const frame = {FRAME}, page = frame.contentDocument, box = page.getElementById("filter");
  window.before = frame;
  box.value = "magnitude";
  box.dispatchEvent(new Event("input"));
  page.querySelectorAll(".board:not([hidden]) th button")[3].click();
  const cost = page.getElementById("cost");
  cost.selectedIndex = 2;
  cost.dispatchEvent(new Event("change"));
  const row = page.getElementById("row");
  row.value = [...row.options].find((option) => option.textContent === "vim_micro, magnitude-0.5").value;
  row.dispatchEvent(new Event("change"));
  page.querySelector("details").open = true;
  const slider = page.querySelector(".budget:not([hidden]) input");
  slider.value = 0;
  slider.dispatchEvent(new Event("input", {{ bubbles: true }}));
  frame.contentWindow.Plotly.relayout(page.getElementById("sparsity"), {{ "xaxis.range": [20, 60] }});
  frame.contentWindow.scrollTo(0, 700);
  frame.focus();
  box.focus({{ preventScroll: true }});
  box.setSelectionRange(2, 4);
}})()"""
KEPT = f"""(() => {{
  const frame = {FRAME}, page = frame.contentDocument, box = page.getElementById("filter");
  return {{
    frames: document.querySelectorAll("iframe").length,
    filter: box.value,
    focus: page.activeElement.id,
    marked: [box.selectionStart, box.selectionEnd],
    sorted: [...page.querySelectorAll("th[aria-sort]")].map((head) => head.textContent + " " + head.getAttribute("aria-sort")),
    cost: page.getElementById("cost").selectedIndex,
    row: page.getElementById("row").selectedOptions[0].textContent,
    budget: [page.querySelector(".budget:not([hidden]) output").textContent, page.getElementById("command").textContent],
    position: page.querySelector(".budget:not([hidden]) input").value,
    open: page.querySelector("details").open,
    zoom: page.getElementById("sparsity").layout.xaxis.range,
    top: frame.contentWindow.scrollY,
    rows: page.querySelectorAll(".board:not([hidden]) tr[data-row]").length,
  }};
}})()"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server of a run whose smallest networks are still to come."""
    folder = tmp_path_factory.mktemp("live")
    run = launched(folder)
    fake_run(run.run.path, [record for record in timed_grid() if not record.pruning.endswith("0.9")])
    fake_curve(run.run.path, run.trunks[0], 3)
    with LiveServer(LiveReport([run.run.path], folder / "store"), 0) as opened:
        threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        yield opened
        opened.shutdown()


def timed_grid() -> list[Record]:
    """A small grid in which networks with more zeros are faster."""
    timed = []
    for record in fake_grid():
        assert record.metrics
        faster = record.metrics.model_copy(update={"latency_ms": 5.0 - 2 * record.metrics.sparsity_prunable})
        timed.append(record.model_copy(update={"metrics": faster}))
    return timed


def wait(browser: Page, condition: str) -> None:
    """Returns when a condition of the page holds."""
    browser.run(f"new Promise((done) => {{ const look = () => ({condition}) ? done() : setTimeout(look, 50); look(); }})")


def test_a_new_record_appears_and_everything_that_was_chosen_stays(server: LiveServer, tmp_path: Path) -> None:
    with page(tmp_path) as browser:
        browser.send("Emulation.setDeviceMetricsOverride", width=1300, height=900, deviceScaleFactor=1, mobile=False)
        browser.send("Page.navigate", url=server.url)
        wait(browser, f"{FRAME} && document.querySelectorAll('#running svg').length === 2")
        browser.run(USED)
        before = browser.run(KEPT)
        assert before["filter"] == "magnitude" and before["top"] == 700 and before["focus"] == "filter" and before["open"]
        assert before["budget"][0] == "\u2264 4 ms" and "latency<=4" in before["budget"][1]
        with server.live.lock:  # so that it sees all of them at once
            fake_run(server.live.runs[0], timed_grid())
        wait(browser, f"{FRAME} && {FRAME} !== window.before")
        after = browser.run(KEPT)
        assert after.pop("rows") == before.pop("rows") + 4
        assert (before.pop("position"), after.pop("position")) == ("0", "1"), "smaller networks have come, and the bound is the same"
        assert after == before and before["sorted"] == ["top-1 % ascending"]
        assert [text for text in browser.complaints if not text.startswith(f"request to {server.url}")] == []
