"""Options that contradict each other are refused before a model is built; defaults are the published ones."""

import pytest

from models.configs import MambaOutConfig, MambaVisionConfig, ViTConfig
from models.registry import OptionError, model_config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"s4": {}, "s5": {}}, "s4 and s5 both replace the selective scan"),
        ({"swa": {"window": 4}}, "window must be odd"),
        ({"swa": {"window": 3, "shift": 2}}, "shift must be at most window // 2 = 1"),
        ({"s5": {"d_state": 6, "blocks": 2}}, "d_state must be a multiple of 2 \\* blocks = 4, not 6"),
        ({"attention_pool": {"heads": 5}}, "5 heads do not divide"),
        ({"convnext": {"kernel": 4}}, "kernel must be odd"),
        ({"depths": [1, 1, 4]}, "depths"),
        ({"heads": [1, 2, 3, 8]}, "3 heads do not divide 64"),
        ({"dim": 15}, "dim must be even"),
        ({"mobilenet": {"kernel": 2}}, "mobilenet: kernel must be odd"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model_config("mambavision_micro", options)  # before anything is built: the launcher reports it


def test_defaults_are_those_of_the_smallest_published_size() -> None:
    assert MambaVisionConfig().depths == (1, 3, 8, 4)


@pytest.mark.parametrize("name", ["vim_micro", "mambavision_micro"])
def test_only_one_state_space_replaces_the_scan(name: str) -> None:
    assert model_config(name, {"s4": {}}).s4 is not None
    with pytest.raises(OptionError, match="s4 and s5 both replace the selective scan: give only one"):
        model_config(name, {"s4": {}, "s5": {}})


def test_controls_check_their_options_too() -> None:
    with pytest.raises(ValueError, match="5 heads do not divide 192 channels"):
        ViTConfig(heads=5).check()
    MambaOutConfig(depths=(1, 1, 1, 1)).check()
