"""Merging of tokens, against loops in float64 that know nothing of gather and scatter."""

import math

import pytest
import torch

from models.token_merging import Merging, Tokens, apart_from, match, merged, weigh


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def by_hand(tokens, sizes, leaving, apart, timescale=None, prune=False):
    """Tokens, sizes and the new positions of class tokens of one sample, and the group of first positions in every token: plain lists."""
    patches = [position for position in range(len(tokens)) if position not in apart]
    if timescale is None:
        sources, targets = patches[0::2], patches[1::2]
    else:
        by_scale = sorted(patches, key=lambda position: timescale[position])  # of equal ones the first
        sources, targets = sorted(by_scale[:leaving]), sorted(by_scale[leaving:])
    edges = []
    for source in sources:
        similarities = [cosine(tokens[source], tokens[target]) for target in targets]
        edges.append((max(similarities), source, targets[similarities.index(max(similarities))]))
    taken = {source: target for _, source, target in sorted(edges, key=lambda edge: -edge[0])[:leaving]}
    result, result_sizes, groups = [], [], []
    for position in (position for position in range(len(tokens)) if position not in taken):
        group = [position, *(source for source, target in taken.items() if target == position)]
        total = sum(sizes[member] for member in group)
        mean = [sum(sizes[member] * tokens[member][channel] for member in group) / total for channel in range(len(tokens[0]))]
        result.append(list(tokens[position]) if prune else mean)
        result_sizes.append(sizes[position] if prune else total)
        groups.append(group)
    return result, result_sizes, [next(i for i, group in enumerate(groups) if group[0] == position) for position in apart], groups


def images(length, dim=6, batch=3, seed=0, dtype=torch.float64):
    return torch.randn(batch, length, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("mode", ["merge", "prune"])
@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("apart", [range(0), range(1), range(4, 5), range(2), range(12, 13)])
def test_three_merges_are_those_of_the_loops(apart, scored, mode):
    x, beside = images(13, dim=5), images(13, dim=3, seed=1)
    left = 13 - len(apart)
    numbers = {0: (left - 3, left), 2: (left - 5, left - 3), 3: (left - 8, left - 5)}
    if left == 11:
        numbers.pop(3)
    scales = {block: images(before + len(apart), dim=1, seed=9 + block)[..., 0] for block, (_, before) in numbers.items()}
    tokens = Tokens(Merging(tokens=numbers, mode=mode), x, apart)
    expected = [(x[i].tolist(), beside[i].tolist(), [1] * 13, list(apart)) for i in range(len(x))]
    for block, (after, before) in numbers.items():
        x, beside = tokens.before(block, x, beside, timescale=scales[block] if scored else None)
        for i, (first, second, sizes, at) in enumerate(expected):
            scale = scales[block][i].tolist() if scored else None
            first, new_sizes, now, groups = by_hand(first, sizes, before - after, at, scale, mode == "prune")
            second = [second[group[0]] if mode == "prune" else weighted(second, sizes, group) for group in groups]
            expected[i] = first, second, new_sizes, now
        torch.testing.assert_close(x, torch.tensor([sample[0] for sample in expected], dtype=x.dtype))
        torch.testing.assert_close(beside, torch.tensor([sample[1] for sample in expected], dtype=x.dtype))
        assert tokens.sizes.tolist() == [sample[2] for sample in expected]
        assert tokens.apart.tolist() == [sample[3] for sample in expected]
    assert tokens.before(1, x)[0] is x  # no token leaves before the others
    assert mode == "prune" or (tokens.sizes.sum(1) == 13).all()


def weighted(tokens, sizes, group):
    total = sum(sizes[member] for member in group)
    return [sum(sizes[member] * tokens[member][channel] for member in group) / total for channel in range(len(tokens[0]))]


def test_the_class_token_stays_between_the_same_neighbours_in_every_sample():
    x = images(9, batch=8)
    tokens = Tokens(Merging(tokens={0: (6, 8)}, mode="prune"), x, range(4, 5))
    (y,) = tokens.before(0, x)
    assert torch.equal(tokens.class_tokens(y)[:, 0], x[:, 4])
    assert len(set(tokens.apart.flatten().tolist())) > 1  # it moves by the tokens before it that left
    for sample, rest in zip(x, y, strict=True):
        positions = [sample.tolist().index(token.tolist()) for token in rest]
        assert positions == sorted(positions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_any_dtype_the_matching_and_the_sums_are_those_of_float64_on_the_same_numbers(dtype):
    x = images(33, dim=16, dtype=torch.float32).to(dtype)
    sizes = torch.randint(1, 5, x.shape[:2], generator=torch.Generator().manual_seed(0)).float()
    apart = torch.full((len(x), 1), 16)
    matching, exact = match(x, 9, apart), match(x.double(), 9, apart)
    assert torch.equal(matching.source, exact.source) and torch.equal(matching.now_at, exact.now_at)
    y, wide = merged(x, weigh(sizes, matching), matching), merged(x.double(), weigh(sizes.double(), exact), exact)
    assert y.dtype == dtype
    torch.testing.assert_close(y, wide.to(dtype), rtol=2**-7 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)
    alone = [[p for p in range(24) if p not in set(slots)] for slots in exact.slot.tolist()]
    for sample, positions in enumerate(alone):
        assert torch.equal(y[sample, positions], x[sample, exact.kept[sample, positions]])  # to the bit


def test_of_equal_similarities_the_first_tokens_leave_for_the_first_partner():
    x = torch.ones(2, 10, 4)
    matching = match(x, 3, torch.empty(2, 0, dtype=torch.int64))
    assert matching.source.tolist() == [[0, 2, 4]] * 2
    assert matching.kept.tolist() == [[1, 3, 5, 6, 7, 8, 9]] * 2
    assert matching.slot.tolist() == [[0, 0, 0]] * 2
    scaled = match(x, 3, torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 10))
    assert scaled.source.tolist() == [[1, 2, 3]] * 2 and scaled.slot.tolist() == [[1, 1, 1]] * 2  # to token 4, behind the class token


def test_a_token_of_zeros_breaks_nothing():
    x = images(8, dtype=torch.float32)
    x[0, 0] = x[1] = 0.0
    matching = match(x, 4, torch.empty(3, 0, dtype=torch.int64))
    assert torch.isfinite(merged(x, weigh(torch.ones(3, 8), matching), matching)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_merges_in_the_same_way_in_any_batch(dtype):
    x = images(50, dim=24, batch=16, dtype=torch.float32).to(dtype)

    def run(batch):
        tokens = Tokens(Merging(tokens={0: (40, 49), 1: (31, 40)}), batch, range(25, 26))
        return tokens.before(1, *tokens.before(0, batch))[0]

    assert torch.equal(run(x), torch.cat([run(part) for part in x.split([1, 2, 13])]))


def test_gradients_go_through_the_merge():
    x, sizes = images(7, dim=2, batch=2).requires_grad_(), torch.tensor([[1.0, 2, 1, 3, 1, 1, 2]] * 2)
    matching = match(x, 3, torch.full((2, 1), 3))
    assert (matching.slot[:, :, None] == matching.slot[:, None, :]).sum() > 6  # some token takes in several
    assert torch.autograd.gradcheck(lambda tokens: merged(tokens, weigh(sizes.double(), matching), matching), x)


def test_spreading_gives_every_position_the_token_that_took_it_in():
    x = images(8, dim=4)
    tokens = Tokens(Merging(tokens={0: (5, 8), 1: (3, 5)}), x, range(0))
    (once,) = tokens.before(0, x)
    (y,) = tokens.before(1, once)
    spread = tokens.spread(y)
    assert spread.shape == x.shape
    for sample, first, second in zip(range(3), tokens.matchings[0].now_at.tolist(), tokens.matchings[1].now_at.tolist(), strict=True):
        assert torch.equal(spread[sample], torch.stack([y[sample, second[at]] for at in first]))
    torch.testing.assert_close(spread.mean(1), x.mean(1))  # what was merged by sizes has the mean of all tokens


def test_attention_with_sizes_is_attention_over_all_copies():
    tokens = Tokens(Merging(tokens={0: (5, 8)}), images(8), range(0))
    assert tokens.bias(torch.float32) is None
    tokens.before(0, images(8))
    query, key, value = (images(5, seed=seed) for seed in (1, 2, 3))
    got = torch.nn.functional.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], attn_mask=tokens.bias(query.dtype))
    for sample, sizes in enumerate(tokens.sizes.long()):
        copies = [part[sample].repeat_interleave(sizes, dim=0) for part in (key, value)]
        torch.testing.assert_close(got[sample, 0], torch.nn.functional.scaled_dot_product_attention(query[sample], *copies))


def test_the_other_positions_of_a_sequence_are_ascending():
    assert apart_from(torch.tensor([[1, 4], [0, 3]]), 5).tolist() == [[0, 2, 3], [1, 2, 4]]
