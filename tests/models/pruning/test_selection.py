import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.pruning.selection import check_ratio, indices_kept, keep_best
from models.pruning.units import units_of
from tests.support.removal import small_network

GROUPS = st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=6), min_size=1, max_size=4)


def by_hand(groups, count):
    """Units that go: the lowest first, the first in order among equals, never the best of a group."""
    best = {(number, max(range(len(group)), key=lambda unit, group=group: (group[unit], -unit))) for number, group in enumerate(groups)}
    units = sorted(((score, number, unit) for number, group in enumerate(groups) for unit, score in enumerate(group)), key=lambda scored: scored[0])
    return {(number, unit) for _, number, unit in [scored for scored in units if scored[1:] not in best][:count]}


@given(GROUPS, st.floats(0.0, 0.99))
def test_the_lowest_units_go_over_all_groups_and_one_of_each_stays(groups, ratio):
    total = sum(map(len, groups))
    count = round(ratio * total)
    if count > total - len(groups):
        return
    masks = keep_best({str(number): torch.tensor(group, dtype=torch.float32) for number, group in enumerate(groups)}, ratio, "global")
    gone = {(int(name), unit) for name, mask in masks.items() for unit in (~mask).nonzero().flatten().tolist()}
    assert gone == by_hand(groups, count)
    assert all(mask.any() for mask in masks.values())


@given(GROUPS, st.floats(0.0, 0.5))
def test_each_group_loses_its_own_share_with_scope_layer(groups, ratio):
    scores = {str(number): torch.tensor(group, dtype=torch.float32) for number, group in enumerate(groups)}
    for (name, mask), group in zip(keep_best(scores, ratio, "layer").items(), groups, strict=True):
        gone = {(0, unit) for unit in (~mask).nonzero().flatten().tolist()}
        assert gone == by_hand([group], round(ratio * len(group))), name


def test_groups_that_keep_all_their_units_are_not_named():
    masks = {"a": torch.tensor([True, False, True]), "b": torch.tensor([True, True])}
    assert indices_kept(masks) == {"a": [0, 2]}


def test_a_ratio_that_empties_a_group_is_refused_with_numbers():
    groups = units_of(small_network("mambavision"), ("heads",))
    check_ratio(groups, 0.8, "layer", ("heads",))
    said = r"ratio 0\.9 removes all 4 units of levels\.2\.blocks\.1\.mixer\.heads, and one stays.* must be below 0\.875"
    with pytest.raises(ValueError, match=said):
        check_ratio(groups, 0.9, "layer", ("heads",))


def test_a_ratio_over_all_groups_that_empties_them_is_refused_with_numbers():
    groups = units_of(small_network("mambavision"), ("heads",))
    check_ratio(groups, 0.8, "global", ("heads",))
    with pytest.raises(ValueError, match=r"removes 11 of the network's 12 units, and one of each of its 2 groups stays.* at most 0\.833"):
        check_ratio(groups, 0.9, "global", ("heads",))


def test_a_network_without_such_units_is_refused():
    with pytest.raises(ValueError, match="no units of the kinds heads, mlp"):
        check_ratio(units_of(small_network("vim"), ("heads", "mlp")), 0.5, "layer", ("heads", "mlp"))
