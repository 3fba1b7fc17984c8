from pathlib import Path

import pytest
import scipy.stats

from analysis.__main__ import main
from analysis.baseline import changes
from analysis.leaderboard import publish
from tests.support.records import fake_environment, fake_record, fake_run

BEFORE = (97.0, 96.5, 97.5)
TIMM = """model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation
made_up_vit.in1k,224,81.250,18.750,95.500,4.500,22.05,0.900,bicubic
made_up_net.in1k,224,76.125,23.875,93.000,7.000,25.56,0.875,bicubic
"""


def run_of(folder: Path, *top1: float | None, **changes: object) -> Path:
    return fake_run(folder, [fake_record(accuracy, seed=seed, **changes) for seed, accuracy in enumerate(top1)])  # type: ignore[arg-type]


def verdicts(tmp_path: Path, now: Path) -> list[str]:
    before = run_of(tmp_path / "before", *BEFORE)
    publish([before], before)
    return [change.verdict for change in changes(publish([now], now).rows, before / "leaderboard.csv")]


def test_a_fall_beyond_noise_is_a_regression(tmp_path: Path) -> None:
    assert verdicts(tmp_path, run_of(tmp_path / "now", 92.0, 91.5, 92.5)) == ["regressed"]


@pytest.mark.parametrize("now", [(96.9, 96.4, 97.6), (99.0, 98.9, 99.1)])
def test_noise_and_gains_are_no_regressions(tmp_path: Path, now: tuple[float, ...]) -> None:
    assert verdicts(tmp_path, run_of(tmp_path / "now", *now)) == ["within noise"]


def test_one_seed_judges_nothing(tmp_path: Path) -> None:
    assert verdicts(tmp_path, run_of(tmp_path / "now", 50.0)) == ["not judged: fewer than 2 seeds then or now"]


def test_a_row_that_lost_its_number_has_failed(tmp_path: Path) -> None:
    run = run_of(tmp_path / "now", None, None)
    fake_run(run, [fake_record(90.0, model="other")])
    assert verdicts(tmp_path, run) == ["failed now"]


def test_another_machine_is_not_compared(tmp_path: Path) -> None:
    now = run_of(tmp_path / "now", 50.0, 51.0, 52.0, environment=fake_environment(gpu="Example GPU"))
    assert verdicts(tmp_path, now) == ["no longer there under this key"]


def test_p_is_scipys_one_sided_welch_test(tmp_path: Path) -> None:
    before, now = run_of(tmp_path / "before", *BEFORE), run_of(tmp_path / "now", 96.0, 97.0, 95.0, 96.5)
    publish([before], before)
    (change,) = changes(publish([now], now).rows, before / "leaderboard.csv")
    expected = scipy.stats.ttest_ind((96.0, 97.0, 95.0, 96.5), BEFORE, equal_var=False, alternative="less").pvalue
    assert change.p == pytest.approx(expected, rel=1e-6)


def test_a_regression_exits_1_and_names_the_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, now = run_of(tmp_path / "before", *BEFORE), run_of(tmp_path / "now", 92.0, 91.5, 92.5)
    assert main([str(before)]) == 0
    assert main([str(before), "--baseline", str(before / "leaderboard.csv")]) == 0
    assert main([str(now), "--baseline", str(before / "leaderboard.csv")]) == 1
    assert "regressed" in (out := capsys.readouterr().out) and "top-1 97.00 -> 92.00" in out


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n", "key,model,pruning,top1,top1_std,n\nk,m,p,high,1,3\n"])
def test_a_file_that_is_no_leaderboard_exits_2(tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    run, old = run_of(tmp_path / "run", 97.0), tmp_path / "old.csv"
    if content is not None:
        old.write_text(content)
    assert main([str(run), "--baseline", str(old)]) == 2
    assert str(old) in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_baseline_that_a_spreadsheet_has_saved_is_read(tmp_path: Path, encoding: str) -> None:
    before, now = run_of(tmp_path / "before", *BEFORE, pruning="=1+1"), run_of(tmp_path / "now", 92.0, 91.5, 92.5, pruning="=1+1")
    publish([before], before)
    saved = tmp_path / "saved.csv"
    saved.write_text((before / "leaderboard.csv").read_text(), encoding=encoding)
    assert [(change.pruning, change.verdict) for change in changes(publish([now], now).rows, saved)] == [("=1+1", "regressed")]


def test_timms_results_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    run, published = run_of(tmp_path / "run", 80.0), tmp_path / "results.csv"
    published.write_text(TIMM, encoding="utf-8-sig")
    assert main([str(run), "--beside", str(published)]) == 0
    assert "made_up_vit.in1k" in (run / "beside.csv").read_text()


def test_timms_results_stand_beside_ours_by_accuracy(tmp_path: Path) -> None:
    run, published = run_of(tmp_path / "run", 80.0), tmp_path / "results-made-up.csv"
    published.write_text(TIMM)
    assert main([str(run), "--beside", str(published)]) == 0
    lines = (run / "beside.csv").read_text().splitlines()
    assert lines[0].startswith("source,model,pruning,img_size,top1,top5,param_count,infer_gmacs")
    assert [line.split(",")[:5] for line in lines[1:]] == [
        ["results-made-up.csv", "made_up_vit.in1k", "", "224", "81.250"],
        ["ours", "vim_micro", "dense", "32", "80"],
        ["results-made-up.csv", "made_up_net.in1k", "", "224", "76.125"],
    ]
