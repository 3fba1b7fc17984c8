"""The depthwise convolution with SiLU in Triton, forward and backward: the kernels. `models/ssm/triton_ops.py` calls them.

A program has a tile of T positions x W channels of one sample. Tensors come with their strides, so either memory layout is read as it is. Backward
takes two kernels: the first writes the gradient before the SiLU, and the taps' and the bias's sums over its tile as a part of its own; the second
convolves that gradient with the mirrored taps. torch.sum adds the parts in a fixed sequence, so a run repeats to the bit.
"""

import triton
import triton.language as tl

SIZES = ("length", "channels", "left")  # no kernel of its own for each of their values


@triton.jit
def tile(length, channels, T: tl.constexpr, W: tl.constexpr):
    """(sample, first position's tile, positions (T, 1), channels (1, W)) of this program. Grid: batch x tiles x blocks of channels."""
    program, blocks, tiles = tl.program_id(0), tl.cdiv(channels, W), tl.cdiv(length, T)
    sample, at = (program // (blocks * tiles)).to(tl.int64), program // blocks % tiles
    return sample, at, at * T + tl.arange(0, T)[:, None], program % blocks * W + tl.arange(0, W)[None, :]


@triton.jit
def before_silu(x_at, weight_ptr, bias_ptr, x_l, pos, d, length, channels, left, TAPS: tl.constexpr, HAS_BIAS: tl.constexpr, REVERSE: tl.constexpr,
                WIDE: tl.constexpr, T: tl.constexpr, W: tl.constexpr):  # fmt: skip
    """The convolution of a tile, (T, W)."""
    total = tl.zeros((T, W), WIDE)
    if HAS_BIAS:
        total += tl.load(bias_ptr + d, mask=d < channels, other=0.0)
    for tap in tl.static_range(TAPS):
        source = pos + left - tap if REVERSE else pos - left + tap
        weight = tl.load(weight_ptr + d * TAPS + tap, mask=d < channels, other=0.0)
        total += weight * tl.load(x_at + source.to(tl.int64) * x_l, mask=(source >= 0) & (source < length) & (d < channels), other=0.0).to(WIDE)
    return total


@triton.jit(do_not_specialize=SIZES)
def conv_forward(
    x_ptr, weight_ptr, bias_ptr, y_ptr, x_b, x_d, x_l, y_b, y_d, y_l, length, channels, left,
    TAPS: tl.constexpr, HAS_BIAS: tl.constexpr, REVERSE: tl.constexpr, WIDE: tl.constexpr, T: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """y = silu(conv(x) + bias)."""
    sample, _, pos, d = tile(length, channels, T, W)
    value = before_silu(
        x_ptr + sample * x_b + d * x_d, weight_ptr, bias_ptr, x_l, pos, d, length, channels, left, TAPS, HAS_BIAS, REVERSE, WIDE, T, W
    )
    y = value / (1.0 + tl.exp(-value))
    tl.store(y_ptr + sample * y_b + d * y_d + pos.to(tl.int64) * y_l, y.to(y_ptr.dtype.element_ty), mask=(pos < length) & (d < channels))


@triton.jit(do_not_specialize=SIZES)
def conv_backward_taps(
    x_ptr, weight_ptr, bias_ptr, gy_ptr, inner_ptr, dweight_ptr, dbias_ptr, x_b, x_d, x_l, gy_b, gy_d, gy_l, inner_b, inner_d, inner_l,
    length, channels, left,
    TAPS: tl.constexpr, HAS_BIAS: tl.constexpr, REVERSE: tl.constexpr, WIDE: tl.constexpr, T: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """The gradient before the SiLU, (B, D, L) in fp32, and a part of dweight, (taps, D), and of dbias, (D,), for each sample and tile."""
    sample, at, pos, d = tile(length, channels, T, W)
    inside = (pos < length) & (d < channels)
    x_at = x_ptr + sample * x_b + d * x_d
    value = before_silu(x_at, weight_ptr, bias_ptr, x_l, pos, d, length, channels, left, TAPS, HAS_BIAS, REVERSE, WIDE, T, W)
    s = 1.0 / (1.0 + tl.exp(-value))
    gy = tl.load(gy_ptr + sample * gy_b + d * gy_d + pos.to(tl.int64) * gy_l, mask=inside, other=0.0).to(WIDE)
    inner = tl.where(inside, gy * s * (1.0 + value * (1.0 - s)), 0.0)
    tl.store(inner_ptr + sample * inner_b + d * inner_d + pos.to(tl.int64) * inner_l, inner, mask=inside)
    part = sample * tl.cdiv(length, T) + at
    columns = program_channels(channels, W)
    for tap in tl.static_range(TAPS):
        source = pos + left - tap if REVERSE else pos - left + tap
        x = tl.load(x_at + source.to(tl.int64) * x_l, mask=(source >= 0) & (source < length) & (d < channels), other=0.0).to(WIDE)
        tl.store(dweight_ptr + (part * TAPS + tap) * channels + columns, tl.sum(inner * x, 0), mask=columns < channels)
    tl.store(dbias_ptr + part * channels + columns, tl.sum(inner, 0), mask=columns < channels)


@triton.jit
def program_channels(channels, W: tl.constexpr):
    """The channels of this program's tile, (W,)."""
    return tl.program_id(0) % tl.cdiv(channels, W) * W + tl.arange(0, W)


@triton.jit(do_not_specialize=SIZES)
def conv_backward_x(
    inner_ptr, weight_ptr, dx_ptr, inner_b, inner_d, inner_l, dx_b, dx_d, dx_l, length, channels, left,
    TAPS: tl.constexpr, REVERSE: tl.constexpr, WIDE: tl.constexpr, T: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """The gradient of x: each position gathers what it gave to the positions around it."""
    sample, _, pos, d = tile(length, channels, T, W)
    total = tl.zeros((T, W), WIDE)
    for tap in tl.static_range(TAPS):
        user = pos - left + tap if REVERSE else pos + left - tap
        weight = tl.load(weight_ptr + d * TAPS + tap, mask=d < channels, other=0.0)
        inside = (user >= 0) & (user < length) & (d < channels)
        total += weight * tl.load(inner_ptr + sample * inner_b + d * inner_d + user.to(tl.int64) * inner_l, mask=inside, other=0.0)
    tl.store(dx_ptr + sample * dx_b + d * dx_d + pos.to(tl.int64) * dx_l, total.to(dx_ptr.dtype.element_ty), mask=(pos < length) & (d < channels))
