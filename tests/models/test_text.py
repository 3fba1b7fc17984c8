"""Suggestions in error messages."""

import pytest

from models.text import did_you_mean, valid_names


@pytest.mark.parametrize(("given", "suggestion"), [("vim_tny", "; did you mean 'vim_tiny'?"), ("vim_tiny", "; did you mean 'vim_tiny'?"), ("x", "")])
def test_the_nearest_valid_name_is_suggested_if_it_is_near(given: str, suggestion: str) -> None:
    assert did_you_mean(given, ["vim_tiny", "vit_tiny", "mambaout_femto"]) == suggestion


def test_all_valid_names_follow_the_suggestion() -> None:
    assert valid_names("dpth", iter(["dim", "depth"])) == "; did you mean 'depth'? valid: dim, depth"
    assert valid_names("x", ["dim", "depth"]) == "; valid: dim, depth"


def test_without_valid_names_nothing_is_suggested() -> None:
    assert did_you_mean("x", []) == ""
