"""The log that a user sees."""

from pathlib import Path

import pytest

from harness.logs import following, main, of_ranks, own_part
from harness.monitor.survey import survey
from jobs.experiment.submissions import submissions
from tests.support.fake_slurm import FakeSlurm
from tests.support.runs import FakeRun


@pytest.fixture(autouse=True)
def job_17_runs(slurm: FakeSlurm) -> None:
    slurm.queue(j17="RUNNING")


def test_a_beginning_of_a_stage_shows_its_last_jobs_log(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    stage = fake.trunks[0]
    fake.log(fake.submit({"16": [stage]}), "16", "first attempt\n")
    fake.log(fake.submit({"17": [stage]}), "17", "second attempt\n")
    assert main([stage[:8]]) == 0
    log, heading = capsys.readouterr()
    assert log == "second attempt\n" and f"stage {stage} (vim_micro  train  seed 0), job 17" in heading


def test_a_cell_shows_the_stage_that_failed(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = fake.paths[0]
    folder = fake.submit({"17_0": [path.stages[0]], "17_1": [path.stages[1]]})
    fake.log(folder, "17_0", "train\n")
    fake.log(folder, "17_1", "finetune\n")
    fake.finish(path.stages[0])
    fake.fail(path.stages[1])
    assert main([path.cell.id]) == 0 and capsys.readouterr().out == "finetune\n"


def test_a_cell_whose_next_stage_waits_shows_the_last_one_that_printed(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = fake.paths[0]
    fake.log(fake.submit({"16": [path.stages[0]], "17": [path.stages[1]]}), "16", "train\n")
    fake.finish(path.stages[0])
    assert main([path.cell.id]) == 0 and capsys.readouterr().out == "train\n"


def test_of_a_job_with_several_stages_only_the_one_asked_for_is_shown() -> None:
    text = "hello\nstage aaa: one\na1\nstage bbb: two\nb1\nstage aaa: one\na2\n"
    assert own_part(text, "aaa") == "stage aaa: one\na1\nstage aaa: one\na2\n"
    assert own_part(text, "bbb") == "stage bbb: two\nb1\n"
    assert own_part("stage aaa: one\na1\n", "aaa") == "stage aaa: one\na1\n" and own_part(text, "ccc") == text


def test_of_several_ranks_the_one_that_failed_first_is_shown(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fake.submit({"17": [fake.trunks[0]]})
    fake.log(folder, "17", "Traceback (most recent call last)\nRuntimeError: Connection closed by peer\n", rank=0)
    fake.log(folder, "17", "Traceback (most recent call last)\nValueError: it was me\n", rank=1)
    assert main([fake.trunks[0]]) == 0 and "it was me" in capsys.readouterr().out
    assert main([fake.trunks[0], "--rank", "0"]) == 0 and "Connection closed" in capsys.readouterr().out
    assert main([fake.trunks[0], "--rank", "2"]) == 2 and "ranks 0 to 1" in capsys.readouterr().err


def test_logs_of_one_task_are_not_those_of_another(fake: FakeRun) -> None:
    folder = fake.submit({"17_1": [fake.trunks[0]], "17_11": [fake.trunks[1]]})
    first, second = fake.log(folder, "17_1", ""), fake.log(folder, "17_11", "")
    job_of = survey(fake.run).job_of
    assert job_of[fake.trunks[0]].logs() == [first] and job_of[fake.trunks[1]].logs() == [second]


def test_an_unknown_id_is_answered_with_the_nearest(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    cell = fake.paths[0].cell.id
    wrong = cell[:7] + ("0" if cell[7] != "0" else "1")
    assert main([wrong]) == 2
    assert f"no cell or stage '{wrong}'" in capsys.readouterr().err
    assert main([cell[1:]]) == 2 and "did you mean" in capsys.readouterr().err


def test_a_beginning_of_several_ids_lists_them_with_their_titles(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([""]) == 2
    told = capsys.readouterr().err
    assert "give more letters" in told and "cell  vim_micro  dense  seed 0" in told


def test_a_stage_without_a_log_says_what_its_job_waits_for(fake: FakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([fake.trunks[0]]) == 2 and "no job has had stage" in capsys.readouterr().err
    fake.submit({"18": [fake.trunks[0]]})
    (tmp_path / "slurm" / "squeue.says").write_text("18|PENDING|0:00||N/A|Dependency\n")
    assert main([fake.trunks[0]]) == 2 and "printed nothing yet (PENDING, waiting: Dependency)" in capsys.readouterr().err


def test_following_shows_what_is_added_and_ends_with_the_stage(fake: FakeRun, tmp_path: Path) -> None:
    stage = fake.trunks[0]
    log = fake.log(fake.submit({"17": [stage]}), "17", "one\n")
    added = iter(["two\n", "three\n"])

    def meanwhile(seconds: float) -> None:
        if text := next(added, ""):
            with log.open("a") as file:
                file.write(text)
        else:
            fake.run.stage_dir(stage).mkdir(parents=True, exist_ok=True)
            fake.finish(stage)
            (tmp_path / "slurm" / "squeue.says").write_text("17|COMPLETED|0:09|node1|N/A|None\n")

    assert "".join(following(fake.run, stage, log, sleep=meanwhile)) == "one\ntwo\nthree\n"


def test_ranks_are_shown_together_each_with_its_part_of_the_stage(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    stage = fake.trunks[0]
    folder = fake.submit({"17": [stage]})
    for rank in range(3):
        fake.log(folder, "17", f"stage other: x\nno\nstage {stage}: y\nhello from {rank}\n", rank=rank)
    assert main([stage, "--ranks"]) == 0
    begins, says = [f"rank {rank}: stage {stage}: y" for rank in range(3)], [f"rank {rank}: hello from {rank}" for rank in range(3)]
    assert capsys.readouterr().out.splitlines() == [*begins, *says]
    assert main([stage, "--ranks", "2,0"]) == 0 and capsys.readouterr().out.splitlines()[-2:] == ["rank 2: hello from 2", "rank 0: hello from 0"]
    assert main([stage, "--ranks", "7"]) == 2 and "no log of rank 7" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([stage, "--ranks", "--rank", "1"])


def test_ranks_are_followed_also_one_that_starts_later(fake: FakeRun, tmp_path: Path) -> None:
    stage = fake.trunks[0]
    folder = fake.submit({"17": [stage]})
    log = fake.log(folder, "17", "one\n")

    def add() -> None:
        with log.open("a") as file:
            file.write("two")

    def end() -> None:
        fake.run.stage_dir(stage).mkdir(parents=True, exist_ok=True)
        fake.finish(stage)
        (tmp_path / "slurm" / "squeue.says").write_text("17|COMPLETED|0:09|node1|N/A|None\n")

    todo = iter([lambda: fake.log(folder, "17", "late\n", rank=1), add, end])
    (submission,) = submissions(fake.run)
    shown = of_ranks(fake.run, stage, submission, "all", follow=True, sleep=lambda seconds: next(todo)() and None)
    assert "".join(shown) == "rank 0: one\nrank 1: late\nrank 0: two\n"
