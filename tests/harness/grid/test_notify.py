"""`notify:` of a grid and of a profile."""

from pathlib import Path

import pytest

from jobs.experiment.specs import NotifySpec
from tests.support.grids import START, mistakes, read


def test_a_grid_has_the_command_of_its_profile_or_its_own(folder: Path) -> None:
    Path("gpu.yaml").write_text("kind: slurm\nnotify: {command: tell them}\n")
    plain, own, none = (
        read(START + f"cluster: gpu.yaml\n{line}") for line in ("", "notify: {command: tell me, on: end, timeout_s: 5}\n", "notify:\n")
    )
    assert plain.cluster.notify == NotifySpec(command="tell them")
    assert own.cluster.notify == NotifySpec(command="tell me", on=("end",), timeout_s=5.0) and own.cluster.kind == "slurm"
    assert none.cluster.notify is None
    assert [cell.id for cell in plain.cells] == [cell.id for cell in own.cells] == [cell.id for cell in none.cells]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("notify: mail", "notify: expected a mapping, such as {command: "),
        ("notify: {on: end}", "notify: it has no command to run: give one"),
        ("notify: {command: ''}", "notify.command: must be a command for the shell, not blank"),
        ("notify: {command: '  '}", "notify.command: must be a command for the shell, not blank"),
        ("notify: {command: }", "notify.command: expected text, got "),
        ("notify: {command: x, on: ends}", "notify.on: "),
        ("notify: {command: x, on: []}", "notify.on: must be end, first_failure or both, got []"),
        ("notify: {command: x, on: [end, end]}", "notify.on: must be end, first_failure or both"),
        ("notify: {command: x, timeout_s: 0}", "notify.timeout_s: must be 1 to 600, got 0"),
        ("notify: {command: x, when: end}", "notify.when: unknown key"),
        ("cluster: {notify: {on: end}}", "cluster.notify: it has no command to run"),
    ],
)
def test_a_notice_that_tells_nobody_is_refused(folder: Path, line: str, message: str) -> None:
    (mistake,) = mistakes(START + line + "\n")
    assert message in mistake
