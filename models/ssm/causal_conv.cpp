// Depthwise convolution over positions, then SiLU: forward, and a backward that recomputes the sum before the SiLU. See models/ssm/conv.py.
//
// A task is one sample and one vector of channels: the whole sequence is gathered into vectors once, whatever its strides, and read from there.
#include <initializer_list>
#include "tiles.h"

extern "C" struct ConvArgs {
    int64_t batch, channels, length, taps, left, reverse, threads;  // y[l] sums weight[k] x[l - left + k]
    View x, out, grad_out, grad_x;
    const void *weight, *bias;       // (D, taps), (D) or null, contiguous, in the type that is computed in
    void *grad_weight, *grad_bias;   // (batch, D, taps), (batch, D)
};

namespace {

constexpr int MAX_TAPS = 16;

template <class S> struct Task {
    using T = Compute<S>;
    using V = Vec<T>;
    const ConvArgs& a;
    int64_t b, d;
    int channels;
    V weight[MAX_TAPS] = {}, bias = {};

    Task(const ConvArgs& args, int64_t index) : a(args) {
        const int64_t blocks = (a.channels + WIDTH<T> - 1) / WIDTH<T>;
        b = index / blocks;
        d = index % blocks * WIDTH<T>;
        channels = (int)std::min<int64_t>(WIDTH<T>, a.channels - d);
        for (int j = 0; j < channels; j++) {
            for (int k = 0; k < a.taps; k++) weight[k][j] = ((const T*)a.weight)[(d + j) * a.taps + k];
            if (a.bias) bias[j] = ((const T*)a.bias)[d + j];
        }
    }
    View along(const View& view) const { return a.reverse ? backwards<S>(view, a.length) : view; }
    void load(const View& view, V* sequence) const { load_tile<S>(along(view), b, d, 0, channels, (int)a.length, sequence); }
    void store(const View& view, const V* sequence) const { store_tile<S>(along(view), b, d, 0, channels, (int)a.length, sequence); }
    // Asks for the sequences of the next channels while these are computed.
    void expect_next(std::initializer_list<const View*> views) const {
        const int64_t next = d + WIDTH<T>, left = a.channels - next;
        for (const View* view : views)
            if (left > 0) expect_tile<S>(along(*view), b, next, 0, (int)std::min<int64_t>(WIDTH<T>, left), (int)a.length);
    }
    V sum(const V* padded, int64_t l) const {
        V s = bias;
        for (int k = 0; k < a.taps; k++) s += weight[k] * padded[l + k];
        return s;
    }
};

template <class S> void forward(const ConvArgs& a, int64_t index) {
    using V = Vec<Compute<S>>;
    const Task<S> task(a, index);
    Scratch<Compute<S>> scratch(2 * a.length + a.taps);
    V *y = scratch.take(a.length), *padded = scratch.take(a.length + a.taps);  // `left` zeros before the sequence, the others behind
    task.load(a.x, padded + a.left);
    task.expect_next({&a.x, &a.out});
    for (int64_t l = 0; l < a.length; l++) {
        const V s = task.sum(padded, l);
        y[l] = s * sigmoid(s);
    }
    task.store(a.out, y);
}

template <class S> void backward(const ConvArgs& a, int64_t index) {
    using T = Compute<S>;
    using V = Vec<T>;
    const Task<S> task(a, index);
    const int64_t right = a.taps - 1 - a.left;
    Scratch<T> scratch(3 * a.length + 2 * a.taps);
    V *grad_x = scratch.take(a.length), *padded = scratch.take(a.length + a.taps), *grad = scratch.take(a.length + a.taps);
    task.load(a.x, padded + a.left);
    task.load(a.grad_out, grad + right);  // zeros around it too: what lies outside of the sequence gave no output
    task.expect_next({&a.x, &a.grad_out, &a.grad_x});
    V grad_weight[MAX_TAPS] = {}, grad_bias = {};
    for (int64_t l = 0; l < a.length; l++) {
        const V s = task.sum(padded, l), gate = sigmoid(s), grad_sum = grad[right + l] * gate * (1 + s * (1 - gate));
        grad[right + l] = grad_sum;
        grad_bias += grad_sum;
        for (int k = 0; k < a.taps; k++) grad_weight[k] += grad_sum * padded[l + k];
    }
    for (int64_t l = 0; l < a.length; l++) {
        V s{};
        for (int k = 0; k < a.taps; k++) s += task.weight[k] * grad[l + a.taps - 1 - k];
        grad_x[l] = s;
    }
    task.store(a.grad_x, grad_x);
    for (int j = 0; j < task.channels; j++) {
        const int64_t row = task.b * a.channels + task.d + j;
        for (int k = 0; k < a.taps; k++) ((T*)a.grad_weight)[row * a.taps + k] = grad_weight[k][j];
        ((T*)a.grad_bias)[row] = grad_bias[j];
    }
}

template <class S> void run(const ConvArgs& a, bool backwards) {
    const int64_t tasks = a.batch * ((a.channels + WIDTH<Compute<S>> - 1) / WIDTH<Compute<S>>);
#pragma omp parallel for schedule(static) num_threads((int)a.threads)
    for (int64_t index = 0; index < tasks; index++) backwards ? backward<S>(a, index) : forward<S>(a, index);
}

}  // namespace

// element_bytes: 4 fp32, 8 fp64, 2 bf16.
extern "C" void vssm_conv(const ConvArgs* a, int64_t element_bytes, int64_t backwards) {
    if (element_bytes == 8) run<double>(*a, backwards);
    else if (element_bytes == 4) run<float>(*a, backwards);
    else run<bfloat16>(*a, backwards);
}
extern "C" int64_t vssm_conv_args_bytes() { return sizeof(ConvArgs); }
extern "C" int64_t vssm_conv_max_taps() { return MAX_TAPS; }
