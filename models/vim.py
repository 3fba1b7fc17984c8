"""Vision Mamba (Vim), arXiv 2401.09417, with the names, shapes, initialisation and arithmetic of the official code (hustvl/Vim, vim/models_mamba.py
and mamba-1p1p1/mamba_ssm/modules/mamba_simple.py, bimamba v2, absolute positions, class token in the middle, halves averaged).

| paper | here |
|---|---|
| patches and the class token, embedded | tokens: (B, L, D) |
| T_l, T_{l-1} | hidden (the branch) and residual (their running sum, fp32) |
| E (inner channels), N (state), R (rank of Delta) | d_inner, d_state, dt_rank |
| forward and backward SSM | directions `h` and `h_flip`; suffix none and `_b` |
"""

import functools
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.configs import S5Config, VimConfig
from models.layers import DeltaProjection, DropPath, InvertedTokenPath, RMSNorm, SqueezeExcite, TokenConv1d, TokenLinear
from models.scan_paths import Direction, by_path, directions_of, tokens_along
from models.ssm.backends import resolve_backend, runs_backwards
from models.ssm.s4d import S4D
from models.ssm.s5 import S5
from models.ssm.scan import selective_scan
from models.ssm.triton_ops import scan_both_ways
from models.token_merging import Merging, Tokens

NORM_EPS = 1e-5
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 0.1, 1e-4  # range of Delta at the start


class PatchEmbed(nn.Module):
    """Patches of an image, embedded by a strided convolution."""

    def __init__(self, img_size: int, patch_size: int, stride: int, dim: int) -> None:
        super().__init__()
        if img_size < patch_size:
            raise ValueError(f"patch_size {patch_size} is larger than the image, {img_size} px")
        self.img_size = img_size
        self.side = (img_size - patch_size) // stride + 1  # patches
        self.tokens = self.side**2
        self.proj = nn.Conv2d(3, dim, patch_size, stride)

    def forward(self, images: Tensor) -> Tensor:
        """(B, tokens, D) from (B, 3, H, W)."""
        if images.shape[-2:] != (self.img_size, self.img_size):
            raise ValueError(f"images are {images.shape[-2]}x{images.shape[-1]} px, the model was made for img_size={self.img_size}")
        maps: Tensor = self.proj(images)
        return maps.flatten(2).transpose(1, 2)


class BidirectionalMixer(nn.Module):
    """Mamba along the paths of `scan`, by default over the sequence and over its reverse. The directions share in_proj, gate and out_proj; each has
    its own convolution, x_proj, dt_proj, A and D. Their mean goes to out_proj.
    """

    def __init__(self, config: VimConfig, scan_backend: str, side: int) -> None:
        super().__init__()
        dim, d_inner, d_state = config.dim, config.expand * config.dim, config.d_state
        dt_rank = config.dt_rank or math.ceil(dim / 16)
        self.scan, self.scan_backend = selective_scan, scan_backend
        self.directions = directions_of(config.scan)
        self.paths = by_path(self.directions)
        self.ssm_parameters = tuple(name for each in self.directions for name in (each.A_log, f"D{each.ending}"))
        self.fixed = bool(config.s4 or config.s5)  # a state space that does not depend on the input
        self.in_proj = TokenLinear(dim, 2 * d_inner, bias=False)
        self._each("conv1d", lambda: _path(config, d_inner, scan_backend))
        if self.fixed:
            self._each("ssm", lambda: S4D(d_inner, config.s4) if config.s4 else S5(d_inner, config.s5 or S5Config()))
        else:
            self._each("x_proj", lambda: nn.Linear(d_inner, dt_rank + 2 * d_state, bias=False))
            self._each("dt_proj", lambda: DeltaProjection(dt_rank, d_inner))
            for each in self.directions:
                setattr(self, each.A_log, state_rates(d_inner, d_state))
            self._each("D", lambda: nn.Parameter(torch.ones(d_inner)))
        self.out_proj = nn.Linear(d_inner, dim, bias=False)
        for path in self.paths.keys() - {"h"}:
            tokens = torch.tensor(tokens_along(path, side))
            self.register_buffer(f"tokens_{path}", tokens, persistent=False)
            self.register_buffer(f"back_{path}", tokens.argsort(), persistent=False)

    def _each(self, name: str, part: Callable[[], nn.Module | nn.Parameter]) -> None:
        for each in self.directions:
            setattr(self, f"{name}{each.ending}", part())

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, dim) from (B, L, dim)."""
        positions_last = resolve_backend(hidden, self.scan_backend) == "cuda"
        xz = self.in_proj(hidden, positions_last)
        parts = [self._along(xz, path, directions, positions_last) for path, directions in self.paths.items()]
        y: Tensor = self.out_proj(functools.reduce(operator.add, parts) / len(self.directions))
        return y

    def _along(self, xz: Tensor, path: str, directions: list[Direction], positions_last: bool) -> Tensor:
        """The sum of y * silu(z) of the directions of a path, each token at its own position: (B, L, d_inner)."""
        if path != "h":
            xz = _moved(xz, self.get_buffer(f"tokens_{path}"), path, positions_last)
        # sizes are read from the layers, which pruning makes narrower
        x, z = xz.split([self.out_proj.in_features] * 2, dim=-1)  # type: ignore[no-untyped-call]
        if self._scans_together(x, directions):
            y = self._both(x, z, directions)
        else:
            y = functools.reduce(operator.add, [self._one_way(x, z, each) for each in directions])
        return y if path == "h" else _moved(y, self.get_buffer(f"back_{path}"), path, positions_last)

    def _one_way(self, x: Tensor, z: Tensor, direction: Direction) -> Tensor:
        """y * silu(z) of a direction; one that reads from the end flips its sequence where the kernels do not read backwards."""
        if direction.reverse and not runs_backwards(x, self.scan_backend):
            return self._pass(x.flip(1), z.flip(1), direction, reverse=False).flip(1)
        return self._pass(x, z, direction, reverse=direction.reverse)

    def _pass(self, x: Tensor, z: Tensor, direction: Direction, *, reverse: bool) -> Tensor:
        x = self.part("conv1d", direction)(x, reverse=reverse)
        if self.fixed:
            y: Tensor = self.part("ssm", direction)(x, reverse=reverse)
            return y * F.silu(z)
        return self._scan(x, z, direction, reverse=reverse)

    def part(self, name: str, direction: Direction) -> Any:
        """A direction's layer or parameter, such as dt_proj."""
        return getattr(self, f"{name}{direction.ending}")

    def _rates(self, direction: Direction) -> Tensor:
        """A_log, (d_inner, d_state)."""
        return self.get_parameter(direction.A_log)

    def _scan(self, x: Tensor, z: Tensor, direction: Direction, *, reverse: bool) -> Tensor:
        """y * silu(z), (B, L, d_inner), of one direction: algorithm 1, lines 8 to 17."""
        dt_proj, A_log, D = self.part("dt_proj", direction), self._rates(direction), self.part("D", direction)
        delta, B, C = _projected(x, self.part("x_proj", direction), dt_proj, A_log, positions_last=resolve_backend(x, self.scan_backend) == "cuda")
        wide = torch.promote_types(x.dtype, torch.float32)  # A, D and Delta's bias are never rounded to bf16
        y = self.scan(
            x.transpose(1, 2), delta, -torch.exp(A_log.to(wide)), B, C, D.to(wide), z=z.transpose(1, 2), delta_bias=dt_proj.bias.to(wide),
            delta_softplus=True, reverse=reverse, backend=self.scan_backend)  # fmt: skip
        return y.transpose(1, 2)

    def _scans_together(self, x: Tensor, directions: list[Direction]) -> bool:
        """True if one launch scans a path from both ends: in Triton, where the directions have as many states, which pruning may change."""
        if self.fixed or self.scan is not selective_scan or resolve_backend(x, self.scan_backend) != "triton":
            return False
        if [each.reverse for each in directions] != [False, True]:
            return False
        return self._rates(directions[0]).shape == self._rates(directions[1]).shape

    def _both(self, x: Tensor, z: Tensor, directions: list[Direction]) -> Tensor:
        """The sum of y * silu(z) of a scan ahead and a scan back, (B, L, d_inner). Nothing is copied into another layout."""
        u = [self.part("conv1d", each)(x, reverse=each.reverse) for each in directions]
        dt_projs, A_logs = [self.part("dt_proj", each) for each in directions], [self._rates(each) for each in directions]
        sides = zip(u, [self.part("x_proj", each) for each in directions], dt_projs, A_logs, strict=True)
        delta, B, C = zip(*(_projected(*side) for side in sides), strict=True)
        wide = torch.promote_types(x.dtype, torch.float32)
        skips, offsets = [self.part("D", each) for each in directions], [dt_proj.bias for dt_proj in dt_projs]
        A, D, bias = (torch.stack(pair).to(wide) for pair in (A_logs, skips, offsets))
        y = scan_both_ways([part.transpose(1, 2) for part in u], delta, -torch.exp(A), B, C, D, z=z.transpose(1, 2), delta_bias=bias)
        return y.transpose(2, 3).sum(0)  # transposed first: a sum is written with its last dimension fastest


def _moved(x: Tensor, tokens: Tensor, path: str, positions_last: bool) -> Tensor:
    """The tokens of x, (B, L, D), in another sequence; with positions beside each other in memory if `positions_last`."""
    if x.shape[1] != len(tokens):
        raise ValueError(f"scan: the path {path!r} reads the whole grid, {len(tokens)} tokens with the class token, and got {x.shape[1]}")
    return x.transpose(1, 2).index_select(2, tokens).transpose(1, 2) if positions_last else x.index_select(1, tokens)


def _projected(x: Tensor, x_proj: nn.Linear, dt_proj: DeltaProjection, A_log: Tensor, positions_last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """(delta, B, C), (B, d_inner or d_state, L), of a direction, from its x, (B, L, d_inner)."""
    dt, B, C = x_proj(x).split([dt_proj.in_features, A_log.shape[1], A_log.shape[1]], dim=-1)
    return dt_proj(dt, positions_last).transpose(1, 2), B.transpose(1, 2), C.transpose(1, 2)


class Block(nn.Module):
    """Add, normalise, mix. A block returns the new branch and the sum of the branches before it, which is kept in fp32."""

    def __init__(self, config: VimConfig, drop_path: float, scan_backend: str, side: int) -> None:
        super().__init__()
        self.mixer = BidirectionalMixer(config, scan_backend, side)
        self.norm = RMSNorm(config.dim, eps=NORM_EPS)
        self.drop_path = DropPath(drop_path)
        self.se = SqueezeExcite(config.dim, config.se.ratio) if config.se else nn.Identity()

    def forward(self, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """(hidden, residual), both (B, L, dim), from the same. The first block gets no residual."""
        residual = _widened(hidden) if residual is None else residual + self.drop_path(hidden)
        return self.se(self.mixer(self.norm(residual, hidden.dtype))), residual


class Vim(nn.Module):
    """Class scores, (B, num_classes), of images, (B, 3, img_size, img_size)."""

    no_weight_decay: ClassVar[tuple[str, ...]] = ("pos_embed", "cls_token")

    def __init__(self, config: VimConfig, *, img_size: int, num_classes: int, scan_backend: str = "auto") -> None:
        super().__init__()
        dim, depth = config.dim, config.depth
        self.patch_embed = PatchEmbed(img_size, config.patch_size, config.stride or config.patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.tokens + 1, dim))
        # The branch of block i is added, and dropped, at the start of block i + 1. Hence the additional rate, 0, in front.
        rates = [0.0, *torch.linspace(0, config.drop_path, depth, device="cpu").tolist()]
        self.layers = nn.ModuleList(Block(config, rates[i], scan_backend, self.patch_embed.side) for i in range(depth))
        self.drop_path = DropPath(config.drop_path)
        self.norm_f = RMSNorm(dim, eps=NORM_EPS)
        self.scan = f"[{', '.join(config.scan)}]"
        self.head = nn.Linear(dim, num_classes)
        self.merging: Merging | None = None  # see `models.merge_sites`
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_classes) from (B, 3, img_size, img_size)."""
        patches = self.patch_embed(images)
        middle = patches.shape[1] // 2
        hidden = torch.cat((patches[:, :middle], self.cls_token.expand(patches.shape[0], -1, -1), patches[:, middle:]), dim=1)
        hidden = hidden + self.pos_embed  # includes the position of the class token
        residual: Tensor | None = None
        tokens = None if self.merging is None else Tokens(self.merging, hidden, range(middle, middle + 1))
        for number, layer in enumerate(self.layers):
            if tokens is not None:
                hidden, residual = self._merge(tokens, number, hidden, residual)
            hidden, residual = layer(hidden, residual)
        assert residual is not None  # there is at least one block
        total, branch = (x[:, middle] if tokens is None else tokens.class_tokens(x)[:, 0] for x in (residual, self.drop_path(hidden)))
        token = total + branch
        scores: Tensor = self.head(self.norm_f(token, hidden.dtype))
        return scores

    def as_saved_now(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights. ValueError if they have another number of directions, or Vim's own where the model has others: none is left out or fresh."""
        expected, given = (endings_in(names) for names in (self.state_dict(), weights))
        if expected != given and given:
            held = "Vim's own directions, [h, h_flip]" if "_b" in given else f"{len(given)} directions of another scan"
            remedy = "give the scan that they were trained with, or train from scratch"
            raise ValueError(f"pretrained: the weights hold {held}, and the model scans {self.scan}: {remedy}")
        return dict(weights)

    def _merge(self, tokens: Tokens, number: int, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Branch and running sum as block `number` gets them. Tokens match by their branch, as in R-MeeTo."""
        if residual is None:
            return tokens.before(number, hidden)[0], None
        hidden, residual = tokens.before(number, hidden, residual, timescale=timescale_of(self.layers[number - 1]))
        return hidden, residual


@torch.no_grad()
def initialise(model: Vim) -> None:
    """Sets every parameter as the official `__init__` does. in_proj, x_proj and the 1-d convolutions keep torch's defaults."""
    for weight in (model.cls_token, model.pos_embed, model.head.weight):
        nn.init.trunc_normal_(weight, std=0.02)
    patches = model.patch_embed.proj
    assert patches.bias is not None  # nn.Conv2d allows None
    _lecun_normal(patches.weight)
    for bias in (model.head.bias, patches.bias):
        nn.init.zeros_(bias)
    for mixer in (module for module in model.modules() if isinstance(module, BidirectionalMixer)):
        nn.init.kaiming_uniform_(mixer.out_proj.weight, a=math.sqrt(5)).div_(math.sqrt(len(model.layers)))
        if mixer.fixed:
            continue
        sides = [(mixer.part("dt_proj", each), each.reverse) for each in mixer.directions]
        for dt_proj, _ in sides:
            nn.init.uniform_(dt_proj.weight, -(dt_proj.in_features**-0.5), dt_proj.in_features**-0.5)
        for dt_proj, reverse in sides:  # the official code zeroes every bias without a mark, and marks only the forward bias
            dt_proj.bias.copy_(torch.zeros_like(dt_proj.bias) if reverse else inverse_softplus_of_dt(dt_proj.bias))


def _path(config: VimConfig, channels: int, backend: str) -> nn.Module:
    """The layer between in_proj and a scan."""
    if config.mobilenet:
        return InvertedTokenPath(channels, config.mobilenet.expand, config.mobilenet.kernel, backend)
    return TokenConv1d(channels, config.d_conv, causal=True, bias=True, backend=backend)


def endings_in(names: Iterable[str]) -> set[str]:
    """The endings of directions in the names of a Vim's weights: none and `_b`, or `_0`, `_1`, ..."""
    return {match[1] or "" for name in names if (match := re.search(r"\.conv1d(_\w+)?\.", name))}


def state_rates(channels: int, states: int) -> nn.Parameter:
    """A_log = log(1..N) for each channel, S4D-real: (D, N)."""
    return nn.Parameter(torch.log(torch.arange(1, states + 1, dtype=torch.float32)).repeat(channels, 1))


def inverse_softplus_of_dt(like: Tensor) -> Tensor:
    """softplus^-1 of log-uniform values in [DT_MIN, DT_MAX], with the shape of `like`."""
    dt = torch.exp(torch.rand_like(like) * math.log(DT_MAX / DT_MIN) + math.log(DT_MIN)).clamp(min=DT_FLOOR)
    return dt + torch.log(-torch.expm1(-dt))


def _lecun_normal(weight: Tensor) -> None:
    """timm's lecun_normal_: variance 1 / fan_in, cut at two standard deviations. (timm 0.4.12, which the official code pins, did not cut, so its
    values were 14% wider.)
    """
    std = math.sqrt(1 / weight[0].numel()) / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def timescale_of(block: nn.Module) -> Tensor | None:
    """Delta of a block's forward direction, its mean over channels, (B, L), if it was asked to keep it."""
    projection = getattr(block.mixer, "dt_proj", None)
    return projection.taken_timescale() if isinstance(projection, DeltaProjection) else None


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
