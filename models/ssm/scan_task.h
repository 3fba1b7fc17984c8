// The arguments of the selective scan, how a problem is cut into tasks, and what a task reads and writes.
#pragma once
#include <initializer_list>
#include "tiles.h"

// B and C: (batch, groups, states, length).
struct SharedView {
    const void* data;
    int64_t b, g, n, l;
};

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

constexpr int CHUNK = 16;   // positions between two kept states: what a chunk of the backward pass touches stays in the first cache
constexpr int BLOCKS = 8;   // vectors of channels in a task
constexpr int STATES = 4;   // states that stay in registers together; N is padded with zeros to a multiple
constexpr int SHARED = 2 * STATES;  // gradients of B and of C of as many states, summed over lanes together
template <class T> constexpr int MERGED = std::max(1, SHARED / WIDTH<T>);  // vectors that these sums fill
constexpr double LN2 = 0.6931471805599453094, LOG2E = 1.4426950408889634074;

// How a problem is cut. Checkpoints are (batch, groups, blocks, chunks, padded states) vectors.
template <class T> struct Shape {
    int64_t group_channels, blocks, splits, chunks, states;
    int64_t row, sums;  // of a position: values of B or of C, in whole vectors; vectors of their gradients' sums
    explicit Shape(const ScanArgs& a)
        : group_channels(a.channels / a.groups), blocks((group_channels + WIDTH<T> - 1) / WIDTH<T>), splits((blocks + BLOCKS - 1) / BLOCKS),
          chunks((a.length + CHUNK - 1) / CHUNK), states((a.states + STATES - 1) / STATES * STATES),
          row((states + WIDTH<T> - 1) / WIDTH<T> * WIDTH<T>), sums(states / STATES * MERGED<T>) {}
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
    // A chunk of B or C as (steps, row) values: the states of a position side by side, as if they were channels.
    void load_shared(const SharedView& view, int64_t chunk, T* rows) const {
        const View states{(void*)((const S*)view.data + g * view.g), view.b, view.n, view.l};
        V tile[CHUNK];
        for (int64_t n = 0; n < a.states; n += WIDTH<T>) {
            load_tile<S>(along(states), b, n, chunk * CHUNK, (int)std::min<int64_t>(WIDTH<T>, a.states - n), steps(chunk), tile);
            for (int k = 0; k < steps(chunk); k++) store_vector(rows + k * shape.row + n, tile[k]);
        }
    }
    // Writes a chunk's sums, as `retreat` leaves them, to the task's part of the gradients of B and C.
    void store_shared_sums(const V* sums, int64_t chunk) const {
        const int64_t part = ((b * a.groups + g) * shape.splits + split) * a.length * a.states;
        for (int k = 0; k < steps(chunk); k++)
            for (int n = 0; n < a.states; n++) {
                const T* lanes = (const T*)(sums + k * shape.sums + n / STATES * MERGED<T>) + n % STATES;
                T grad_B = 0, grad_C = 0;
                for (int i = 0; i < MERGED<T> * WIDTH<T>; i += SHARED) grad_B += lanes[i], grad_C += lanes[i + STATES];
                const int64_t at = part + position(chunk * CHUNK + k) * a.states + n;
                ((T*)a.grad_B)[at] = grad_B, ((T*)a.grad_C)[at] = grad_C;
            }
    }
    // Views are read along the scan: reversed, position 0 of a tile is the last of the tensor.
    View along(const View& view) const { return a.reverse ? backwards<S>(view, a.length) : view; }
    void load_tile_of(const View& view, int64_t block, int64_t chunk, V* tile) const {
        load_tile<S>(along(view), b, channel(block), chunk * CHUNK, channels(block), steps(chunk), tile);
    }
    void store_tile_of(const View& view, int64_t block, int64_t chunk, const V* tile) const {
        store_tile<S>(along(view), b, channel(block), chunk * CHUNK, channels(block), steps(chunk), tile);
    }
    // Asks for the tiles of the block, or of the chunk, that comes after this one: at such strides no hardware foresees what is next.
    void expect_next(int64_t block, int64_t chunk, int64_t forth, std::initializer_list<const View*> views) const {
        if (++block == count) block = 0, chunk += forth;
        if (chunk < 0 || chunk == shape.chunks) return;
        for (const View* view : views)
            if (view->data) expect_tile<S>(along(*view), b, channel(block), chunk * CHUNK, channels(block), steps(chunk));
        if (a.checkpoints) expect_lines(checkpoint(block, chunk), shape.states * sizeof(V));
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

}  // namespace
