"""The report in a real headless Chromium."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.budget import decide, nearest, parse_budget
from analysis.leaderboard import publish
from jobs.experiment.records import Record
from tests.support.browser import CHROMIUM, Page, page
from tests.support.records import EVIL, evil_run, fake_curve, fake_environment, fake_grid, fake_record, fake_run, rows_of

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")]
MOVE = """(positions) => {
  for (const { cost, input } of sliders) {
    input.value = cost in positions ? Math.floor(positions[cost] * input.max) : input.max;
    input.dispatchEvent(new Event("input"));
  }
  const names = (id) => [...document.querySelectorAll(`#${id} li button`)].map((button) => button.textContent);
  for (const more of document.querySelectorAll("#panel li button:not(.row)")) more.click();
  const budget = at("command").parentNode.hidden ? "" : at("command").textContent.split('"')[1];
  return [budget, [at("best").textContent, at("sure").textContent, names("tied"), names("few")]];
}"""
OTHER = "other" + "x" * 200
COLUMN = (
    "[...document.querySelectorAll('.board:not([hidden]) tr[data-row]')].filter((line) => !line.hidden).map((line) => line.cells[%d].textContent)"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a grid with a failed cell and a second machine."""
    records = [
        *fake_grid(),
        fake_record(None, pruning="magnitude-0.99"),
        fake_record(96.0, model=OTHER, environment=fake_environment(gpu="Example GPU")),
    ]
    run = fake_run(tmp_path_factory.mktemp("run"), records)
    for stage in {stage for record in records for stage in record.stages}:
        fake_curve(run, stage, 4)
    publish([run], run)
    return run / "report.html"


@pytest.fixture
def opened(browser: Page, written: Path) -> Page:
    browser.complaints.clear()
    browser.open(written, width=1400)
    return browser


def test_it_opens_without_a_complaint_and_draws_everything(opened: Page) -> None:
    drawn = opened.run("['sparsity', 'pareto', 'val_top1', 'loss', 'layers'].map((id) => document.querySelectorAll(`#${id} .main-svg`).length > 0)")
    assert drawn == [True] * 5 and opened.complaints == []


def test_sorting_orders_numbers_by_size_and_keeps_holes_last(opened: Page) -> None:
    opened.run("document.querySelectorAll('.board:not([hidden]) th button')[3].click()")
    rising = opened.run(COLUMN % 3)
    opened.run("document.querySelectorAll('.board:not([hidden]) th button')[3].click()")
    falling = opened.run(COLUMN % 3)
    numbers = [float(text.split()[0]) for text in rising[:-1]]
    assert numbers == sorted(numbers) and rising[-1] == falling[-1] == "1 diverged" and falling[:-1] == rising[:-1][::-1]


def test_filtering_keeps_lines_with_every_word_and_counts_them(opened: Page) -> None:
    opened.run("(() => { const box = document.getElementById('filter'); box.value = 'SE magnitude'; box.dispatchEvent(new Event('input')); })()")
    assert set(opened.run(COLUMN % 1)) == {"vim_micro+se"} and len(opened.run(COLUMN % 2)) == 2
    assert opened.run("document.getElementById('count').textContent") == "2 of 11 rows"


def test_another_key_shows_its_own_board_alone(opened: Page) -> None:
    opened.run("(() => { const box = document.getElementById('key'); box.selectedIndex = 1; box.dispatchEvent(new Event('change')); })()")
    assert opened.run(COLUMN % 1) == [OTHER] and opened.run("document.getElementById('sparsity').data.length") == 1
    assert opened.complaints == []


def test_hovering_a_point_says_which_row_it_is(opened: Page) -> None:
    opened.move_to("#pareto .scatterlayer .trace:nth-child(2) .points path")
    look = "() => { const text = document.querySelector('#pareto .hoverlayer')?.textContent; text ? done(text) : requestAnimationFrame(look); }"
    text = opened.run(f"new Promise((done) => {{ const look = {look}; look(); }})")
    assert "magnitude-" in text and "top-1" in text and "GMACs" in text


def test_clicking_a_line_shows_its_curves_and_layers(opened: Page) -> None:
    opened.run("document.querySelectorAll('.board:not([hidden]) tr[data-row]')[6].click()")
    chosen = opened.run("document.querySelector('#row').selectedOptions[0].textContent")
    assert chosen == ", ".join(opened.run(COLUMN % i)[6] for i in (1, 2))
    assert opened.run("document.getElementById('loss').data.map((one) => one.name)") == ["seed 0", "seed 1", "seed 2"]
    assert opened.run("document.getElementById('layers').data[0].x.length") == 8


def priced_grid() -> list[Record]:
    """A grid of 13 rows with different costs, of which some were not measured, and a row of a single seed."""
    draw = random.Random(1)
    rows = [
        (f"m{i:02}", 97 - draw.random() * i, draw.choice((None, 0.5, 1.0)), draw.randrange(1, 9) * 100_000, float(draw.randrange(1, 9)))
        for i in range(12)
    ]
    costs = [
        {"train_cpu_h": hours, "params": params, "file_bytes": 4 * params, "macs_structural": params, "latency_ms": ms}
        for *_, hours, params, ms in rows
    ]
    records = [
        fake_record(top1 + draw.gauss(0, 0.2), model=model, seed=seed, test_samples=10_000, **cost)
        for (model, top1, *_), cost in zip(rows, costs, strict=True)
        for seed in range(3)
    ]
    return [*records, fake_record(96.5, model="single", test_samples=10_000, latency_ms=3.5)]


def test_the_panel_answers_as_the_shell_does(browser: Page, tmp_path: Path) -> None:
    records = priced_grid()
    run, rows = fake_run(tmp_path, records), rows_of(*records)
    publish([run], run)
    browser.complaints.clear()
    browser.open(run / "report.html", width=1400)
    sentences, draw = set(), random.Random(2)
    for _ in range(40):
        positions = {cost: draw.random() ** 2 for cost in draw.sample(["latency", "params", "macs", "hours"], draw.randrange(4))}
        budget, shown = browser.run(f"({MOVE})({json.dumps(positions)})")
        limits = parse_budget(budget) if budget else ()
        assert len(limits) <= len(positions)
        answer = decide(rows, limits)
        if answer is None:
            close = nearest(rows, limits)
            assert close is not None and shown == [f"Nearest: {close.model}, dense", "No row fits this budget.", [], []]
        else:
            named = [[f"{row.model}, dense" for row in listed] for listed in (answer.tied, answer.few)]
            assert shown == [f"{answer.best.model}, dense", "\n".join(answer.sentences), *named]
        sentences.add(shown[1].partition(" ")[0])
    assert sentences == {"Sure", "Not", "Too", "It", "No"} and browser.complaints == []


def test_scores_across_models_are_drawn_at_each_strength(browser: Page, tmp_path: Path) -> None:
    quality = {0.5: {"magnitude": 96.0, "random": 90.0, "wanda": 95.0, "sparsegpt": 95.5}, 0.9: {"magnitude": 90.0, "random": 70.0, "wanda": 88.0}}
    run = fake_run(
        tmp_path,
        [
            fake_record(top1 - i, model=f"m{i}", pruning=f"{method}-{level}")
            for level, methods in quality.items()
            for method, top1 in methods.items()
            for i in range(3)
        ],
    )
    publish([run], run)
    browser.complaints.clear()
    browser.open(run / "report.html", width=390)
    names = "document.getElementById('%s').data.map((line) => line.name)"
    assert browser.run(names % "ranks") == browser.run(names % "profiles") == ["magnitude-0.5", "sparsegpt-0.5", "wanda-0.5", "random-0.5"]
    browser.run("(() => { at('level').value = '1'; at('level').dispatchEvent(new Event('change')); })()")
    assert browser.run(names % "ranks") == ["magnitude-0.9", "wanda-0.9", "random-0.9"]
    assert browser.run("[...document.querySelectorAll('.level:not([hidden])')].map((text) => text.dataset.level)") == ["1"]
    assert browser.run("document.documentElement.scrollWidth") <= 390 and browser.complaints == []


@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_is_no_wider_than_the_screen(browser: Page, written: Path, width: int) -> None:
    browser.open(written, width=width)
    for key in (0, 1):
        browser.run(f"(() => {{ at('key').selectedIndex = {key}; at('key').dispatchEvent(new Event('change')); }})()")
        assert browser.run("document.documentElement.scrollWidth") <= width


def test_an_injected_text_is_shown_and_never_runs(browser: Page, tmp_path: Path) -> None:
    run = evil_run(tmp_path)
    publish([run], run)
    browser.complaints.clear()
    browser.open(run / "report.html", width=1400)
    assert browser.run("document.querySelectorAll('img').length") == 0 and browser.run("window.hacked === undefined")
    assert browser.run(COLUMN % 1)[0] == EVIL
    browser.move_to("#pareto .scatterlayer .trace .points path")
    assert browser.run("window.hacked === undefined") and browser.complaints == []
