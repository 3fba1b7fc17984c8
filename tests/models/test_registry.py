"""Names, options, labels and identities of models; no torch behind the launcher's back."""

import subprocess
import sys

import pytest

from models.configs import SEConfig
from models.registry import OptionError, create_model, effective_options, model_config, model_label, model_options
from models.typed import SettingsError, build


@pytest.mark.parametrize(
    ("name", "options", "label"),
    [
        ("vim_micro", {}, "vim_micro"),
        ("vim_micro", {"dim": 64}, "vim_micro"),  # the row's own value changes nothing
        ("vim_micro", {"se": {"ratio": 4}}, "vim_micro+se"),
        ("vim_micro", {"se": True}, "vim_micro+se"),
        ("vim_micro", {"se": {"ratio": 2}}, "vim_micro+se(ratio=2)"),
        ("vim_tiny", {"depth": 12, "se": SEConfig()}, "vim_tiny(depth=12)+se"),
        ("vim_tiny", {"stride": 8, "depth": 12}, "vim_tiny(stride=8,depth=12)"),
    ],
)
def test_a_label_says_what_differs_from_the_row(name: str, options: dict[str, object], label: str) -> None:
    assert model_label(name, options) == label


def test_effective_options_leave_out_what_is_at_its_default() -> None:
    assert effective_options("vim_micro", {"dim": 64, "se": {"ratio": 4}}) == {"se": {}}
    assert effective_options("vim_micro", {"dim": 48, "se": {"ratio": 2}}) == {"dim": 48, "se": {"ratio": 2}}
    assert effective_options("vim_micro", {"se": None}) == {}


def test_every_wrong_option_is_reported_with_its_path_and_the_nearest_name() -> None:
    with pytest.raises(OptionError) as caught:
        model_config("vim_micro", {"dpth": 3, "se": {"rato": 1}, "depth": "4", "d_state": 0, "dim": True})
    errors = {".".join(path): message for path, message in caught.value.errors}
    assert set(errors) == {"dpth", "se.rato", "depth", "d_state", "dim"}
    assert "did you mean 'depth'" in errors["dpth"] and "patch_size" in errors["dpth"]
    assert "did you mean 'ratio'" in errors["se.rato"]
    assert "'4'" in errors["depth"]


def test_the_options_of_a_model_can_be_validated_alone() -> None:
    options = model_options("vim_micro")
    build(options, {"depth": 2, "se": {"ratio": 2}})
    with pytest.raises(SettingsError, match="dpth"):
        build(options, {"dpth": 2})


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown model 'vim_tny'; did you mean 'vim_tiny'"):
        create_model("vim_tny")


def test_options_are_checked_before_anything_is_built() -> None:
    with pytest.raises(OptionError, match="model vim_micro: dpth"):
        create_model("vim_micro", dpth=3)


def test_the_registry_is_read_without_torch() -> None:
    code = "import sys, models.registry as r; r.model_label('vim_micro', {'se': {'ratio': 2}}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
