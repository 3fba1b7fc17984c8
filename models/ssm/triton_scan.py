"""The selective scan in Triton, forward and backward: the kernels. `models/ssm/triton_ops.py` calls them.

A program walks along one sample's positions with the states of W channels of one group in registers, (N, W): channels lie beside each other in the
lanes of a warp, states in a lane's registers. Tensors come with their strides, so sequences are read as they are, (B, L, D) or (B, D, L), and a
reversed scan counts down. A launch has one or two sides; the second side runs in the other direction, with its own u, delta, A, B, C, D and bias,
and shares z.

The forward pass keeps the states at every CHUNK-th position. The backward pass goes through the chunks from the last to the first: it runs the chunk
forwards again, noting the states at every DEPTH-th position in a workspace, then takes DEPTH positions at a time, forwards and back, in registers.
Nothing is added to memory that another program writes: sums over channels (dB, dC) leave as one part for each block of channels, sums over the batch
(dA, dD, dbias) as one part for each sample, and torch.sum adds the parts in a fixed sequence. So a run repeats to the bit.

Padded channels, states and positions have u = B = C = 0 and a step of 0, which leaves states as they are.
"""

import triton
import triton.language as tl

LOG2_E, LN_2 = tl.constexpr(1.4426950408889634), tl.constexpr(0.6931471805599453)
SIZES = ("batch", "length", "channels", "groups", "states", "blocks", "width")  # no kernel of its own for each of their values


@triton.jit
def softplus(x):
    """log(1 + exp(x)) to the last bits, also where it is small: log1p(e) = 2 artanh(e / (2 + e)), with e <= 1."""
    e = tl.exp(-tl.abs(x))
    if x.dtype == tl.float64:
        whole = 1.0 + e
        tail = tl.where(whole == 1.0, e, tl.log(whole) * (e / tl.where(whole == 1.0, 1.0, whole - 1.0)))
    else:
        s = e / (2.0 + e)
        q = s * s
        p = 1.0 / 13 + q * (1.0 / 15 + q * (1.0 / 17))
        p = 1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11 + q * p))
        tail = 2.0 * s * (1.0 + q * (1.0 / 3 + q * (1.0 / 5 + q * p)))
    return tl.where(x > 0, x, 0.0) + tail


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def position(i, length, side, REVERSE: tl.constexpr):
    """Where step i of a side lies in memory. The second side runs in the other direction."""
    return tl.where((side + REVERSE) % 2 == 1, length - 1 - i, i).to(tl.int64)


@triton.jit
def step_size(raw, bias, inside, SOFTPLUS: tl.constexpr):
    """Delta from its projection; 0 outside of the sequence and of the channels."""
    raw = raw + bias
    if SOFTPLUS:
        raw = softplus(raw)
    return tl.where(inside, raw, 0.0)


@triton.jit
def advance(h, u, step, B, rate):
    """The states after a position. h, rate: (N, W); u, step: (W,); B: (N,); rate is A / ln 2."""
    return tl.exp2(step[None, :] * rate) * h + (step * u)[None, :] * B[:, None]


@triton.jit(do_not_specialize=SIZES)
def scan_forward(
    u_ptr, u2_ptr, delta_ptr, delta2_ptr, A_ptr, B_ptr, B2_ptr, C_ptr, C2_ptr, D_ptr, z_ptr, bias_ptr, y_ptr, last_ptr, kept_ptr,
    u_b, u_d, u_l, delta_b, delta_d, delta_l, B_b, B_g, B_n, B_l, C_b, C_g, C_n, C_l, z_b, z_d, z_l, y_s, y_b, y_d, y_l,
    batch, length, channels, groups, states, blocks, width,
    N: tl.constexpr, PADDED: tl.constexpr, W: tl.constexpr, CHUNK: tl.constexpr, WIDE: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    SAVE: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """y, the last states, and with SAVE the states at each chunk's start but the first. Grid: sides x batch x groups x blocks."""
    program = tl.program_id(0)
    block, group = program % blocks, program // blocks % groups
    sample, side = program // (blocks * groups) % batch, program // (blocks * groups * batch)
    if side == 1:
        u_ptr, delta_ptr, B_ptr, C_ptr = u2_ptr, delta2_ptr, B2_ptr, C2_ptr
    sequence = (side * batch + sample).to(tl.int64)
    sample = sample.to(tl.int64)
    local = block * W + tl.arange(0, W)
    inside = local < channels // groups
    d = group * (channels // groups) + local
    n = tl.arange(0, N)
    shared = n < (states if PADDED else N)
    real = inside[None, :] & shared[:, None]
    matrix = states.to(tl.int64) * channels
    state_at = n[:, None] * channels + d[None, :]
    rate = tl.load(A_ptr + side * matrix + state_at, mask=real, other=0.0) * LOG2_E
    skip = tl.zeros((W,), WIDE)
    bias = tl.zeros((W,), WIDE)
    if HAS_D:
        skip = tl.load(D_ptr + side * channels + d, mask=inside, other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + side * channels + d, mask=inside, other=0.0)
    u_ptr += sample * u_b
    delta_ptr += sample * delta_b
    B_ptr += sample * B_b + group * B_g
    C_ptr += sample * C_b + group * C_g
    z_ptr += sample * z_b
    y_ptr += side * y_s + sample * y_b
    kept_ptr += program.to(tl.int64) * (tl.cdiv(length, CHUNK) - 1) * (N * W)
    h = tl.zeros((N, W), WIDE)
    # What a position needs is loaded a position ahead, so that its way from memory passes beside arithmetic.
    pos = position(0, length, side, REVERSE)
    u_next = tl.load(u_ptr + pos * u_l + d * u_d, mask=inside, other=0.0)
    raw_next = tl.load(delta_ptr + pos * delta_l + d * delta_d, mask=inside, other=0.0)
    B_next, C_next = tl.load(B_ptr + pos * B_l + n * B_n, mask=shared, other=0.0), tl.load(C_ptr + pos * C_l + n * C_n, mask=shared, other=0.0)
    if HAS_Z:
        z_next = tl.load(z_ptr + pos * z_l + d * z_d, mask=inside, other=0.0)
    for start in range(0, length, CHUNK):
        if SAVE:
            if start > 0:
                tl.store(kept_ptr + (start // CHUNK - 1) * (N * W) + n[:, None] * width + tl.arange(0, W)[None, :], h)
        for i in range(start, tl.minimum(start + CHUNK, length)):
            u, step = u_next.to(WIDE), step_size(raw_next.to(WIDE), bias, inside, SOFTPLUS)
            B, C = B_next.to(WIDE), C_next.to(WIDE)
            if HAS_Z:
                z = z_next.to(WIDE)
            y_at = y_ptr + pos * y_l
            pos = position(tl.minimum(i + 1, length - 1), length, side, REVERSE)
            u_next = tl.load(u_ptr + pos * u_l + d * u_d, mask=inside, other=0.0)
            raw_next = tl.load(delta_ptr + pos * delta_l + d * delta_d, mask=inside, other=0.0)
            B_next = tl.load(B_ptr + pos * B_l + n * B_n, mask=shared, other=0.0)
            C_next = tl.load(C_ptr + pos * C_l + n * C_n, mask=shared, other=0.0)
            if HAS_Z:
                z_next = tl.load(z_ptr + pos * z_l + d * z_d, mask=inside, other=0.0)
            h = advance(h, u, step, B, rate)
            y = tl.sum(h * C[:, None], 0) + skip * u
            if HAS_Z:
                y = y * z * sigmoid(z)
            tl.store(y_at + d * y_d, y.to(y_ptr.dtype.element_ty), mask=inside)
    tl.store(last_ptr + sequence * matrix + n[:, None] * channels + d[None, :], h, mask=real)


@triton.jit
def walk(
    i, h, g, dA, dD, dbias, ins, outs, steps, across, constants, length, side,
    DEPTH: tl.constexpr, WIDE: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, HAS_Z: tl.constexpr,
):  # fmt: skip
    """Goes DEPTH positions forwards from position i and comes back, with all states between in registers.

    h: states before i; g: the gradient of the states after i + DEPTH - 1. Writes the gradients of these positions and returns (g of h, dA, dD,
    dbias), the sums so far. Recursive: the compiler unrolls it.
    """
    u_ptr, delta_ptr, z_ptr, gy_ptr, B_ptr, C_ptr = ins
    own_ptr, shared_ptr = outs
    u_l, delta_l, z_l, gy_l, B_l, C_l, own_l, states, plane, shared_o = steps
    u_at, delta_at, z_at, gy_at, B_at, C_at, own_at, n = across
    rate, skip, bias, channel, state = constants
    pos = position(i, length, side, REVERSE)
    inside, shared = (channel & (i < length)) != 0, (state & (i < length)) != 0
    u = tl.load(u_ptr + pos * u_l + u_at, mask=inside, other=0.0).to(WIDE)
    raw = tl.load(delta_ptr + pos * delta_l + delta_at, mask=inside, other=0.0).to(WIDE)
    B = tl.load(B_ptr + pos * B_l + B_at, mask=shared, other=0.0).to(WIDE)
    step = step_size(raw, bias, inside, SOFTPLUS)
    decay = tl.exp2(step[None, :] * rate)
    after = decay * h + (step * u)[None, :] * B[:, None]
    if DEPTH > 1:
        g, dA, dD, dbias = walk(
            i + 1, after, g, dA, dD, dbias, ins, outs, steps, across, constants, length, side, DEPTH - 1, WIDE, SOFTPLUS, REVERSE, HAS_Z)  # fmt: skip
    C = tl.load(C_ptr + pos * C_l + C_at, mask=shared, other=0.0).to(WIDE)
    go = tl.load(gy_ptr + pos * gy_l + gy_at, mask=inside, other=0.0).to(WIDE)
    if HAS_Z:
        z = tl.load(z_ptr + pos * z_l + z_at, mask=inside, other=0.0).to(WIDE)
        s = sigmoid(z)
        ungated = tl.sum(after * C[:, None], 0) + skip * u
        dz = go * ungated * s * (1.0 + z * (1.0 - s))
        tl.store(own_ptr + 2 * plane + pos * own_l + own_at, dz.to(own_ptr.dtype.element_ty), mask=inside)
        go = go * z * s
    tl.store(shared_ptr + shared_o + pos * states + n, tl.sum(go[None, :] * after, 1), mask=shared)
    g = g + go[None, :] * C[:, None]
    tl.store(shared_ptr + pos * states + n, tl.sum(g * (step * u)[None, :], 1), mask=shared)
    dx = tl.sum(g * B[:, None], 0)
    g = g * decay
    q = g * h
    dA += q * step[None, :]
    dD += go * u
    dstep = dx * u + tl.sum(q * rate, 0) * LN_2
    if SOFTPLUS:
        dstep = dstep * sigmoid(raw + bias)
    dstep = tl.where(inside, dstep, 0.0)
    dbias += dstep
    tl.store(own_ptr + pos * own_l + own_at, (dx * step + skip * go).to(own_ptr.dtype.element_ty), mask=inside)
    tl.store(own_ptr + plane + pos * own_l + own_at, dstep.to(own_ptr.dtype.element_ty), mask=inside)
    return g, dA, dD, dbias


@triton.jit(do_not_specialize=SIZES)
def scan_backward(
    u_ptr, u2_ptr, delta_ptr, delta2_ptr, A_ptr, B_ptr, B2_ptr, C_ptr, C2_ptr, D_ptr, z_ptr, bias_ptr, kept_ptr, gy_ptr, glast_ptr, noted_ptr,
    own_ptr, dA_ptr, shared_ptr, dD_ptr, dbias_ptr,
    u_b, u_d, u_l, delta_b, delta_d, delta_l, B_b, B_g, B_n, B_l, C_b, C_g, C_n, C_l, z_b, z_d, z_l,
    gy_s, gy_b, gy_d, gy_l, own_o, own_s, own_b, own_d, own_l,
    batch, length, channels, groups, states, blocks,
    N: tl.constexpr, PADDED: tl.constexpr, W: tl.constexpr, CHUNK: tl.constexpr, DEPTH: tl.constexpr, WIDE: tl.constexpr, SOFTPLUS: tl.constexpr,
    REVERSE: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LAST: tl.constexpr,
):  # fmt: skip
    """The gradients of u, delta and z, in `own`; of A, D and bias for each sample; of B and C for each block of channels, in `shared`. Grid: as
    scan_forward.
    """
    program = tl.program_id(0)
    block, group = program % blocks, program // blocks % groups
    sample, side = program // (blocks * groups) % batch, program // (blocks * groups * batch)
    if side == 1:
        u_ptr, delta_ptr, B_ptr, C_ptr = u2_ptr, delta2_ptr, B2_ptr, C2_ptr
    sequence = (side * batch + sample).to(tl.int64)
    sample = sample.to(tl.int64)
    local = block * W + tl.arange(0, W)
    inside = local < channels // groups
    d = group * (channels // groups) + local
    n = tl.arange(0, N)
    shared = n < (states if PADDED else N)
    real = inside[None, :] & shared[:, None]
    matrix = states.to(tl.int64) * channels
    state_at = n[:, None] * channels + d[None, :]
    rate = tl.load(A_ptr + side * matrix + state_at, mask=real, other=0.0) * LOG2_E
    skip = tl.zeros((W,), WIDE)
    bias = tl.zeros((W,), WIDE)
    if HAS_D:
        skip = tl.load(D_ptr + side * channels + d, mask=inside, other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + side * channels + d, mask=inside, other=0.0)
    u_ptr += sample * u_b
    delta_ptr += sample * delta_b
    B_ptr += sample * B_b + group * B_g
    C_ptr += sample * C_b + group * C_g
    own = side * own_s + sample * own_b
    part = program.to(tl.int64) * length * states
    ins = (u_ptr, delta_ptr, z_ptr + sample * z_b, gy_ptr + side * gy_s + sample * gy_b, B_ptr, C_ptr)
    outs = (own_ptr + own, shared_ptr + part)
    shared_o = tl.num_programs(0).to(tl.int64) * length * states
    plane = (side * 0 + own_o).to(tl.int64)  # twice it may exceed 32 bits; as an argument of value 1 it would be no tensor
    steps = (u_l, delta_l, z_l, gy_l, B_l, C_l, own_l, states, plane, shared_o)
    across = (d * u_d, d * delta_d, d * z_d, d * gy_d, n * B_n, n * C_n, d * own_d, n)
    constants = (rate, skip, bias, inside, shared)
    chunks = tl.cdiv(length, CHUNK)
    kept_ptr += program.to(tl.int64) * (chunks - 1) * (N * W)
    noted_ptr += program.to(tl.int64) * (CHUNK // DEPTH * N * W)
    noted_at = n[:, None] * W + tl.arange(0, W)[None, :]
    g = tl.zeros((N, W), WIDE)
    dA = tl.zeros((N, W), WIDE)
    dD = tl.zeros((W,), WIDE)
    dbias = tl.zeros((W,), WIDE)
    if HAS_LAST:
        g = tl.load(glast_ptr + sequence * matrix + state_at, mask=real, other=0.0)
    for back in range(chunks):
        chunk = chunks - 1 - back
        h = tl.load(kept_ptr + (chunk - 1) * (N * W) + noted_at, mask=noted_at < chunk * (N * W), other=0.0)  # the first starts from 0
        start = chunk * CHUNK
        turns = tl.cdiv(tl.minimum(length - start, CHUNK), DEPTH)
        for turn in range(turns):
            tl.store(noted_ptr + turn * (N * W) + noted_at, h)
            for t in tl.static_range(DEPTH):
                i = start + turn * DEPTH + t
                pos = position(i, length, side, REVERSE)
                u = tl.load(u_ptr + pos * u_l + d * u_d, mask=(inside & (i < length)) != 0, other=0.0).to(WIDE)
                raw = tl.load(delta_ptr + pos * delta_l + d * delta_d, mask=(inside & (i < length)) != 0, other=0.0).to(WIDE)
                B = tl.load(B_ptr + pos * B_l + n * B_n, mask=(shared & (i < length)) != 0, other=0.0).to(WIDE)
                h = advance(h, u, step_size(raw, bias, inside & (i < length), SOFTPLUS), B, rate)
        tl.debug_barrier()  # what a thread has noted may be read by another
        for turn in range(turns):
            there = turns - 1 - turn
            h = tl.load(noted_ptr + there * (N * W) + noted_at)
            g, dA, dD, dbias = walk(start + there * DEPTH, h, g, dA, dD, dbias, ins, outs, steps, across, constants, length, side, DEPTH, WIDE,
                                    SOFTPLUS, REVERSE, HAS_Z)  # fmt: skip
        tl.debug_barrier()
    tl.store(dA_ptr + sequence * matrix + n[:, None] * channels + d[None, :], dA, mask=real)
    tl.store(dD_ptr + sequence * channels + d, dD, mask=inside)
    tl.store(dbias_ptr + sequence * channels + d, dbias, mask=inside)
