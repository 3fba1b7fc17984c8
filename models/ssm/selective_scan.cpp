// Selective scan of Mamba (arXiv 2312.00752, algorithm 2) on a CPU: forward, and a backward written by hand that recomputes the states.
// Plain C interface, no torch headers. See models/ssm/cpu.py for the caller and models/ssm/scan.py for the equations.
//
// Vectors hold channels, which are independent; time runs in a loop with the states of a few channels in registers. The forward pass keeps the states
// at the start of every CHUNK positions; the backward pass goes through the chunks from the last, recomputes a chunk's states from there and
// sweeps back over it. A task is one sample, one group of B and C and up to BLOCKS vectors of channels, so that B and C are read once for all of
// them. Tasks write to places of their own and are cut without regard to the number of threads: results are equal to the bit for any number.
#include <sys/mman.h>
#include "scan_task.h"

namespace {

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
    const int64_t states = task.shape.states, row = task.shape.row, count = task.count;
    Scratch<T> scratch(2 * count * states + 2 * count + 5 * CHUNK + 2 * CHUNK * row / WIDTH<T>);
    V *rates = scratch.take(count * states), *state = scratch.take(count * states), *skip = scratch.take(count), *bias = scratch.take(count);
    V *u = scratch.take(CHUNK), *delta = scratch.take(CHUNK), *drive = scratch.take(CHUNK), *y = scratch.take(CHUNK), *z = scratch.take(CHUNK);
    T *B = (T*)scratch.take(CHUNK * row / WIDTH<T>), *C = (T*)scratch.take(CHUNK * row / WIDTH<T>);
    for (int64_t i = 0; i < count; i++) task.load_parameters(i, rates + i * states, skip[i], bias[i]);
    for (int64_t chunk = 0; chunk < task.shape.chunks; chunk++) {
        const int steps = task.steps(chunk);
        task.load_shared(a.B, chunk, B);
        task.load_shared(a.C, chunk, C);
        for (int64_t i = 0; i < count; i++) {
            task.expect_next(i, chunk, 1, {&a.u, &a.delta, &a.z, &a.out});
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
                advance<T>(rates + i * states + n, state + i * states + n, B + n, C + n, row, delta, drive, y, steps);
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

// Recomputes a chunk's states and sweeps back over it, for STATES states. B, C: rows of `row` values. sums: of the gradients of B and C over the
// task's channels, MERGED vectors every `sums_row`; over lanes at once, because lanes apart they would fill the first cache and push all else out.
template <class T>
INLINE void retreat(const Vec<T>* rates, const Vec<T>* start, Vec<T>* grad_state, Vec<T>* grad_rates, const T* B, const T* C, int64_t row,
                    const Tiles<T>& t, Vec<T>* sums, int64_t sums_row, int steps) {
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
        Vec<T> by_drive = t.by_drive[k], by_rate = t.by_rate[k], shared[SHARED];
#pragma GCC unroll 8
        for (int n = 0; n < STATES; n++) {
            const Vec<T> grad = grad_h[n] + grad_y * C[k * row + n];
            shared[STATES + n] = grad_y * h[n];
            shared[n] = grad * drive;
            by_drive += grad * B[k * row + n];
            grad_h[n] = grad * t.decay[k * STATES + n];
            h[n] = t.before[k * STATES + n];
            const Vec<T> through = grad_h[n] * h[n];
            by_rate += through * rate[n];
            grad_rate[n] += through * delta;
        }
        t.by_drive[k] = by_drive, t.by_rate[k] = by_rate;
        constexpr int COUNT = std::min(SHARED, WIDTH<T>);
#pragma GCC unroll 8
        for (int i = 0; i < MERGED<T>; i++) sums[k * sums_row + i] += merged<T, COUNT>(shared + i * COUNT);
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
    const int64_t states = task.shape.states, row = task.shape.row, count = task.count;
    Scratch<T> scratch(3 * count * states + 4 * count + Tiles<T>::SIZE + 2 * CHUNK * row / WIDTH<T> + CHUNK * task.shape.sums);
    V *rates = scratch.take(count * states), *grad_state = scratch.take(count * states), *grad_rates = scratch.take(count * states);
    V *skip = scratch.take(count), *bias = scratch.take(count), *grad_skip = scratch.take(count), *grad_bias = scratch.take(count);
    const Tiles<T> tiles(scratch, a.z.data);
    V* sums = scratch.take(CHUNK * task.shape.sums);
    T *B = (T*)scratch.take(CHUNK * row / WIDTH<T>), *C = (T*)scratch.take(CHUNK * row / WIDTH<T>);
    for (int64_t i = 0; i < count; i++) {
        task.load_parameters(i, rates + i * states, skip[i], bias[i]);
        if (a.grad_last) task.load_states(a.grad_last, grad_state + i * states, i);
    }
    for (int64_t chunk = task.shape.chunks - 1; chunk >= 0; chunk--) {
        task.load_shared(a.B, chunk, B);
        task.load_shared(a.C, chunk, C);
        memset(sums, 0, CHUNK * task.shape.sums * sizeof(V));
        for (int64_t i = 0; i < count; i++) {
            task.expect_next(i, chunk, -1, {&a.u, &a.delta, &a.z, &a.grad_out, &a.grad_u, &a.grad_delta, &a.grad_z});
            open_block(task, i, chunk, skip[i], bias[i], tiles);
            for (int64_t n = 0; n < states; n += STATES)
                retreat<T>(rates + i * states + n, task.checkpoint(i, chunk) + n, grad_state + i * states + n, grad_rates + i * states + n,
                           B + n, C + n, row, tiles, sums + n / STATES * MERGED<T>, task.shape.sums, task.steps(chunk));
            close_block(task, i, chunk, skip[i], tiles, grad_skip[i], grad_bias[i]);
        }
        task.store_shared_sums(sums, chunk);
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

// Asks the system for large pages under memory that is about to be written: a fault for every 4 KB costs over a microsecond on a virtual machine.
extern "C" void vssm_use_large_pages(void* memory, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
    const uintptr_t page = 1 << 21, first = ((uintptr_t)memory + page - 1) & -page, end = ((uintptr_t)memory + bytes) & -page;
    if (first < end) madvise((void*)first, end - first, MADV_HUGEPAGE);
#endif
}
extern "C" int64_t vssm_scan_args_bytes() { return sizeof(ScanArgs); }
extern "C" int64_t vssm_vector_bytes() { return VECTOR_BYTES; }
extern "C" int64_t vssm_scan_chunk() { return CHUNK; }
extern "C" int64_t vssm_scan_blocks() { return BLOCKS; }
extern "C" int64_t vssm_scan_states() { return STATES; }
