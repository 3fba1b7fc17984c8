"""Attention of MambaVision's blocks, its sliding-window form, and pooling by attention."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.configs import SWAConfig


@dataclass(frozen=True, kw_only=True)
class WindowLayout:
    """How a map of height x width tokens is cut into windows of `window` x `window` tokens, after zero-padding to whole windows."""

    height: int
    width: int
    window: int
    bias: Tensor | None = None  # (windows, 1, 1, L), added to the scores of keys: tokens that stand for several weigh more

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width, rounded up to multiples of the window."""
        return -(-self.height // self.window) * self.window, -(-self.width // self.window) * self.window


def to_windows(x: Tensor, layout: WindowLayout) -> Tensor:
    """(B * windows, window^2, C) from a padded map, (B, C, H, W)."""
    batch, channels, height, width = x.shape
    size = layout.window
    x = x.view(batch, channels, height // size, size, width // size, size)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, size * size, channels)


def from_windows(windows: Tensor, layout: WindowLayout) -> Tensor:
    """The padded map, (B, C, H, W), from (B * windows, window^2, C)."""
    (height, width), size = layout.padded, layout.window
    x = windows.reshape(-1, height // size, width // size, size, size, windows.shape[-1])
    return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, windows.shape[-1], height, width)


class Attention(nn.Module):
    """Multi-head self-attention within a window."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, layout: WindowLayout) -> Tensor:
        """(windows, L, C) from the same."""
        return self.attend(x, layout.bias)

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, C) from (B, L, C); mask: (L, L), True where the token of a row attends to the token of a column; or a bias of scores."""
        parts = self.qkv(x).split([self.proj.in_features] * 3, dim=-1)
        query, key, value = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)  # as many heads as pruning leaves
        y: Tensor = self.proj(F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2))
        return y


class SlidingWindowAttention(Attention):
    """Each token attends to the `window` x `window` tokens around it, across the borders of windows. No token attends to padding.

    In every second attention block of a level the neighbourhood is displaced by `shift` tokens down and to the right. The neighbourhood is a mask on
    full attention: exact, but not cheaper than full attention.
    """

    def __init__(self, dim: int, heads: int, config: SWAConfig, index: int) -> None:
        super().__init__(dim, heads)
        self.window, self.shift = config.window, config.shift if index % 2 else 0

    def forward(self, x: Tensor, layout: WindowLayout) -> Tensor:
        """(B * windows, window^2, C) from the same."""
        height, width = layout.padded
        tokens = from_windows(x, layout).flatten(2).transpose(1, 2)
        tokens = self.attend(tokens, neighbourhood_mask(layout, self.window, self.shift, x.device))
        return to_windows(tokens.transpose(1, 2).view(tokens.shape[0], -1, height, width), layout)


def neighbourhood_mask(layout: WindowLayout, window: int, shift: int, device: torch.device) -> Tensor:
    """(L, L) over the padded map, row by row; True where a token attends to another: within its neighbourhood, and not to padding.

    Padding attends to every token that is not padding, so that no row is empty. Its outputs are dropped.
    """
    height, width = layout.padded
    rows, columns = torch.arange(height, device=device).repeat_interleave(width), torch.arange(width, device=device).repeat(height)
    near_rows, near_columns = ((axis[None, :] - axis[:, None] - shift).abs() < window // 2 + 1 for axis in (rows, columns))
    real = (rows < layout.height) * (columns < layout.width)
    padding = (layout.height - 1 - rows < 0) + (layout.width - 1 - columns < 0)
    return (near_rows * near_columns + padding[:, None]) * real[None, :]


class AttentionPool(nn.Module):
    """One vector for each set of tokens: a learned query for each head, softmax over all tokens, and a projection. arXiv 1810.00825, section 3.2."""

    def __init__(self, dim: int, out: int, heads: int) -> None:
        super().__init__()
        self.key_dim, self.value_dim = dim // heads, out // heads  # of one head
        self.query = nn.Parameter(torch.empty(1, dim))  # of all heads, concatenated as in the layers
        nn.init.trunc_normal_(self.query, std=0.02)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, out)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, out) from (B, L, dim)."""
        value = self.value(tokens).unflatten(-1, (-1, self.value_dim)).transpose(1, 2)
        pooled: Tensor = (self.weights(tokens).unsqueeze(2) @ value).flatten(1)
        return pooled

    def weights(self, tokens: Tensor) -> Tensor:
        """(B, heads, L), each row summing to 1 over all L tokens."""
        key = self.key(tokens).unflatten(-1, (-1, self.key_dim)).transpose(1, 2)
        scores: Tensor = (key @ self.query.view(-1, self.key_dim, 1)).squeeze(-1) / self.key_dim**0.5
        return scores.softmax(dim=-1)
