import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.pruning.masks import SAMPLE, choose, drop, kth_smallest, sparsity_of
from tests.support.network_views import lowest_dropped, random_weights, same


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), sparsity=st.floats(0, 0.999), values=st.sampled_from([None, 2, 4]))
def test_a_global_threshold_drops_what_sorting_all_scores_drops(seed, sparsity, values):
    scores = random_weights(seed, values=values)
    assert same(choose(scores, sparsity, "global"), lowest_dropped(scores, round(sparsity * 200)))


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), sparsity=st.floats(0, 0.999), values=st.sampled_from([None, 2, 4]))
def test_layer_scope_drops_the_same_share_of_every_parameter(seed, sparsity, values):
    scores = random_weights(seed, values=values)
    for name, mask in choose(scores, sparsity, "layer").items():
        assert same({name: mask}, lowest_dropped({name: scores[name]}, round(sparsity * scores[name].numel())))


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), first=st.floats(0, 0.9), second=st.floats(0, 0.99), scope=st.sampled_from(["global", "layer"]))
def test_weights_that_are_gone_stay_gone_whatever_their_score(seed, first, second, scope):
    before = choose(random_weights(seed, values=3), first, scope)
    after = choose(random_weights(seed + 1, values=3), second, scope, within=before)
    assert all(not (after[name] & ~before[name]).any() for name in after)
    if scope == "global":
        assert sum(int((~mask).sum()) for mask in after.values()) == max(round(first * 200), round(second * 200))


def test_among_equal_scores_the_first_goes_first():
    masks = choose({"a": torch.ones(2), "b": torch.ones(2, 2)}, 0.5, "global")
    assert masks["a"].tolist() == [False, False] and masks["b"].tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize(("sparsity", "zeros"), [(0.0, 0), (0.1, 0), (0.3, 2), (0.5, 2), (0.7, 4), (0.99, 5)])
def test_counts_are_rounded_to_the_nearest_and_halves_to_even(sparsity, zeros):
    assert int((~choose({"a": torch.arange(5.0)}, sparsity, "global")["a"]).sum()) == zeros


def test_transposed_scores_are_ranked_in_row_major_order():
    scores = torch.tensor([[1.0, 1.0], [1.0, 2.0]]).t()
    assert choose({"a": scores}, 0.25, "global")["a"].tolist() == [[False, True], [True, True]]


def test_negative_scores_are_the_lowest():
    assert choose({"a": torch.tensor([0.0, -3.0, 2.0, -1.0])}, 0.5, "global")["a"].tolist() == [True, False, True, False]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused_by_name(bad):
    with pytest.raises(ValueError, match="'b' hold NaN or infinity"):
        choose({"a": torch.ones(2), "b": torch.tensor([1.0, bad])}, 0.5, "global")


@pytest.mark.parametrize("arrangement", ["random", "sorted", "constant", "few values"])
def test_the_threshold_of_millions_of_scores_is_exact(arrangement):
    values = torch.rand(3_000_000, generator=torch.Generator().manual_seed(0))
    values = {"random": values, "sorted": values.sort().values, "constant": torch.ones_like(values), "few values": (values * 4).floor()}[arrangement]
    ranked = values.sort().values
    for k in (1, 2_000, 1_500_000, 2_700_000, 3_000_000):
        assert kth_smallest([values[:1_000_000], values[1_000_000:].view(2, -1)], k) == ranked[k - 1]


def test_a_sample_that_misleads_does_not_change_the_threshold():
    values = torch.zeros(4 * SAMPLE)
    values[1::2] = torch.arange(2 * SAMPLE) + 1.0  # every value that the sample looks at is zero
    assert kth_smallest([values], 3 * SAMPLE) == SAMPLE


def test_a_count_of_zeros_is_met_exactly_over_several_tensors():
    scores = random_weights(3)
    assert same(drop(scores, 17), lowest_dropped(scores, 17))


def test_sparsity_counts_the_zeros_of_all_masks_together():
    masks = {"a": torch.tensor([True, False, False, False]), "b": torch.zeros(4, dtype=torch.bool)}
    assert sparsity_of(masks) == 0.875 and sparsity_of({}) == 0.0
