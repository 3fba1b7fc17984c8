import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import analysis.report
from analysis.curves import curve
from analysis.exports import COSTS
from analysis.figures import accuracy_figure, draw, lines, write_figures
from analysis.merge import Merged, merge
from analysis.report import report, script_safe
from analysis.rows import Row, make_rows
from jobs.experiment.records import Failure, Record
from jobs.experiment.run_folder import RunFolder
from tests.support.records import fake_environment, fake_grid, fake_record, fake_run, fake_spec

EVIL = "</script><img src=x onerror=window.hacked=1><script>window.hacked=1</script>{{7*7}}\"'&<b>"


def page_of(run: Path) -> str:
    merged = merge([run])
    return report(make_rows(merged), merged, [run])


def metrics_lines(run: Path, stage: str, epochs: int) -> None:
    path = RunFolder(run).stage_dir(stage) / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = [{"event": "step", "epoch": epoch, "step": epoch, "loss": 9.0, "lr": 1e-3} for epoch in range(1, epochs + 1)]
    ends = [{"event": "epoch", "epoch": epoch, "step": epoch, "loss": 1 / epoch, "val_top1": 90.0 + epoch} for epoch in range(1, epochs + 1)]
    path.write_text("".join(json.dumps(line) + "\n" for line in steps + ends))


def evil_run(folder: Path) -> Path:
    """A run whose every text is an attack."""
    bad = fake_record(
        90.0,
        model=EVIL,
        pruning="dense",
        grid=EVIL,
        environment=fake_environment(host=EVIL, cpu=EVIL, commit=EVIL, versions={EVIL: EVIL}, loader=EVIL),
        layers={EVIL: 0.5},
        notes=[EVIL],
        speed_protocol=EVIL,
    )
    failed = fake_record(None, model="m2", pruning="dense").model_copy(
        update={"failure": Failure(kind=EVIL, message=EVIL, stage=EVIL, traceback=EVIL), "grid": EVIL}
    )
    run = fake_run(folder, [bad.model_copy(update={"pruning": EVIL, "weights_sha256": EVIL, "finished": EVIL}), failed])
    torn = run / "cells" / "<b>torn<img src=x>" / "record.json"
    torn.parent.mkdir()
    torn.write_text("{")
    return run


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
    told = Tags(page_of(evil_run(tmp_path)))
    assert told.tags.count("script") == 3 and "img" not in told.tags and "b" not in told.tags and told.handlers == []


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


def test_a_page_holds_what_a_browser_can_and_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake_run(tmp_path, fake_grid())
    monkeypatch.setattr(analysis.report, "MANY", 4)
    page = page_of(run)
    assert page.count("<tr data-row=") == 4 and "leaderboard.csv has 6 more rows" in page


def test_curves_are_joined_along_the_stages_of_a_cell(tmp_path: Path) -> None:
    record = fake_record(90.0)
    metrics_lines(tmp_path, record.stages[0], 3)
    metrics_lines(tmp_path, record.stages[1], 2)
    found = curve(record, [tmp_path / "elsewhere", tmp_path])
    assert found is not None
    assert found.epochs == (1, 2, 3, 4, 5) and found.val_top1 == (91.0, 92.0, 93.0, 91.0, 92.0)


def test_a_long_curve_is_thinned_and_keeps_its_end(tmp_path: Path) -> None:
    record = fake_record(90.0)
    metrics_lines(tmp_path, record.stages[0], 901)
    found = curve(record, [tmp_path])
    assert found is not None and len(found.epochs) <= 200 and found.epochs[-1] == 901


def test_torn_foreign_and_infinite_metrics_are_left_out(tmp_path: Path) -> None:
    record = fake_record(90.0)
    path = RunFolder(tmp_path).stage_dir(record.stages[0]) / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"event": "epoch", "epoch": 1, "loss": NaN, "val_top1": 50}\n[1]\nnonsense\n{"event": "epoch", "epoch": "x"}\n{"event": "ep')
    found = curve(record, [tmp_path])
    assert found is not None and (found.epochs, found.loss, found.val_top1) == ((1.0,), (None,), (50.0,))


def test_a_cell_without_metrics_has_no_curve(tmp_path: Path) -> None:
    assert curve(fake_record(90.0), [tmp_path]) is None


def rows_of(*records: Record) -> tuple[Row, ...]:
    return make_rows(Merged(records=records, planned={}, conflicts=(), skipped=()))


def test_a_line_is_a_method_on_a_model_at_growing_sparsity() -> None:
    found = lines(rows_of(*fake_grid()))
    assert [(line.name, [row.pruning for row in line.rows]) for line in found][:3] == [
        ("vim_micro dense", ["dense"]),
        ("vim_micro magnitude", ["magnitude-0.5", "magnitude-0.9"]),
        ("vim_micro random", ["random-0.5", "random-0.9"]),
    ]
    assert len({(line.color, line.symbol) for line in found}) == len(found) == 6


def test_knobs_other_than_the_sparsity_make_lines_of_their_own() -> None:
    def record(scope: str, sparsity: float) -> Record:
        spec = fake_spec("dense", 0)
        spec["pruning"] = {"method": "magnitude", "label": f"{scope}{sparsity}", "knobs": {"scope": scope, "sparsity": sparsity, "begin": 1}}
        return fake_record(90.0, pruning=f"{scope}{sparsity}", spec=spec)

    found = lines(rows_of(*(record(scope, sparsity) for scope in ("layer", "global") for sparsity in (0.5, 0.9))))
    assert sorted(line.name for line in found) == ["vim_micro magnitude scope=global", "vim_micro magnitude scope=layer"]


def test_error_bars_reach_the_ends_of_the_interval() -> None:
    (trace,) = accuracy_figure(rows_of(*(fake_record(top1, seed=seed) for seed, top1 in enumerate((95.0, 96.0, 97.0)))))["data"]
    assert (trace["y"], trace["error_y"]["array"], trace["error_y"]["arrayminus"]) == (
        [96.0],
        pytest.approx([2.4841], abs=1e-4),
        pytest.approx([2.4841], abs=1e-4),
    )


def test_error_bars_end_where_accuracies_do() -> None:
    (trace,) = accuracy_figure(rows_of(fake_record(99.0, seed=0), fake_record(97.0, seed=1)))["data"]
    assert trace["error_y"]["array"] == [2.0] and trace["error_y"]["arrayminus"][0] > 12


def test_figures_for_papers_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    shown = lines(rows_of(fake_record(97.0, model="a$b"), fake_record(90.0, model="a$b", pruning="magnitude-0.5")))
    first, again = (draw(shown, {}, "x", tmp_path / name) for name in "ab")
    assert [path.suffix for path in first] == [".svg", ".png"] and [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_every_key_has_a_figure_for_the_sparsity_and_each_cost(tmp_path: Path) -> None:
    rows = rows_of(fake_record(97.0))
    names = {path.stem for path in write_figures(rows, tmp_path)}
    assert names == {f"{rows[0].key.short}-{what}" for what in ("sparsity", *COSTS)}
