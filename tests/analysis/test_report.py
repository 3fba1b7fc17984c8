import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import analysis.report
from analysis.merge import merge
from analysis.report import report, script_safe, verified_lines
from analysis.rows import make_rows
from jobs.experiment.files import write_json
from jobs.experiment.verification import verified_dir
from tests.support.records import EVIL, evil_run, fake_environment, fake_grid, fake_record, fake_run, fake_verification, rows_of


def page_of(run: Path) -> str:
    merged = merge([run])
    return report(make_rows(merged), merged, [run])


class Tags(HTMLParser):
    """The tags of a page and the handlers that stand in attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.data = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.inside = dict(attrs).get("id") or ""

    def handle_data(self, data: str) -> None:
        if self.inside == "data":
            self.data += data


def test_text_from_records_never_becomes_markup(tmp_path: Path) -> None:
    page = Tags(page_of(evil_run(tmp_path)))
    assert page.tags.count("script") == 5 and "img" not in page.tags and "b" not in page.tags and page.handlers == []


def test_the_figures_data_survive_escaping_and_hold_no_markup(tmp_path: Path) -> None:
    data = json.loads(Tags(page_of(evil_run(tmp_path))).data)
    (figures,) = {key: value for key, value in data["figures"].items() if value["sparsity"]["data"]}.values()
    (trace,) = figures["sparsity"]["data"]
    assert "<" not in trace["name"] and "&lt;img" in trace["name"]
    assert "<img" not in trace["text"][0] and "&lt;img" in trace["text"][0]
    assert EVIL in data["rows"]["0"]["layers"]  # escaped when it is drawn


def test_json_in_the_page_cannot_end_its_element() -> None:
    value = {"a": "</script><!--\u2028&"}
    assert not set("<>&\u2028") & set(script_safe(value)) and json.loads(script_safe(value)) == value


def test_only_the_pages_own_scripts_may_run(tmp_path: Path) -> None:
    page = page_of(fake_run(tmp_path, fake_grid()))
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0])
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert "default-src 'none'" in policy and "script-src 'sha256" in policy
    assert allowed == [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]


def test_the_page_asks_for_nothing_from_outside(tmp_path: Path) -> None:
    page = page_of(fake_run(tmp_path, fake_grid()))
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=", page.split("<script>")[0])


def test_every_cell_has_the_command_that_runs_it_again(tmp_path: Path) -> None:
    records = [*fake_grid(), fake_record(None, pruning="magnitude-0.99")]
    page = page_of(fake_run(tmp_path, records))
    assert all(f"python -m harness.reproduce {record.id}<" in page for record in records)


def test_remarks_of_a_row_are_told_once_with_the_seeds_that_made_them(tmp_path: Path) -> None:
    records = [fake_record(97.0, seed=seed, notes=["energy: none", *(["unsettled"] if seed else [])]) for seed in range(3)]
    page = page_of(fake_run(tmp_path, records))
    assert page.count("energy: none") == 1 and page.count('<p class="note">seed 1, 2: unsettled</p>') == 1


def test_a_row_says_by_whom_its_cells_were_verified_and_whether_that_is_still_so(tmp_path: Path) -> None:
    records = [fake_record(97.0 + seed / 10, seed=seed) for seed in range(3)]
    run = fake_run(tmp_path, records)
    for record, verdict, by in [(records[0], "pass", EVIL), (records[1], "fail", None), (fake_record(90.0, seed=2), "pass", "Ada")]:
        kept = fake_verification(record, verdict, by).model_copy(update={"cell": fake_record(0.0, seed=record.seed).id})
        write_json(verified_dir(run, kept.cell) / "a.json", kept.model_dump(mode="json"))
    lines = [html.unescape(line) for line in re.findall(r'<p class="verified">(.*?)</p>', page_of(run))]
    assert lines == [
        f"seed 0 verified by {EVIL} on 2026-11-28: pass: for the tests",
        "seed 1 verified by a run of 2026-11-28: fail: for the tests",
        "seed 2 verified by Ada on 2026-11-28, of other numbers than the record has now: pass: for the tests",
    ]
    assert "img" not in Tags(page_of(run)).tags


def test_a_verification_is_shown_at_the_record_of_its_cluster_alone(tmp_path: Path) -> None:
    here, there = fake_record(97.0), fake_record(96.0, environment=fake_environment(gpu="Example GPU"))
    runs = [fake_run(tmp_path / str(i), [record]) for i, record in enumerate((here, there))]
    write_json(verified_dir(runs[0], here.id) / "a.json", fake_verification(here, "pass", "Ada").model_dump(mode="json"))
    merged = merge(runs)
    lines = verified_lines(runs, merged.records)
    assert here.id == there.id and sorted(map(lines, make_rows(merged))) == [[], ["seed 0 verified by Ada on 2026-11-28: pass: for the tests"]]


def test_a_page_holds_what_a_browser_can_and_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake_run(tmp_path, fake_grid())
    monkeypatch.setattr(analysis.report, "MANY", 4)
    page = page_of(run)
    assert page.count("<tr data-row=") == 4 and "leaderboard.csv has 6 more rows" in page


def test_the_page_says_how_to_read_it_before_anything_else(tmp_path: Path) -> None:
    page = page_of(fake_run(tmp_path, fake_grid()))
    assert page.index("How to read this") < page.index("The answer: the best row") < page.index("<h2>Leaderboard</h2>")


def test_fewer_than_three_seeds_are_said_in_a_word_and_have_no_interval(tmp_path: Path) -> None:
    page = page_of(fake_run(tmp_path, [fake_record(top1, seed=seed) for seed, top1 in enumerate((99.0, 97.0))]))
    assert '<td data-value="">too few seeds</td>' in page


def test_official_figures_have_columns_only_where_a_row_has_one() -> None:
    def headings(**metrics: float) -> set[str]:
        rows = rows_of(fake_record(76.0, **metrics))
        return {shown.heading for shown in analysis.report.shown_columns(rows)}

    official = {"published", "vs published"}
    assert not official & headings() and official <= headings(published_top1=76.1)
