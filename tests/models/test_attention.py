"""Windows, neighbourhoods and pooling."""

import pytest
import torch

from models.attention import Attention, AttentionPool, SlidingWindowAttention, WindowLayout, from_windows, neighbourhood_mask, to_windows
from models.configs import SWAConfig
from models.registry import create_model


@pytest.mark.parametrize(("height", "width", "padded"), [(8, 8, (8, 8)), (5, 6, (8, 8)), (4, 9, (4, 12)), (1, 1, (4, 4))])
def test_a_map_is_padded_to_whole_windows(height: int, width: int, padded: tuple[int, int]) -> None:
    assert WindowLayout(height=height, width=width, window=4).padded == padded


def test_windows_hold_the_tokens_of_their_square_row_by_row() -> None:
    x, layout = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6), WindowLayout(height=4, width=6, window=2)
    windows = to_windows(x, layout)
    assert windows.shape == (2 * 2 * 3, 4, 3)
    assert torch.equal(windows[4], x[0, :, 2:4, 2:4].flatten(1).t())  # second row of windows, second column
    assert torch.equal(from_windows(windows, layout), x)


def test_attention_is_torchs_over_heads_side_by_side() -> None:
    torch.manual_seed(0)
    attention, x = Attention(12, heads=3), torch.randn(2, 5, 12)
    query, key, value = (part.view(2, 5, 3, 4).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=-1))
    want = attention.proj(((query @ key.transpose(2, 3)) / 2).softmax(-1).matmul(value).transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(attention(x, WindowLayout(height=5, width=1, window=5)), want)


def test_every_second_block_shifts_its_neighbourhood() -> None:
    blocks = [SlidingWindowAttention(8, 2, SWAConfig(window=3, shift=1), index) for index in range(3)]
    assert [block.shift for block in blocks] == [0, 1, 0]


def test_a_token_looks_at_its_neighbourhood_and_never_at_padding() -> None:
    layout = WindowLayout(height=5, width=6, window=4)  # padded to 8 x 8
    mask = neighbourhood_mask(layout, 3, 0, torch.device("cpu")).view(8, 8, 8, 8)
    for r in range(5):
        for c in range(6):
            seen = {(int(y), int(x)) for y, x in mask[r, c].nonzero()}
            assert seen == {(y, x) for y in range(r - 1, r + 2) for x in range(c - 1, c + 2) if 0 <= y < 5 and 0 <= x < 6}
    assert mask.flatten(2).any(-1).all()  # no row is empty: a softmax over nothing is NaN


def test_a_shift_displaces_the_neighbourhood() -> None:
    mask = neighbourhood_mask(WindowLayout(height=6, width=6, window=6), 3, 1, torch.device("cpu")).view(6, 6, 6, 6)
    assert {(int(y), int(x)) for y, x in mask[2, 3].nonzero()} == {(y, x) for y in (2, 3, 4) for x in (3, 4, 5)}


def test_sliding_windows_cross_the_borders_of_the_level_s_windows() -> None:
    torch.manual_seed(0)
    level = create_model("mambavision_micro", swa={"window": 3}, windows=(8, 8, 4, 2)).eval().levels[2]
    attention, layout = level.blocks[2].mixer, WindowLayout(height=8, width=8, window=4)
    windows = torch.randn(4, 16, 64, requires_grad=True)  # 2 x 2 windows of 4 x 4 tokens
    attention(windows, layout)[0, 3].sum().backward()  # row 0, column 3: beside the border
    assert windows.grad is not None
    reached = windows.grad.abs().sum(-1) > 0
    assert reached[1, 0] and reached[1, 4] and reached[0, 2] and not reached[1, 1] and not reached[2].any()


def test_pooling_weights_sum_to_one_over_all_positions() -> None:
    torch.manual_seed(0)
    pool, tokens = AttentionPool(8, 12, heads=4), torch.randn(3, 35, 8)
    weights = pool.weights(tokens)
    assert weights.shape == (3, 4, 35) and (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4))
    shuffled = torch.randperm(35)
    torch.testing.assert_close(pool(tokens[:, shuffled]), pool(tokens))  # a pooling: the order of tokens does not matter
