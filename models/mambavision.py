"""MambaVision, arXiv 2407.08083, with the names, shapes, initialisation and arithmetic of the official code (NVlabs/MambaVision,
mambavision/models/mamba_vision.py), and its variants.

| paper | here |
|---|---|
| stem, stages 1 to 4 | patch_embed, levels |
| residual convolution block (eq. 1) | ConvBlock |
| MambaVision mixer (eq. 6), self-attention (eq. 8) | SSMMixer, Attention |
| sequence within a window | x: (B * windows, window^2, C) |
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Attention, AttentionPool, SlidingWindowAttention, WindowLayout, from_windows, to_windows
from models.configs import ConvNeXtConfig, MambaVisionConfig
from models.convolution import AttentionDownsample, ConvBlock, Downsample, InvertedBlock, LayerNorm2d, Stem
from models.layers import DropPath, Mlp, SqueezeExcite, TokenConv1d
from models.ssm.s4d import S4D
from models.ssm.s5 import S5
from models.ssm.scan import selective_scan
from models.token_merging import Merging, Tokens
from models.vim import state_rates

CONV_LEVELS = 2


class SSMMixer(nn.Module):
    """Half of the channels go through convolution and scan, the other half through a convolution only; both halves go into out_proj."""

    ssm_parameters: ClassVar[tuple[str, ...]] = ("A_log", "D")

    def __init__(self, dim: int, config: MambaVisionConfig, scan_backend: str) -> None:
        super().__init__()
        half, dt_rank = dim // 2, math.ceil(dim / 16)
        self.scan, self.scan_backend = selective_scan, scan_backend
        self.in_proj = nn.Linear(dim, dim, bias=False)
        # "same", not causal, and without bias: the official code asks for `bias=conv_bias // 2`, which is 0.
        self.conv1d_x, self.conv1d_z = (TokenConv1d(half, config.d_conv, causal=False, bias=False, backend=scan_backend) for _ in range(2))
        self.ssm = S4D(half, config.s4) if config.s4 else S5(half, config.s5) if config.s5 else None
        if self.ssm is None:
            self.x_proj = nn.Linear(half, dt_rank + 2 * config.d_state, bias=False)
            self.dt_proj = nn.Linear(dt_rank, half)
            self.A_log, self.D = state_rates(half, config.d_state), nn.Parameter(torch.ones(half))
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, layout: WindowLayout) -> Tensor:
        """(windows, L, dim) from the same."""
        x, z = self.in_proj(x).split([self.conv1d_x.out_channels, self.conv1d_z.out_channels], dim=-1)  # equal until pruning narrows them
        x, z = self.conv1d_x(x), self.conv1d_z(z)
        y = self._scan(x) if self.ssm is None else self.ssm(x)
        out: Tensor = self.out_proj(torch.cat((y, z), dim=-1))  # z is not a gate
        return out

    def _scan(self, x: Tensor) -> Tensor:
        dt, B, C = self.x_proj(x).split([self.dt_proj.in_features, self.A_log.shape[1], self.A_log.shape[1]], dim=-1)
        wide = torch.promote_types(x.dtype, torch.float32)
        y = self.scan(
            x.transpose(1, 2),
            self.dt_proj(dt).transpose(1, 2),
            -torch.exp(self.A_log.to(wide)),
            B.transpose(1, 2),
            C.transpose(1, 2),
            self.D.to(wide),
            delta_bias=self.dt_proj.bias.to(wide),  # for the second time, after dt_proj, as in the official code
            delta_softplus=True,
            backend=self.scan_backend,
        )
        return y.transpose(1, 2)


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)), each branch scaled by its layer scale, if there is one."""

    def __init__(self, dim: int, mixer: nn.Module, drop_path: float, config: MambaVisionConfig) -> None:
        super().__init__()
        self.norm1, self.mixer, self.drop_path = nn.LayerNorm(dim), mixer, DropPath(drop_path)
        self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim, int(dim * config.mlp_ratio))
        self.se = SqueezeExcite(dim, config.se.ratio) if config.se else nn.Identity()
        self.gamma_1, self.gamma_2 = (None if config.layer_scale is None else nn.Parameter(torch.full((dim,), config.layer_scale)) for _ in range(2))

    def forward(self, x: Tensor, layout: WindowLayout) -> Tensor:
        """(windows, L, dim) from the same."""
        branch = self.se(self.mixer(self.norm1(x), layout))
        x = x + self.drop_path(branch if self.gamma_1 is None else self.gamma_1 * branch)
        branch = self.mlp(self.norm2(x))
        y: Tensor = x + self.drop_path(branch if self.gamma_2 is None else self.gamma_2 * branch)
        return y


class Level(nn.Module):
    """Blocks on the map (levels 1 and 2) or on its windows (3 and 4), then the down-sampling."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None, window: int | None) -> None:
        super().__init__()
        self.blocks, self.downsample, self.window = nn.ModuleList(blocks), downsample, window
        self.merging: Merging | None = None  # see `models.merge_sites`
        self.first_block = 0  # the number of the first block, counted over the levels with windows

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C, H/2, W/2) from (B, C, H, W), or (B, C, H, W) without down-sampling."""
        if self.window is None:
            for block in self.blocks:
                x = block(x)
        else:
            x = self._in_windows(x, WindowLayout(height=x.shape[2], width=x.shape[3], window=self.window))
        return x if self.downsample is None else self.downsample(x)

    def _in_windows(self, x: Tensor, layout: WindowLayout) -> Tensor:
        height, width = layout.padded  # with zeros, up to whole windows
        windows = to_windows(F.pad(x, (0, width - layout.width, 0, height - layout.height)), layout)
        windows = self._through_blocks(windows, layout) if self.merging is None else self._merging_blocks(self.merging, windows, layout)
        return from_windows(windows, layout)[:, :, : layout.height, : layout.width]

    def _through_blocks(self, windows: Tensor, layout: WindowLayout) -> Tensor:
        for block in self.blocks:
            windows = block(windows, layout)
        return windows

    def _merging_blocks(self, merging: Merging, windows: Tensor, layout: WindowLayout) -> Tensor:
        """As `_through_blocks`, with fewer and fewer tokens in each window. At the end each is at all its positions again."""
        tokens = Tokens(merging, windows, range(0))
        for number, block in enumerate(self.blocks, self.first_block):
            (windows,) = tokens.before(number, windows)
            windows = block(windows, replace(layout, bias=tokens.bias(windows.dtype)))
        return tokens.spread(windows)


class MambaVision(nn.Module):
    """Class scores, (B, num_classes), of images, (B, 3, H, W)."""

    def __init__(self, config: MambaVisionConfig, *, num_classes: int, scan_backend: str = "auto") -> None:
        super().__init__()
        style = config.convnext
        norm: Callable[..., nn.Module] = LayerNorm2d if style and style.layer_norm else nn.BatchNorm2d
        depths = _depths(config)
        rates = torch.linspace(0, config.drop_path, sum(depths), device="cpu").tolist()
        dims = [config.dim * 2**level for level in range(4)]
        self.patch_embed = Stem(config.in_dim, config.dim, config.stem_strides, norm, gelu=bool(style and style.gelu))
        self.levels = nn.ModuleList()
        for level, dim in enumerate(dims):
            level_rates = [rates.pop(0) for _ in range(depths[level])]
            make = _conv_blocks if level < CONV_LEVELS else _token_blocks
            blocks = make(config, level, dim, level_rates, norm, scan_backend)
            down = _downsample(config, dim, norm) if level < 3 else None
            self.levels.append(Level(blocks, down, None if level < CONV_LEVELS else config.windows[level]))
        self.norm = norm(dims[-1])
        self.pool = AttentionPool(dims[-1], dims[-1], config.attention_pool.heads) if config.attention_pool else None
        self.head = nn.Linear(dims[-1], num_classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_classes) from (B, 3, H, W)."""
        x = self.patch_embed(images)
        for level in self.levels:
            x = level(x)
        x = self.norm(x)
        scores: Tensor = self.head(x.mean((2, 3)) if self.pool is None else self.pool(x.flatten(2).transpose(1, 2)))
        return scores


def _depths(config: MambaVisionConfig) -> tuple[int, ...]:
    if config.convnext and config.convnext.fewer_blocks:
        return tuple(-(-depth // 2) if level < CONV_LEVELS else depth for level, depth in enumerate(config.depths))
    return config.depths


def _conv_blocks(
    config: MambaVisionConfig, level: int, dim: int, rates: list[float], norm: Callable[..., nn.Module], scan_backend: str
) -> list[nn.Module]:
    """The blocks of level 1 or 2."""
    style, ratio = config.convnext or _PLAIN, config.se.ratio if config.se else None
    if config.mobilenet:
        return [InvertedBlock(dim, config.mobilenet.expand, config.mobilenet.kernel, rate, norm, ratio) for rate in rates]
    return [ConvBlock(dim, rate, norm, kernel=style.kernel, separable=style.separable, tanh=not style.gelu, se_ratio=ratio) for rate in rates]


def _token_blocks(
    config: MambaVisionConfig, level: int, dim: int, rates: list[float], norm: Callable[..., nn.Module], scan_backend: str
) -> list[nn.Module]:
    """The blocks of level 3 or 4: state spaces, then attention in the last floor(depth / 2). Of an odd depth the state space has the extra block."""
    first_attention = len(rates) - len(rates) // 2
    mixers: list[nn.Module] = []
    for index in range(len(rates)):
        if index < first_attention:
            mixers.append(SSMMixer(dim, config, scan_backend))
        elif config.swa:
            mixers.append(SlidingWindowAttention(dim, config.heads[level], config.swa, index - first_attention))
        else:
            mixers.append(Attention(dim, config.heads[level]))
    return [Block(dim, mixer, rate, config) for mixer, rate in zip(mixers, rates, strict=True)]


def _downsample(config: MambaVisionConfig, dim: int, norm: Callable[..., nn.Module]) -> nn.Module:
    if config.attention_pool and config.attention_pool.downsample:
        return AttentionDownsample(dim, config.attention_pool.heads)
    return Downsample(dim, norm if config.convnext and config.convnext.patch_downsample else None)


_PLAIN = ConvNeXtConfig(layer_norm=False, kernel=3, patch_downsample=False, separable=False, gelu=False, fewer_blocks=False)


def _initialise(module: nn.Module) -> None:
    """Initialises every linear layer, dt_proj too: the official code overwrites Mamba's initialisation of Delta. Norms, convolutions, S4D and S5 keep
    their own initialisation.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
