"""Findings."""

from harness.health.finding import error, ok, warning


def test_only_what_stands_badly_has_a_remedy() -> None:
    assert (ok("a", "b").state, ok("a", "b").remedy) == ("ok", "")
    assert (warning("a", "b", "c").state, error("a", "b", "c").remedy) == ("warning", "c")
