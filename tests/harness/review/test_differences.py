"""What differs between a record and a run elsewhere."""

from harness.review.differences import differences
from jobs.experiment.records import Record
from tests.support.records import fake_environment, fake_record, fake_spec


def told_apart(first: Record, second: Record) -> dict[tuple[str, str], tuple[str, str]]:
    """The differences by part and name."""
    return {(line.part, line.name): (line.recorded, line.here) for line in differences(first, second)}


def test_equal_records_differ_in_nothing_and_seeds_and_hosts_do_not_count() -> None:
    assert told_apart(fake_record(97.0), fake_record(90.0, seed=4, environment=fake_environment(host="other"))) == {}


def test_every_part_is_named_with_both_values() -> None:
    here = fake_environment(
        commit="f" * 40, dirty=True, code="c" * 16, python="3.12.1", versions={"torch": "2.14.0", "numpy": "2"}, cpu="Other CPU (avx512f)",
        gpu="H200", ranks=4, threads=8, loader="torch", scan="triton", data_sha256="e" * 64, tf32=True, container="pyxis vssm",
    )  # fmt: skip
    assert told_apart(fake_record(97.0), fake_record(97.0, spec=fake_spec("dense", 0, lr=2e-3), environment=here)) == {
        ("config", "recipe.lr"): ("0.001", "0.002"),
        ("code", "content of the code"): ("not recorded", "c" * 16),
        ("code", "commit"): ("0123456789ab", "ffffffffffff, changed"),
        ("versions", "numpy"): ("none", "2"),
        ("versions", "torch"): ("2.13.0", "2.14.0"),
        ("versions", "Python"): ("3.11.2", "3.12.1"),
        ("versions", "data loader"): ("ffcv", "torch"),
        ("versions", "scan"): ("cpu", "triton"),
        ("versions", "container"): ("none", "pyxis vssm"),
        ("hardware", "CPU and its widest instructions"): ("Example CPU (avx2)", "Other CPU (avx512f)"),
        ("hardware", "GPU"): ("none", "H200"),
        ("hardware", "ranks"): ("1", "4"),
        ("hardware", "threads"): ("2", "8"),
        ("hardware", "TF32"): ("False", "True"),
        ("data", "images"): ("d" * 12, "e" * 12),
    }


def test_equal_code_is_equal_whatever_its_commit() -> None:
    first, second = (fake_record(97.0, environment=fake_environment(code="c" * 16, commit=commit)) for commit in ("a" * 40, None))
    assert told_apart(first, second) == {}
    other = fake_record(97.0, environment=fake_environment(code="d" * 16, commit="a" * 40))
    assert told_apart(first, other) == {("code", "content of the code"): ("c" * 16, "d" * 16)}
