"""The convolutional part of MambaVision: stem, blocks and down-sampling, as in the official code, or in the style of ConvNeXt or MobileNetV2."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import AttentionPool
from models.layers import DropPath

Norm = Callable[..., nn.Module]
STEM_EPS = 1e-4  # of the stem's BatchNorms; all others have 1e-5


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a map. Channels that pruning removed still count as zeros in its mean and variance."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps)
        self.removed = 0  # channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) from the same."""
        x = x.permute(0, 2, 3, 1)
        return (self._with_zeros(x) if self.removed else super().forward(x)).permute(0, 3, 1, 2)

    def _with_zeros(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        width = x.shape[-1] + self.removed
        mean = wide.sum(-1, keepdim=True) / width
        centred = wide - mean
        variance = (centred.square().sum(-1, keepdim=True) + self.removed * mean.square()) / width
        return (centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias).to(x.dtype)


class Stem(nn.Module):
    """Two strided 3x3 convolutions with norm and activation."""

    def __init__(self, in_dim: int, dim: int, strides: tuple[int, int], norm: Norm, *, gelu: bool) -> None:
        super().__init__()
        self.conv_down = nn.Sequential(
            nn.Conv2d(3, in_dim, 3, strides[0], 1, bias=False), norm(in_dim, eps=STEM_EPS), nn.GELU() if gelu else nn.ReLU(),
            nn.Conv2d(in_dim, dim, 3, strides[1], 1, bias=False), norm(dim, eps=STEM_EPS), nn.GELU() if gelu else nn.ReLU(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """(B, dim, H', W') from (B, 3, H, W)."""
        y: Tensor = self.conv_down(images)
        return y


class ConvBlock(nn.Module):
    """x + norm(conv(GELU(norm(conv(x))))), with GELU in its tanh form if `tanh`."""

    def __init__(self, dim: int, drop_path: float, norm: Norm, *, kernel: int, separable: bool, tanh: bool, se_ratio: int | None) -> None:
        super().__init__()
        self.conv1, self.norm1 = _convolution(dim, kernel, separable), norm(dim)
        self.act1 = nn.GELU(approximate="tanh" if tanh else "none")
        self.conv2, self.norm2 = _convolution(dim, kernel, separable), norm(dim)
        self.se = MapExcite(dim, se_ratio) if se_ratio else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) from the same."""
        branch: Tensor = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        y: Tensor = x + self.drop_path(self.se(branch))
        return y


class InvertedBlock(nn.Module):
    """x + MobileNetV2's inverted residual (arXiv 1801.04381, table 1): 1x1 to expand * C and depthwise, both with norm and ReLU6, then a linear 1x1
    with norm.
    """

    def __init__(self, dim: int, expand: int, kernel: int, drop_path: float, norm: Norm, se_ratio: int | None) -> None:
        super().__init__()
        inner = expand * dim
        self.branch = nn.Sequential(
            nn.Conv2d(dim, inner, 1, bias=False), norm(inner), nn.ReLU6(),
            nn.Conv2d(inner, inner, kernel, padding=kernel // 2, groups=inner, bias=False), norm(inner), nn.ReLU6(),
            nn.Conv2d(inner, dim, 1, bias=False), norm(dim),
        )  # fmt: skip
        self.se = MapExcite(dim, se_ratio) if se_ratio else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) from the same."""
        y: Tensor = x + self.drop_path(self.se(self.branch(x)))
        return y


class MapExcite(nn.Module):
    """Squeeze-and-excitation of a map: a gate for each channel, computed from the mean over positions. arXiv 1709.01507, section 3."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(dim, max(1, dim // ratio), 1)
        self.excite = nn.Conv2d(max(1, dim // ratio), dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) from the same."""
        gate: Tensor = self.excite(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * gate


class Downsample(nn.Module):
    """Half the map and twice the channels: a 3x3 convolution of stride 2, or with `norm` ConvNeXt's norm and 2x2 convolution of stride 2."""

    def __init__(self, dim: int, norm: Norm | None) -> None:
        super().__init__()
        self.before = norm(dim) if norm else nn.Identity()
        self.patches = norm is not None
        self.reduction = nn.Sequential(nn.Conv2d(dim, 2 * dim, *((2, 2, 0) if norm else (3, 2, 1)), bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C, ceil(H/2), ceil(W/2)) from (B, C, H, W)."""
        x = self.before(x)
        y: Tensor = self.reduction(_even(x) if self.patches else x)
        return y


class AttentionDownsample(nn.Module):
    """Half the map and twice the channels: attention pooling over every 2x2 tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.pool = AttentionPool(dim, 2 * dim, heads)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C, ceil(H/2), ceil(W/2)) from (B, C, H, W)."""
        x = _even(x)
        batch, channels, height, width = x.shape
        tokens = x.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, channels)
        pooled: Tensor = self.pool(tokens)
        return pooled.view(batch, height // 2, width // 2, -1).permute(0, 3, 1, 2).contiguous()


def _convolution(dim: int, kernel: int, separable: bool) -> nn.Module:
    if not separable:
        return nn.Conv2d(dim, dim, kernel, padding=kernel // 2)
    return nn.Sequential(nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim), nn.Conv2d(dim, dim, 1))


def _even(x: Tensor) -> Tensor:
    """The map, with its last row or column repeated if their number is odd."""
    return F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate") if x.shape[2] % 2 or x.shape[3] % 2 else x
