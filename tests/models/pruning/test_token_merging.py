import pytest

from models.pruning.base import Budget
from models.pruning.registry import create_method, method_label
from models.registry import create_model
from models.token_merging import Merging


def merging(network, **knobs):
    return create_method("token_merging", **knobs).merging(network)


def test_r_meetos_own_numbers_for_vim_tiny():
    import torch

    with torch.device("meta"):
        network = create_model("vim_tiny")
    tokens = merging(network, r=5).tokens
    assert list(tokens) == list(range(2, 24, 2)) and tokens[2] == (191, 196) and tokens[22] == (196 - 55, 196 - 50)
    mean = sum(197 - 5 * (block // 2) for block in range(24)) / 24 / 197
    assert mean == pytest.approx(0.86, abs=0.005)


@pytest.mark.parametrize(
    ("knobs", "tokens"),
    [
        ({"r": 0.25}, {2: (48, 64)}),
        ({"r": 0.25, "layers": "all"}, {1: (48, 64), 2: (36, 48), 3: (27, 36)}),
        ({"r": 0.5, "layers": (0, 3)}, {0: (32, 64), 3: (16, 32)}),
        ({"r": 32, "layers": (0, 3)}, None),
        ({"r": 20, "layers": (1, 3)}, {1: (44, 64), 3: (24, 44)}),
    ],
)
def test_the_tokens_that_leave_before_each_block(knobs, tokens):
    network = create_model("vim_micro")
    if tokens is None:
        with pytest.raises(ValueError, match="32 tokens cannot leave before block 3: 32 are left there, of which 16 can"):
            merging(network, **knobs)
    else:
        assert merging(network, **knobs) == Merging(tokens=tokens)


def test_blocks_are_numbered_over_the_levels_with_windows_and_a_small_window_may_lose_no_token():
    network = create_model("mambavision_micro")
    assert merging(network, r=0.25).tokens == {2: (12, 16), 4: (3, 4)}
    assert merging(network, r=0.1, layers="all").tokens == {1: (14, 16), 2: (13, 14), 3: (12, 13)}


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({}, "token_merging needs r"),
        ({"r": 0}, "r must be 1 token or more, or a fraction .* got 0"),
        ({"r": 0.6}, "up to 0.5: what leaves goes to what stays; got 0.6"),
        ({"r": 5.0}, "got 5"),
        ({"r": 0.0}, "above 0"),
        ({"r": 1, "layers": ()}, r"layers must be alternate, all, or a list of blocks.*got \[\]"),
        ({"r": 1, "layers": (3, 1)}, "ascending, each once"),
        ({"r": 1, "layers": (-1,)}, "from 0"),
    ],
)
def test_impossible_knobs_are_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        create_method("token_merging", **knobs)


@pytest.mark.parametrize(
    ("model", "knobs", "said"),
    [
        (("vim_micro", {}), {"r": 40}, "40 tokens cannot leave before block 2: 64 are left there, of which 32 can"),
        (("vim_micro", {}), {"r": 4, "layers": (2, 4)}, "layers names block 4, and the network has 4 blocks with tokens, 0 to 3"),
        (("vim_micro", {"depth": 2}), {"r": 4}, "no token leaves: r 4 with layers: alternate of 2 blocks with tokens; raise r, or list other layers"),
        (("vim_micro", {}), {"r": 0.005}, "no token leaves: r 0.005 before blocks 2 of 4"),
        (("vim_micro", {}), {"r": 4, "layers": (0, 2), "score": "timescale"}, "block 0 has none; leave 0 out of layers"),
        (("vim_micro", {"s5": {}}), {"r": 4, "score": "timescale"}, "the state space of s4 and s5 does not"),
        (("vit_micro", {}), {"r": 4, "score": "timescale"}, "which only Vim has; use score: cosine"),
        (("vmamba_micro", {}), {"r": 4}, "tokens of VMamba cannot merge"),
        (("mambaout_micro", {}), {"r": 4}, "tokens of MambaOut cannot merge"),
    ],
)
def test_networks_on_which_it_is_not_defined_are_refused_before_the_launch(model, knobs, said):
    with pytest.raises(ValueError, match=said):
        create_method("token_merging", **knobs).check(create_model(model[0], 10, **model[1]))


def test_its_label_and_its_stages():
    method = create_method("token_merging", r=5, layers=(4, 8), mode="prune")
    assert method_label(method) == "token_merging(r=5, layers=4+8, mode=prune)"
    trunk, last = method.stages(Budget(epochs=3, finetune_epochs=2))
    assert trunk == create_method("dense").stages(Budget(epochs=3, finetune_epochs=2))[0]
    assert (last.name, last.method, last.start) == ("finetune", method, "parent")
