"""`python -m analysis`: what it prints, writes and returns."""

import subprocess
import sys
from pathlib import Path

import pytest

from analysis.__main__ import main
from tests.support.records import fake_curve, fake_grid, fake_record, fake_run
from tests.support.runs import FakeRun


def test_main_prints_the_table_and_the_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake_run(tmp_path, fake_grid())
    assert main([str(run)]) == 0
    out = capsys.readouterr().out
    assert "vim_micro+se" in out and "magnitude-0.9" in out and str(run / "leaderboard.csv") in out


def test_an_empty_folder_exits_2_with_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "has no folder 'cells'" in capsys.readouterr().err


def test_several_folders_need_an_output_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (fake_run(tmp_path / name, [fake_record(97.0)]) for name in "ab")
    assert main([str(a), str(b)]) == 2
    assert "-o" in capsys.readouterr().err
    assert main([str(a), str(b), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "leaderboard.csv").exists()


def test_an_output_that_is_full_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis", str(fake_run(tmp_path, [fake_record(97.0)]))]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, cwd=Path(__file__).parents[2], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2 and ended.stderr.startswith("error: the output could not be written: No space left on device; free space"), ended


LOADED = """
import sys
from analysis.__main__ import main
for folder in sys.argv[1:]:
    main([folder])
    print("loaded", *sys.modules)
"""


def test_analysis_never_imports_torch_and_start_up_stays_light(tmp_path: Path) -> None:
    """A process that analyses no folder, then a run of one seed, whose tables need no test of SciPy's."""
    run = fake_run(tmp_path, [fake_record(97.0), fake_record(96.0, pruning="magnitude-0.9")])
    command = [sys.executable, "-c", LOADED, str(tmp_path / "nowhere"), str(run)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    nothing, one = (set(line.split()) for line in ended.stdout.splitlines() if line.startswith("loaded "))
    assert (run / "leaderboard.csv").exists() and not {"scipy", "numpy", "jinja2", "plotly"} & nothing
    assert not {"torch", "pandas", "matplotlib", "scipy.stats"} & one


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_the_table_is_printed_where_stdout_is_ascii(tmp_path: Path, environment: dict[str, str]) -> None:
    run = fake_run(tmp_path, [fake_record(97.0 - seed, model="vimé", seed=seed) for seed in range(2)])
    command = [sys.executable, "-m", "analysis", str(run)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=False, env={"PATH": "/usr/bin:/bin", **environment})
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert done.stdout.isascii() and b"96.50+-0.71" in done.stdout and rb"vim\xe9" in done.stdout
    rows = [line for line in done.stdout.decode().splitlines() if line.startswith("|")]
    assert len(rows) == 3 and len({len(line) for line in rows}) == 1


def test_figures_are_written_if_they_are_asked_for(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [fake_record(97.0)])
    assert main([str(run)]) == 0 and not (run / "figures").exists()
    assert main([str(run), "--figures", "-o", str(tmp_path / "out")]) == 0
    assert {path.suffix for path in (tmp_path / "out" / "figures").iterdir()} == {".svg", ".png"}


def test_curves_are_printed_and_nothing_is_written(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake.run.path
    assert main([str(run), "--curves"]) == 2 and "no stage has metrics" in capsys.readouterr().err
    fake_curve(run, fake.trunks[0], 3)
    before = sorted(run.rglob("*"))
    assert main([str(run), "--curves"]) == 0
    shown = capsys.readouterr().out
    assert f"{fake.trunks[0]}  vim_micro  train  seed 0" in shown and "validation top-1 (%), now 93.00" in shown
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--live", "-o", "x"], "leave out --out"), (["--live", "--curves"], "leave out --curves"), (["--curves", "--figures"], "leave out --figures")],
)
def test_watching_writes_nothing_so_options_of_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main([str(tmp_path), *options]) == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("given", ["-1", "65536", "http", ""])
def test_a_port_is_a_number_of_a_port(tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--live", f"--port={given}"])
    assert f"expected a number from 0 to 65535, got '{given}'" in capsys.readouterr().err
