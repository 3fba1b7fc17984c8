"""VSSD, arXiv 2407.18559, written from the paper's formulas, with the names and shapes of its public weights (YuHengsss/VSSD, commit 87b753b, whose
code has no licence), and its variants.

| paper | here |
|---|---|
| stem, stages, down-sampling | patch_embed, layers |
| non-causal SSD: Y = C (B^T (m X)) + D X for each head, m = Delta \\|A\\| for each token | SSD |
| local perception units | cpe1, cpe2 |
| X, B, C, Delta, z (the gate) | (B, L, inner), (B, L, N), (B, L, N), (B, L, heads), (B, L, inner) |
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.configs import VSSDConfig
from models.convolution import InvertedBlock, LayerNorm2d
from models.layers import DropPath, Mlp, SqueezeExcite
from models.vim import inverse_softplus_of_dt

ATTENTION_STAGE = 3
RATE_MAX = 16  # -A at the start is uniform between 1 and this


class ConvLayer(nn.Module):
    """A convolution, norm and ReLU, the last two if asked for."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool, norm: bool, relu: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(B, outputs, H', W') from (B, inputs, H, W)."""
        y: Tensor = self.norm(self.conv(x))
        return F.relu(y) if self.relu else y


class Stem(nn.Module):
    """A strided convolution, two convolutions with a shortcut, a strided convolution to 4 D and a 1x1 convolution to D."""

    def __init__(self, dim: int, strides: tuple[int, int]) -> None:
        super().__init__()
        half = dim // 2
        self.conv1 = ConvLayer(3, half, 3, stride=strides[0], bias=False, norm=True, relu=True)
        self.conv2 = nn.Sequential(*(ConvLayer(half, half, 3, bias=False, norm=True, relu=relu) for relu in (True, False)))
        wide = ConvLayer(half, 4 * dim, 3, stride=strides[1], bias=False, norm=True, relu=True)
        self.conv3 = nn.Sequential(wide, ConvLayer(4 * dim, dim, 1, bias=False, norm=True, relu=False))

    def forward(self, images: Tensor) -> Tensor:
        """(B, D, H', W') from (B, 3, H, W)."""
        x = self.conv1(images)
        y: Tensor = self.conv3(x + self.conv2(x))
        return y


class Downsample(nn.Module):
    """1x1 to 8 D, strided depthwise, and 1x1 to 2 D with a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            ConvLayer(dim, 8 * dim, 1, bias=True, norm=False, relu=True),
            ConvLayer(8 * dim, 8 * dim, 3, stride=2, groups=8 * dim, bias=True, norm=False, relu=True),
            ConvLayer(8 * dim, 2 * dim, 1, bias=True, norm=True, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2 D, H/2, W/2) from (B, D, H, W), rounded up."""
        y: Tensor = self.conv(x)
        return y


class SSD(nn.Module):
    """The non-causal state space: the same state, a sum over all tokens, is read by every token."""

    ssm_parameters: ClassVar[tuple[str, ...]] = ("A_log", "D", "dt_bias")

    def __init__(self, dim: int, heads: int, config: VSSDConfig) -> None:
        super().__init__()
        inner, mixed = config.expand * dim, config.expand * dim + 2 * config.d_state
        self.head_dim = inner // heads
        self.in_proj = nn.Linear(dim, inner + mixed + heads, bias=False)
        self.conv2d = nn.Conv2d(mixed, mixed, 3, padding=1, groups=mixed)
        self.dt_bias, self.A_log, self.D = (nn.Parameter(torch.ones(heads)) for _ in range(3))
        self.ssm: nn.Module | None = None  # in the place of the state space, once that was removed
        self.norm = LayerNorm2d(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) from the same."""
        inner, mixed = self.out_proj.in_features, self.conv2d.out_channels  # as pruning leaves them
        z, maps, dt = self.in_proj(x).split([inner, mixed, self.in_proj.out_features - inner - mixed], dim=-1)
        maps = F.silu(self.conv2d(maps.permute(0, 3, 1, 2)))
        mixed_maps = self.mix(maps, dt) if self.ssm is None else self.ssm(maps)
        y: Tensor = self.out_proj(self.norm(mixed_maps).permute(0, 2, 3, 1) * z)  # the gate has no activation
        return y

    def mix(self, maps: Tensor, dt: Tensor) -> Tensor:
        """Y, (B, inner, H, W), from X, B and C, (B, inner + 2 N, H, W), and dt, (B, H, W, heads)."""
        inner = self.out_proj.in_features
        states = (maps.shape[1] - inner) // 2
        X, B, C = torch.split(maps.flatten(2).transpose(1, 2), [inner, states, states], dim=-1)
        wide = torch.promote_types(X.dtype, torch.float32)
        m = F.softplus(dt.flatten(1, 2).to(wide) + self.dt_bias.to(wide)) * torch.exp(self.A_log.to(wide))
        heads = X.view(*X.shape[:2], -1, self.head_dim)
        state = B.transpose(1, 2) @ (m.to(X.dtype).unsqueeze(-1) * heads).flatten(2)  # (B, N, inner), of all heads
        Y = C @ state + (self.D.to(X.dtype).unsqueeze(-1) * heads).flatten(2)
        mixed: Tensor = Y.transpose(1, 2).view(-1, inner, *maps.shape[2:])
        return mixed


class Attention(nn.Module):
    """Multi-head self-attention over the whole map."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.to_qkv, self.to_out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) from the same."""
        parts = self.to_qkv(x.flatten(1, 2)).split([self.to_out.in_features] * 3, dim=-1)
        query, key, value = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)
        y: Tensor = self.to_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return y.view(x.shape)


class Block(nn.Module):
    """x + cpe1(x), x + mixer(norm1(x)), x + cpe2(x), then x + mlp(norm2(x)), or MobileNetV2's inverted residual in the place of the last."""

    def __init__(self, dim: int, mixer: nn.Module, drop_path: float, config: VSSDConfig) -> None:
        super().__init__()
        self.cpe1, self.cpe2 = (nn.Conv2d(dim, dim, 3, padding=1, groups=dim) for _ in range(2))
        self.norm1, self.attn, self.drop_path = nn.LayerNorm(dim), mixer, DropPath(drop_path)
        self.se = SqueezeExcite(dim, config.se.ratio) if config.se else None
        if config.mobilenet:
            self.inverted = InvertedBlock(dim, config.mobilenet.expand, config.mobilenet.kernel, drop_path, nn.BatchNorm2d, None)
        else:
            self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim, int(dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) from the same."""
        x = (x + self.cpe1(x)).permute(0, 2, 3, 1)
        branch = self.attn(self.norm1(x))
        if self.se is not None:
            branch = self.se(branch.flatten(1, 2)).view(x.shape)
        x = (x + self.drop_path(branch)).permute(0, 3, 1, 2)
        x = x + self.cpe2(x)
        if hasattr(self, "inverted"):
            mixed: Tensor = self.inverted(x)
            return mixed
        x = x.permute(0, 2, 3, 1)
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks, then the down-sampling."""

    def __init__(self, blocks: list[Block], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks, self.downsample = nn.Sequential(*blocks), downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C, H/2, W/2) from (B, C, H, W), rounded up; (B, C, H, W) without down-sampling."""
        y: Tensor = self.downsample(self.blocks(x))
        return y


class VSSD(nn.Module):
    """Class scores, (B, num_classes), of images, (B, 3, H, W)."""

    def __init__(self, config: VSSDConfig, *, num_classes: int) -> None:
        super().__init__()
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
        self.patch_embed = Stem(config.dim, config.stem_strides)
        self.layers = nn.ModuleList()
        for stage, (depth, heads) in enumerate(zip(config.depths, config.heads, strict=True)):
            dim = config.dim * 2**stage
            mixers = [Attention(dim, heads) if stage == ATTENTION_STAGE else SSD(dim, heads, config) for _ in range(depth)]
            blocks = [Block(dim, mixer, rates.pop(0), config) for mixer in mixers]
            self.layers.append(Stage(blocks, Downsample(dim) if stage < ATTENTION_STAGE else nn.Identity()))
        last = config.dim * 2**ATTENTION_STAGE
        self.norm, self.head = nn.LayerNorm(last), nn.Linear(last, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_classes) from (B, 3, H, W)."""
        x = self.patch_embed(images)
        for layer in self.layers:
            x = layer(x)
        scores: Tensor = self.head(self.norm(x.permute(0, 2, 3, 1)).mean((1, 2)))
        return scores


@torch.no_grad()
def initialise(model: VSSD) -> None:
    """Linear layers: normal of deviation 0.02, without biases. -A: uniform in 1 to 16; Delta: log-uniform, as in Mamba; D: 1. Others: torch's."""
    for layer in (module for module in model.modules() if isinstance(module, nn.Linear)):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for mixer in (module for module in model.modules() if isinstance(module, SSD)):
        mixer.A_log.copy_((torch.rand_like(mixer.A_log) * (RATE_MAX - 1) + 1).log())
        mixer.dt_bias.copy_(inverse_softplus_of_dt(mixer.dt_bias))
