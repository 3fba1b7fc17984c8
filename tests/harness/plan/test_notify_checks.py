"""Commands of `notify` that would tell nobody."""

import pytest

from harness.plan.notify_checks import notify_problems, program
from jobs.experiment.specs import ClusterSpec, NotifySpec


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("mail -s done me", "mail"),
        ("TO=me /usr/bin/mail 'a b'", "/usr/bin/mail"),
        ("$HOME/tell.sh", None),
        ("'my program' x", None),
        ("(cd x && y)", None),
        ("# nothing", None),
        ("echo 'open", None),
    ],
)
def test_the_program_of_a_command_is_its_first_word(command: str, word: str | None) -> None:
    assert program(command) == word


@pytest.mark.parametrize(
    ("command", "kind", "problem"),
    [
        ("echo done | cat", "local", ""),
        (": builtin", "local", ""),
        ("no-such-program x", "local", "this machine has no program 'no-such-program'"),
        ("no-such-program x", "slurm", ""),  # the nodes may have it
        ("echo 'open", "slurm", "the shell cannot read it"),
        ("if true", "local", "the shell cannot read it"),
    ],
)
def test_a_command_is_read_by_the_shell_and_looked_for_here(command: str, kind: str, problem: str) -> None:
    shown = notify_problems(ClusterSpec(kind=kind, notify=NotifySpec(command=command)))  # type: ignore[arg-type]
    assert len(shown) == bool(problem) and all(problem in line for line in shown)


def test_without_a_command_there_is_nothing_to_check() -> None:
    assert notify_problems(ClusterSpec()) == []
