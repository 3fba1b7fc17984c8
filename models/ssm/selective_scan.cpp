// Selective scan of Mamba (arXiv 2312.00752, algorithm 2) on a CPU: forward, and a backward written by hand that recomputes the states.
// Plain C interface, no torch headers. See models/ssm/cpu.py for the caller and models/ssm/scan.py for the equations.
//
// Vectors hold channels, which are independent; time runs in a loop with the states of a few channels in registers. The forward pass keeps the states
// at the start of every CHUNK positions; the backward pass goes through the chunks from the last, recomputes a chunk's states from there and
// sweeps back over it. A task is one sample, one group of B and C and up to BLOCKS vectors of channels, so that B and C are read once for all of
// them. Tasks write to places of their own and are cut without regard to the number of threads: results are equal to the bit for any number.
#include "simd.h"

namespace {

constexpr int CHUNK = 16;   // positions between two kept states: what a chunk of the backward pass touches stays in the first cache
constexpr int BLOCKS = 8;   // vectors of channels in a task
constexpr int STATES = 4;   // states that stay in registers together; N is padded with zeros to a multiple
static_assert(CHUNK * STATES % 16 == 0, "sums over lanes are taken in whole vectors");
constexpr double LN2 = 0.6931471805599453094, LOG2E = 1.4426950408889634074;

// B and C: (batch, groups, states, length).
struct SharedView {
    const void* data;
    int64_t b, g, n, l;
};

}  // namespace

extern "C" struct ScanArgs {
    int64_t batch, channels, length, states, groups, softplus, reverse, threads;
    View u, delta, z, out, grad_out, grad_u, grad_delta, grad_z;
    SharedView B, C;
    const void *A, *D, *bias, *grad_last;  // (D, N), (D), (D), (batch, D, N), contiguous, in the type that is computed in; null: absent
    void *checkpoints, *last;              // checkpoints: see Shape; last: (batch, D, N)
    void *grad_A, *grad_D, *grad_bias;     // (batch, D, N), (batch, D), (batch, D)
    void *grad_B, *grad_C;                 // (batch, groups, splits, L, N)
};

namespace {

// How a problem is cut. Checkpoints are (batch, groups, blocks, chunks, padded states) vectors.
template <class T> struct Shape {
    int64_t group_channels, blocks, splits, chunks, states;
    explicit Shape(const ScanArgs& a)
        : group_channels(a.channels / a.groups), blocks((group_channels + WIDTH<T> - 1) / WIDTH<T>), splits((blocks + BLOCKS - 1) / BLOCKS),
          chunks((a.length + CHUNK - 1) / CHUNK), states((a.states + STATES - 1) / STATES * STATES) {}
};

// One task's place in the problem, and what it reads of it.
template <class S> struct Task {
    using T = Compute<S>;
    using V = Vec<T>;
    const ScanArgs& a;
    Shape<T> shape;
    int64_t b, g, split, first, count;  // blocks [first, first + count) of the group

    Task(const ScanArgs& args, int64_t index) : a(args), shape(args) {
        split = index % shape.splits;
        g = index / shape.splits % a.groups;
        b = index / shape.splits / a.groups;
        first = split * BLOCKS;
        count = std::min<int64_t>(BLOCKS, shape.blocks - first);
    }
    int64_t channel(int64_t block) const { return g * shape.group_channels + (first + block) * WIDTH<T>; }
    int channels(int64_t block) const { return (int)std::min<int64_t>(WIDTH<T>, shape.group_channels - (first + block) * WIDTH<T>); }
    int steps(int64_t chunk) const { return (int)std::min<int64_t>(CHUNK, a.length - chunk * CHUNK); }
    int64_t position(int64_t l) const { return a.reverse ? a.length - 1 - l : l; }
    V* checkpoint(int64_t block, int64_t chunk) const {
        return (V*)a.checkpoints + (((b * a.groups + g) * shape.blocks + first + block) * shape.chunks + chunk) * shape.states;
    }

    // log2(e) A, zero-padded, one vector a state; then the block's D and bias.
    void load_parameters(int64_t block, V* rates, V& skip, V& bias) const {
        const int64_t d = channel(block);
        for (int j = 0; j < channels(block); j++) {
            for (int n = 0; n < a.states; n++) rates[n][j] = ((const T*)a.A)[(d + j) * a.states + n] * (T)LOG2E;
            if (a.D) skip[j] = ((const T*)a.D)[d + j];
            if (a.bias) bias[j] = ((const T*)a.bias)[d + j];
        }
    }
    // A chunk of B or C as (steps, padded states).
    void load_shared(const SharedView& view, int64_t chunk, T* rows) const {
        const S* p = (const S*)view.data + b * view.b + g * view.g + position(chunk * CHUNK) * view.l;
        const int64_t forth = a.reverse ? -view.l : view.l;
        const int count = steps(chunk);
        for (int k = 0; k < count; k++)
            for (int n = 0; n < a.states; n++) rows[k * shape.states + n] = load(p + k * forth + n * view.n);
    }
    // Sums over the lanes of (steps, padded states) vectors, as a chunk of the task's part of (batch, groups, splits, L, N). Overwrites `vectors`.
    void store_shared_sums(V* vectors, void* tensor, int64_t chunk) const {
        T* part = (T*)tensor + ((b * a.groups + g) * shape.splits + split) * a.length * a.states;
        T* sums = (T*)vectors;  // in place: the sums of WIDTH vectors lie within the first of them
        for (int64_t i = 0; i < CHUNK * shape.states; i += WIDTH<T>) store_vector(sums + i, sums_of_lanes<T>(vectors + i));
        for (int k = 0; k < steps(chunk); k++) memcpy(part + position(chunk * CHUNK + k) * a.states, sums + k * shape.states, a.states * sizeof(T));
    }
    // Views are read along the scan: reversed, position 0 of a tile is the last of the tensor.
    View along(const View& view) const { return a.reverse ? backwards<S>(view, a.length) : view; }
    void load_tile_of(const View& view, int64_t block, int64_t chunk, V* tile) const {
        load_tile<S>(along(view), b, channel(block), chunk * CHUNK, channels(block), steps(chunk), tile);
    }
    void store_tile_of(const View& view, int64_t block, int64_t chunk, const V* tile) const {
        store_tile<S>(along(view), b, channel(block), chunk * CHUNK, channels(block), steps(chunk), tile);
    }
    // A block's states as (D, N) rows of a (batch, D, N) tensor, and back.
    void store_states(const V* states, void* tensor, int64_t block) const {
        for (int j = 0; j < channels(block); j++)
            for (int n = 0; n < a.states; n++) ((T*)tensor)[(b * a.channels + channel(block) + j) * a.states + n] = states[n][j];
    }
    void load_states(const void* tensor, V* states, int64_t block) const {
        for (int j = 0; j < channels(block); j++)
            for (int n = 0; n < a.states; n++) states[n][j] = ((const T*)tensor)[(b * a.channels + channel(block) + j) * a.states + n];
    }
};

// h = exp(delta A) h + (delta u) B and y += C h over a chunk, for STATES states. B, C: rows of `row` values.
template <class T>
INLINE void advance(const Vec<T>* rates, Vec<T>* state, const T* B, const T* C, int64_t row, const Vec<T>* delta, const Vec<T>* drive, Vec<T>* y,
                    int steps) {
    Vec<T> h[STATES], rate[STATES];
    for (int n = 0; n < STATES; n++) h[n] = state[n], rate[n] = rates[n];
    for (int k = 0; k < steps; k++) {
        Vec<T> sum = y[k];
#pragma GCC unroll 8
        for (int n = 0; n < STATES; n++) {
            h[n] = exp2(delta[k] * rate[n]) * h[n] + drive[k] * B[k * row + n];
            sum += h[n] * C[k * row + n];
        }
        y[k] = sum;
    }
    for (int n = 0; n < STATES; n++) state[n] = h[n];
}

template <class S> void forward(const ScanArgs& a, int64_t index) {
    using T = Compute<S>;
    using V = Vec<T>;
    const FlushDenormals flush;
    const Task<S> task(a, index);
    const int64_t states = task.shape.states, count = task.count;
    Scratch<T> scratch(2 * count * states + 2 * count + 5 * CHUNK + 2 * CHUNK * states);
    V *rates = scratch.take(count * states), *state = scratch.take(count * states), *skip = scratch.take(count), *bias = scratch.take(count);
    V *u = scratch.take(CHUNK), *delta = scratch.take(CHUNK), *drive = scratch.take(CHUNK), *y = scratch.take(CHUNK), *z = scratch.take(CHUNK);
    T *B = (T*)scratch.take(CHUNK * states), *C = (T*)scratch.take(CHUNK * states);
    for (int64_t i = 0; i < count; i++) task.load_parameters(i, rates + i * states, skip[i], bias[i]);
    for (int64_t chunk = 0; chunk < task.shape.chunks; chunk++) {
        const int steps = task.steps(chunk);
        task.load_shared(a.B, chunk, B);
        task.load_shared(a.C, chunk, C);
        for (int64_t i = 0; i < count; i++) {
            if (a.checkpoints) memcpy(task.checkpoint(i, chunk), state + i * states, states * sizeof(V));
            task.load_tile_of(a.u, i, chunk, u);
            task.load_tile_of(a.delta, i, chunk, delta);
            for (int k = 0; k < steps; k++) {
                V slope;
                delta[k] = a.softplus ? softplus(delta[k] + bias[i], slope) : delta[k] + bias[i];
                drive[k] = delta[k] * u[k];
                y[k] = skip[i] * u[k];
            }
            for (int64_t n = 0; n < states; n += STATES)
                advance<T>(rates + i * states + n, state + i * states + n, B + n, C + n, states, delta, drive, y, steps);
            if (a.z.data) {
                task.load_tile_of(a.z, i, chunk, z);
                for (int k = 0; k < steps; k++) y[k] *= z[k] * sigmoid(z[k]);
            }
            task.store_tile_of(a.out, i, chunk, y);
        }
    }
    if (a.last)
        for (int64_t i = 0; i < count; i++) task.store_states(state + i * states, a.last, i);
}

// What the backward pass holds of a chunk of a block: inputs, and the sums over states that become gradients. One vector a step.
template <class T> struct Tiles {
    Vec<T> *u, *z, *slope;           // slope: of delta by its input
    Vec<T> *delta, *drive, *grad_y;  // softplus(delta + bias), delta u, gradient of y before the gate
    Vec<T> *y;                       // wanted where there is a gate
    Vec<T> *by_drive, *by_rate;      // sum over n of grad_h B, and of grad_h decay h' log2(e) A
    Vec<T> *before, *decay;          // states before each step and their decays, STATES a step
    bool gated;
    static constexpr int64_t SIZE = (9 + 2 * STATES) * CHUNK;

    Tiles(Scratch<T>& scratch, bool has_gate) : gated(has_gate) {
        for (Vec<T>** tile : {&u, &z, &slope, &delta, &drive, &grad_y, &y, &by_drive, &by_rate}) *tile = scratch.take(CHUNK);
        before = scratch.take(CHUNK * STATES), decay = scratch.take(CHUNK * STATES);
    }
};

// Recomputes a chunk's states and sweeps back over it, for STATES states. grad_B, grad_C: sums over the task's channels, lanes apart, rows of `row`.
template <class T>
INLINE void retreat(const Vec<T>* rates, const Vec<T>* start, Vec<T>* grad_state, Vec<T>* grad_rates, const T* B, const T* C, int64_t row,
                    const Tiles<T>& t, Vec<T>* grad_B, Vec<T>* grad_C, int steps) {
    Vec<T> h[STATES], rate[STATES], grad_h[STATES], grad_rate[STATES];
    for (int n = 0; n < STATES; n++) h[n] = start[n], rate[n] = rates[n], grad_h[n] = grad_state[n], grad_rate[n] = grad_rates[n];
    for (int k = 0; k < steps; k++) {
#pragma GCC unroll 8
        for (int n = 0; n < STATES; n++) {
            const Vec<T> decay = exp2(t.delta[k] * rate[n]);
            t.before[k * STATES + n] = h[n];
            t.decay[k * STATES + n] = decay;
            h[n] = decay * h[n] + t.drive[k] * B[k * row + n];
        }
    }
    if (t.gated)
        for (int k = 0; k < steps; k++)
            for (int n = 0; n < STATES; n++) t.y[k] += (k + 1 < steps ? t.before[(k + 1) * STATES + n] : h[n]) * C[k * row + n];
    for (int k = steps - 1; k >= 0; k--) {
        const Vec<T> delta = t.delta[k], drive = t.drive[k], grad_y = t.grad_y[k];
        Vec<T> by_drive = t.by_drive[k], by_rate = t.by_rate[k];
#pragma GCC unroll 8
        for (int n = 0; n < STATES; n++) {
            const Vec<T> grad = grad_h[n] + grad_y * C[k * row + n];
            grad_C[k * row + n] += grad_y * h[n];
            grad_B[k * row + n] += grad * drive;
            by_drive += grad * B[k * row + n];
            grad_h[n] = grad * t.decay[k * STATES + n];
            h[n] = t.before[k * STATES + n];
            const Vec<T> through = grad_h[n] * h[n];
            by_rate += through * rate[n];
            grad_rate[n] += through * delta;
        }
        t.by_drive[k] = by_drive, t.by_rate[k] = by_rate;
    }
    for (int n = 0; n < STATES; n++) grad_state[n] = grad_h[n], grad_rates[n] = grad_rate[n];
}

// Reads a chunk of a block and prepares it: everything that does not depend on the states.
template <class S, class T = Compute<S>>
INLINE void open_block(const Task<S>& task, int64_t block, int64_t chunk, Vec<T> skip, Vec<T> bias, const Tiles<T>& t) {
    const ScanArgs& a = task.a;
    task.load_tile_of(a.u, block, chunk, t.u);
    task.load_tile_of(a.delta, block, chunk, t.delta);
    task.load_tile_of(a.grad_out, block, chunk, t.grad_y);
    if (t.gated) task.load_tile_of(a.z, block, chunk, t.z);
    for (int k = 0; k < task.steps(chunk); k++) {
        const Vec<T> x = t.delta[k] + bias;
        t.slope[k] = Vec<T>{} + 1;
        t.delta[k] = a.softplus ? softplus(x, t.slope[k]) : x;
        t.drive[k] = t.delta[k] * t.u[k];
        t.by_drive[k] = t.by_rate[k] = Vec<T>{};
        if (t.gated) {
            const Vec<T> gate = sigmoid(t.z[k]), grad_out = t.grad_y[k];
            t.y[k] = skip * t.u[k];
            t.grad_y[k] = grad_out * t.z[k] * gate;
            t.z[k] = grad_out * gate * (1 + t.z[k] * (1 - gate));  // now the gradient of z, but for the factor y
        }
    }
}

// Turns the sums over states into gradients and writes them.
template <class S, class T = Compute<S>>
INLINE void close_block(const Task<S>& task, int64_t block, int64_t chunk, Vec<T> skip, const Tiles<T>& t, Vec<T>& grad_skip, Vec<T>& grad_bias) {
    const ScanArgs& a = task.a;
    for (int k = 0; k < task.steps(chunk); k++) {
        const Vec<T> u = t.u[k];
        t.u[k] = skip * t.grad_y[k] + t.delta[k] * t.by_drive[k];  // now its gradient, as below
        t.delta[k] = (t.by_rate[k] * (T)LN2 + u * t.by_drive[k]) * t.slope[k];
        grad_skip += t.grad_y[k] * u;
        grad_bias += t.delta[k];
        if (t.gated) t.z[k] *= t.y[k];
    }
    task.store_tile_of(a.grad_u, block, chunk, t.u);
    task.store_tile_of(a.grad_delta, block, chunk, t.delta);
    if (t.gated) task.store_tile_of(a.grad_z, block, chunk, t.z);
}

template <class S> void backward(const ScanArgs& a, int64_t index) {
    using T = Compute<S>;
    using V = Vec<T>;
    const FlushDenormals flush;
    const Task<S> task(a, index);
    const int64_t states = task.shape.states, count = task.count;
    Scratch<T> scratch(3 * count * states + 4 * count + Tiles<T>::SIZE + 4 * CHUNK * states);
    V *rates = scratch.take(count * states), *grad_state = scratch.take(count * states), *grad_rates = scratch.take(count * states);
    V *skip = scratch.take(count), *bias = scratch.take(count), *grad_skip = scratch.take(count), *grad_bias = scratch.take(count);
    const Tiles<T> tiles(scratch, a.z.data);
    V *grad_B = scratch.take(CHUNK * states), *grad_C = scratch.take(CHUNK * states);
    T *B = (T*)scratch.take(CHUNK * states), *C = (T*)scratch.take(CHUNK * states);
    for (int64_t i = 0; i < count; i++) {
        task.load_parameters(i, rates + i * states, skip[i], bias[i]);
        if (a.grad_last) task.load_states(a.grad_last, grad_state + i * states, i);
    }
    for (int64_t chunk = task.shape.chunks - 1; chunk >= 0; chunk--) {
        task.load_shared(a.B, chunk, B);
        task.load_shared(a.C, chunk, C);
        memset(grad_B, 0, CHUNK * states * sizeof(V));
        memset(grad_C, 0, CHUNK * states * sizeof(V));
        for (int64_t i = 0; i < count; i++) {
            open_block(task, i, chunk, skip[i], bias[i], tiles);
            for (int64_t n = 0; n < states; n += STATES)
                retreat<T>(rates + i * states + n, task.checkpoint(i, chunk) + n, grad_state + i * states + n, grad_rates + i * states + n,
                           B + n, C + n, states, tiles, grad_B + n, grad_C + n, task.steps(chunk));
            close_block(task, i, chunk, skip[i], tiles, grad_skip[i], grad_bias[i]);
        }
        task.store_shared_sums(grad_B, a.grad_B, chunk);
        task.store_shared_sums(grad_C, a.grad_C, chunk);
    }
    for (int64_t i = 0; i < count; i++) {
        task.store_states(grad_rates + i * states, a.grad_A, i);
        for (int j = 0; j < task.channels(i); j++) {
            ((T*)a.grad_D)[task.b * a.channels + task.channel(i) + j] = grad_skip[i][j];
            ((T*)a.grad_bias)[task.b * a.channels + task.channel(i) + j] = grad_bias[i][j];
        }
    }
}

template <class S> void run(const ScanArgs& a, bool backwards) {
    const int64_t tasks = a.batch * a.groups * Shape<Compute<S>>(a).splits;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)a.threads)
    for (int64_t index = 0; index < tasks; index++) backwards ? backward<S>(a, index) : forward<S>(a, index);
}

}  // namespace

// element_bytes: 4 fp32, 8 fp64, 2 bf16.
extern "C" void vssm_scan(const ScanArgs* a, int64_t element_bytes, int64_t backwards) {
    if (element_bytes == 8) run<double>(*a, backwards);
    else if (element_bytes == 4) run<float>(*a, backwards);
    else run<bfloat16>(*a, backwards);
}
extern "C" int64_t vssm_scan_args_bytes() { return sizeof(ScanArgs); }
extern "C" int64_t vssm_vector_bytes() { return VECTOR_BYTES; }
extern "C" int64_t vssm_scan_chunk() { return CHUNK; }
extern "C" int64_t vssm_scan_blocks() { return BLOCKS; }
extern "C" int64_t vssm_scan_states() { return STATES; }
