// Tensors (B, D, L) of any strides, read and written as tiles of channels x positions; and the memory that kernels work in.
#pragma once
#include <cstdlib>
#include <memory>
#include "simd.h"

// A tensor (B, D, L): first element and strides in elements. Null: absent.
struct View {
    void* data;
    int64_t b, d, l;
    template <class S> S* at(int64_t batch, int64_t channel, int64_t position) const { return (S*)data + batch * b + channel * d + position * l; }
};

namespace {

// The same tensor with its positions in the opposite order; an absent one stays absent.
template <class S> View backwards(View view, int64_t length) {
    if (view.data) view.data = view.at<S>(0, 0, length - 1);
    view.l = -view.l;
    return view;
}

// Tiles: `steps` positions x WIDTH channels, one vector a position; channels beyond `channels` are zero.
template <class S, class T = Compute<S>>
INLINE void load_tile(const View& view, int64_t b, int64_t d, int64_t l, int channels, int steps, Vec<T>* tile) {
    const S* p = view.at<S>(b, d, l);
    if (channels == WIDTH<T> && view.d == 1) {
        for (int k = 0; k < steps; k++) tile[k] = load_vector(p + k * view.l);
        return;
    }
    int k = 0;
    if (view.l == 1 || view.l == -1)
        for (; k + WIDTH<T> <= steps; k += WIDTH<T>) {
            Vec<T> rows[WIDTH<T>];
            const S* first = p + (view.l == 1 ? k : -(k + WIDTH<T> - 1));
#pragma GCC unroll 16
            for (int j = 0; j < WIDTH<T>; j++) rows[j] = j < channels ? load_vector(first + j * view.d) : Vec<T>{};
            transpose<T>(rows);
            Vec<T>* start = tile + k + (view.l == 1 ? 0 : WIDTH<T> - 1);
#pragma GCC unroll 16
            for (int j = 0; j < WIDTH<T>; j++) start[j * view.l] = rows[j];
        }
    for (; k < steps; k++) {
        Vec<T> x{};
        for (int j = 0; j < channels; j++) x[j] = load(p + j * view.d + k * view.l);
        tile[k] = x;
    }
}

template <class S, class T = Compute<S>>
INLINE void store_tile(const View& view, int64_t b, int64_t d, int64_t l, int channels, int steps, const Vec<T>* tile) {
    S* p = view.at<S>(b, d, l);
    if (channels == WIDTH<T> && view.d == 1) {
        for (int k = 0; k < steps; k++) store_vector(p + k * view.l, tile[k]);
        return;
    }
    int k = 0;
    if (view.l == 1 || view.l == -1)
        for (; k + WIDTH<T> <= steps; k += WIDTH<T>) {
            Vec<T> rows[WIDTH<T>];
            const Vec<T>* start = tile + k + (view.l == 1 ? 0 : WIDTH<T> - 1);
#pragma GCC unroll 16
            for (int j = 0; j < WIDTH<T>; j++) rows[j] = start[j * view.l];
            transpose<T>(rows);
            S* first = p + (view.l == 1 ? k : -(k + WIDTH<T> - 1));
#pragma GCC unroll 16
            for (int j = 0; j < WIDTH<T>; j++)
                if (j < channels) store_vector(first + j * view.d, rows[j]);
        }
    for (; k < steps; k++)
        for (int j = 0; j < channels; j++) store(p + j * view.d + k * view.l, tile[k][j]);
}

// Asks for memory some time before it is used. Into the second cache: the first is full of what is being computed.
INLINE void expect_lines(const void* p, int64_t bytes) {
    asm volatile("");  // GCC drops the call of a function that does nothing else, as one without effect
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char*)p + at, 0, 2);
}

// Asks for a tile's memory. Both ends of every row, for a row may begin in one cache line and end in the next.
template <class S> INLINE void expect_tile(const View& view, int64_t b, int64_t d, int64_t l, int channels, int steps) {
    const S* p = view.at<S>(b, d, l);
    const bool rows_of_channels = view.d == 1;
    const int rows = rows_of_channels ? steps : channels;
    const int64_t stride = rows_of_channels ? view.l : view.d, end = rows_of_channels ? channels - 1 : (steps - 1) * view.l;
    for (int i = 0; i < rows; i++) expect_lines(p + i * stride, 1), expect_lines(p + i * stride + end, 1);
}

// `count` vectors, aligned and zero; freed with the owner.
struct Free {
    void operator()(void* p) const { std::free(p); }
};
template <class T> struct Scratch {
    std::unique_ptr<void, Free> memory;
    Vec<T>* next;
    explicit Scratch(int64_t count) : memory(std::aligned_alloc(64, (count * VECTOR_BYTES + 63) / 64 * 64)), next((Vec<T>*)memory.get()) {
        memset(memory.get(), 0, count * VECTOR_BYTES);
    }
    Vec<T>* take(int64_t count) { return std::exchange(next, next + count); }
};

}  // namespace
