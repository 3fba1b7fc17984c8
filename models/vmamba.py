"""VMamba, arXiv 2401.10166 (v3), with the names, shapes, initialisation and arithmetic of the official code (MzeroMiko/VMamba, commit 2ed52ea, MIT,
classification/models/vmamba.py: `v05_noz`, so without a gate; stem v2, down-sampling v3, norms over channels), and its variants.

| paper | here |
|---|---|
| stem, stages, down-sampling | patch_embed, layers |
| VSS block, SS2D | Block, SS2D |
| cross-scan: row by row, column by column, and both from the end | directions 0 to 3 |
| cross-merge | the sum of the four, each token at its own position |

A map is copied into two sequences, rows and columns. Where the kernels read backwards, two directions share a sequence; the official code makes four.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.configs import S5Config, VMambaConfig
from models.convolution import InvertedBlock, LayerNorm2d
from models.layers import DropPath, Mlp, SqueezeExcite
from models.ssm.backends import resolve_backend
from models.ssm.s4d import S4D
from models.ssm.s5 import S5
from models.ssm.scan import selective_scan
from models.ssm.triton_ops import scan_sides
from models.vim import inverse_softplus_of_dt, state_rates

DIRECTIONS = 4
# of older checkpoints, by the beginnings of names
RENAMED = {"norm.": "classifier.norm.", "head.": "classifier.head."}
RENAMED_PARTS = {"self_attention": "op", "ln_1": "norm"}
RENAMED_ENDS = {"x_proj.weight": "x_proj_weight", "dt_projs.weight": "dt_projs_weight"}


class DirectionProjection(nn.Module):
    """A linear layer for each direction. It has no weights of its own: they are bare parameters of the mixer in the official files."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """(B, K, out, L) of K directions from (B, G, in, L) and (K, out, in). Direction k reads sequence k modulo G."""
        directions, out, inputs = weight.shape
        batch, sequences, _, length = x.shape
        shares = directions // sequences
        kernels = weight.view(shares, sequences, out, inputs).transpose(0, 1).reshape(-1, inputs, 1)
        y = F.conv1d(x.reshape(batch, -1, length), kernels, groups=sequences)
        return y.view(batch, sequences, shares, out, length).transpose(1, 2).reshape(batch, directions, out, length)


class SS2D(nn.Module):
    """in_proj, depthwise convolution, SiLU, scans of the map in four directions, their sum, norm, out_proj."""

    ssm_parameters: ClassVar[tuple[str, ...]] = ("A_logs", "Ds")  # dt_projs_bias is a matrix, so it takes weight decay, as in the official runs

    def __init__(self, dim: int, config: VMambaConfig, scan_backend: str) -> None:
        super().__init__()
        inner, rank, states = config.expand * dim, config.dt_rank or math.ceil(dim / 16), config.d_state
        self.scan, self.scan_backend = selective_scan, scan_backend
        self.in_proj = nn.Linear(dim, inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.fixed = bool(config.s4 or config.s5)  # state spaces that do not depend on the input
        if self.fixed:
            self.ssm = nn.ModuleList(S4D(inner, config.s4) if config.s4 else S5(inner, config.s5 or S5Config()) for _ in range(DIRECTIONS))
        else:
            self.x_proj, self.dt_projs = DirectionProjection(), DirectionProjection()
            self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, rank + 2 * states, inner))
            self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, inner, rank))
            self.dt_projs_bias = nn.Parameter(torch.empty(DIRECTIONS, inner))
            self.A_logs, self.Ds = state_rates(DIRECTIONS * inner, states), nn.Parameter(torch.ones(DIRECTIONS * inner))
        self.out_norm = LayerNorm2d(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) from the same."""
        maps = F.silu(self.conv2d(self.in_proj(x).permute(0, 3, 1, 2)))
        y: Tensor = self.out_proj(self.out_norm(self.four_ways(maps)).permute(0, 2, 3, 1))
        return y

    def four_ways(self, x: Tensor) -> Tensor:
        """The sum of the four directions, (B, inner, H, W) from the same."""
        height, width = x.shape[2:]
        sequences = torch.stack((x.flatten(2), x.transpose(2, 3).flatten(2)), dim=1)
        y = self._fixed(sequences) if self.fixed else self._scans(sequences)
        rows, columns = (part.squeeze(1) for part in torch.split(y, 1, dim=1))  # the gradient of unbind would be two tensors of zeros, added
        total: Tensor = rows.view(*rows.shape[:2], height, width) + columns.view(*rows.shape[:2], width, height).transpose(2, 3)
        return total

    def _scans(self, x: Tensor) -> Tensor:
        """Rows and columns, (B, 2, inner, L) from the same, each scanned from both ends: directions 2 and 3 read those of 0 and 1 backwards."""
        wide = torch.promote_types(x.dtype, torch.float32)
        states = self.A_logs.shape[1]
        rank = self.dt_projs_weight.shape[2]
        dt, B, C = self.x_proj(x, self.x_proj_weight).split([rank, states, states], dim=2)
        delta = self.dt_projs(dt, self.dt_projs_weight)
        rates, skip, bias = -torch.exp(self.A_logs.to(wide)), self.Ds.to(wide), self.dt_projs_bias.to(wide).flatten()
        u, deltas = x.flatten(1, 2), [pair.flatten(1, 2) for pair in delta.chunk(2, dim=1)]
        inputs, readouts = B.chunk(2, dim=1), C.chunk(2, dim=1)
        if self.scan is selective_scan and resolve_backend(x, self.scan_backend) == "triton":  # one launch scans from both ends
            A, D, offset = (torch.stack(part.chunk(2)) for part in (rates, skip, bias))
            both: Tensor = scan_sides((u, u), deltas, A, inputs, readouts, D, None, offset, True)[0].sum(0).view(x.shape)
            return both
        ahead, back = (
            self.scan(
                u,
                deltas[end],
                rates.chunk(2)[end],
                inputs[end],
                readouts[end],
                skip.chunk(2)[end],
                delta_bias=bias.chunk(2)[end],
                delta_softplus=True,
                reverse=bool(end),
                backend=self.scan_backend,
            )
            for end in (0, 1)
        )
        return (ahead + back).view(x.shape)

    def _fixed(self, x: Tensor) -> Tensor:
        """As `_scans`, by S4 or S5."""
        tokens = x.transpose(2, 3)
        sums = [self.ssm[way](tokens[:, way]) + self.ssm[way + 2](tokens[:, way], reverse=True) for way in range(2)]
        return torch.stack(sums, dim=1).transpose(2, 3)


class Block(nn.Module):
    """x + SS2D(norm(x)), then x + mlp(norm2(x)), or MobileNetV2's inverted residual in the place of the latter."""

    def __init__(self, dim: int, drop_path: float, config: VMambaConfig, scan_backend: str) -> None:
        super().__init__()
        self.norm, self.op, self.drop_path = nn.LayerNorm(dim), SS2D(dim, config, scan_backend), DropPath(drop_path)
        self.se = SqueezeExcite(dim, config.se.ratio) if config.se else None
        if config.mobilenet:
            self.inverted = InvertedBlock(dim, config.mobilenet.expand, config.mobilenet.kernel, drop_path, LayerNorm2d, None)
        else:
            self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim, int(dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) from the same."""
        branch = self.op(self.norm(x))
        if self.se is not None:
            branch = self.se(branch.flatten(1, 2)).view(x.shape)
        x = x + self.drop_path(branch)
        if hasattr(self, "inverted"):
            mixed: Tensor = self.inverted(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return mixed
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


class Stage(nn.Module):
    """Blocks, then the down-sampling."""

    def __init__(self, blocks: list[Block], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks, self.downsample = nn.Sequential(*blocks), downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C, H/2, W/2) from (B, C, H, W), rounded up; (B, C, H, W) without down-sampling."""
        y: Tensor = self.downsample(self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return y


class Classifier(nn.Module):
    """Norm, mean over the map, linear layer."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm, self.head = LayerNorm2d(dim), nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, num_classes) from (B, C, H, W)."""
        scores: Tensor = self.head(self.norm(x).mean((2, 3)))
        return scores


class VMamba(nn.Module):
    """Class scores, (B, num_classes), of images, (B, 3, H, W)."""

    def __init__(self, config: VMambaConfig, *, num_classes: int, scan_backend: str = "auto") -> None:
        super().__init__()
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
        self.patch_embed = _stem(config.dim, config.stem_strides)
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(config.depths):
            dim = config.dim * 2**stage
            blocks = [Block(dim, rates.pop(0), config, scan_backend) for _ in range(depth)]
            self.layers.append(Stage(blocks, _downsample(dim) if stage < len(config.depths) - 1 else nn.Identity()))
        self.classifier = Classifier(config.dim * 2 ** (len(config.depths) - 1), num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_classes) from (B, 3, H, W)."""
        x = self.patch_embed(images)
        for layer in self.layers:
            x = layer(x)
        scores: Tensor = self.classifier(x)
        return scores

    @staticmethod
    def as_saved_now(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of any official checkpoint under today's names and shapes: some name blocks and head otherwise, and some hold linear layers as
        1x1 convolutions, (out, in, 1, 1).
        """
        return {_name_now(name): _matrix(name, tensor) for name, tensor in weights.items()}


def _stem(dim: int, strides: tuple[int, int]) -> nn.Sequential:
    """The places of nn.Identity belong to permutations in the official files."""
    first, second = nn.Conv2d(3, dim // 2, 3, strides[0], 1), nn.Conv2d(dim // 2, dim, 3, strides[1], 1)
    return nn.Sequential(first, nn.Identity(), LayerNorm2d(dim // 2), nn.Identity(), nn.GELU(), second, nn.Identity(), LayerNorm2d(dim))


def _downsample(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Identity(), nn.Conv2d(dim, 2 * dim, 3, 2, 1), nn.Identity(), LayerNorm2d(2 * dim))


def _name_now(name: str) -> str:
    start = next((old for old in RENAMED if name.startswith(old)), "")
    name = RENAMED.get(start, "") + name.removeprefix(start)
    name = ".".join(RENAMED_PARTS.get(part, part) for part in name.split("."))
    end = next((old for old in RENAMED_ENDS if name.endswith(f".{old}")), "")
    return name.removesuffix(end) + RENAMED_ENDS.get(end, "")


def _matrix(name: str, tensor: Tensor) -> Tensor:
    """A linear layer that was stored as a 1x1 convolution. No convolution of the network itself is 1x1."""
    linear = name.endswith(("_proj.weight", "fc1.weight", "fc2.weight"))
    return tensor.flatten(1) if linear and tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor


@torch.no_grad()
def initialise(model: VMamba) -> None:
    """Sets every parameter as the official `__init__` does. The convolutions keep torch's defaults, and x_proj has those of linear layers."""
    for layer in (module for module in model.modules() if isinstance(module, nn.Linear)):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for mixer in (module for module in model.modules() if isinstance(module, SS2D) and not module.fixed):
        for weight, width in ((mixer.x_proj_weight, mixer.x_proj_weight.shape[2]), (mixer.dt_projs_weight, mixer.dt_projs_weight.shape[2])):
            nn.init.uniform_(weight, -(width**-0.5), width**-0.5)
        mixer.dt_projs_bias.copy_(inverse_softplus_of_dt(mixer.dt_projs_bias))
