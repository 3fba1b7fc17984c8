// PIL's affine transform of an image by cubics or by lines, bit for bit: the same operations in the same order, in double precision, three channels at
// a time. jobs/data/pixels.py calls it. Build without contraction of products and sums, which would round otherwise.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__x86_64__) && defined(__gnu_linux__)  // as in decoding.cpp
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE inline __attribute__((always_inline))

namespace {

typedef int32_t Whole __attribute__((vector_size(16)));
typedef double Pixel __attribute__((vector_size(32)));  // red, green, blue, nothing

INLINE Pixel pixel(const double* at) {
    Pixel value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

INLINE Pixel cubic(Pixel before, Pixel first, Pixel second, Pixel after, double part) {
    const Pixel p2 = -before + second;
    const Pixel p3 = 2.0 * (before - first) + second - after;
    const Pixel p4 = -before + first - second + after;
    return first + part * (p2 + part * (p3 + part * p4));
}

INLINE Pixel line(Pixel first, Pixel second, double part) { return first + (second - first) * part; }

INLINE Pixel cubic_row(const double* at, double part) { return cubic(pixel(at), pixel(at + 4), pixel(at + 8), pixel(at + 12), part); }

// `image`, (height, width, 3), as (height + 4, width + 4, 4) with its border repeated twice.
std::vector<double> spread(const uint8_t* image, int64_t height, int64_t width) {
    const int64_t row = 4 * (width + 4);
    std::vector<double> wide(size_t(height + 4) * row);
    for (int64_t y = 0; y < height; ++y) {
        const uint8_t* from = image + 3 * y * width;
        double* out = wide.data() + (y + 2) * row + 8;
        for (int64_t x = 0; x < width; ++x)
            for (int c = 0; c < 3; ++c) out[4 * x + c] = from[3 * x + c];
        for (int c = 0; c < 4; ++c) out[c - 8] = out[c - 4] = out[c], out[4 * width + c] = out[4 * width + 4 + c] = out[4 * width - 4 + c];
    }
    for (int64_t y = 0; y < 2; ++y) {
        std::copy_n(&wide[2 * row], row, &wide[y * row]);
        std::copy_n(&wide[(height + 1) * row], row, &wide[(height + 2 + y) * row]);
    }
    return wide;
}

CLONES void turn(const double* __restrict wide, int64_t height, int64_t width, const double* m, bool cubes, const uint8_t* fill, uint8_t* __restrict out) {
    const int64_t row = 4 * (width + 4);
    for (int64_t y = 0; y < height; ++y)
        for (int64_t x = 0; x < width; ++x, out += 3) {
            const double from_x = m[0] * (x + 0.5) + m[1] * (y + 0.5) + m[2], from_y = m[3] * (x + 0.5) + m[4] * (y + 0.5) + m[5];
            if (from_x < 0.0 || from_x >= width || from_y < 0.0 || from_y >= height) {
                out[0] = fill[0], out[1] = fill[1], out[2] = fill[2];
                continue;
            }
            const double left = std::floor(from_x - 0.5), top = std::floor(from_y - 0.5), right = from_x - 0.5 - left, down = from_y - 0.5 - top;
            const double* at = wide + row * (int64_t(top) + 1) + 4 * (int64_t(left) + 1);  // of the 4 x 4 pixels around
            Pixel value;
            if (cubes) {
                value = cubic(cubic_row(at, right), cubic_row(at + row, right), cubic_row(at + 2 * row, right), cubic_row(at + 3 * row, right), down);
            } else {
                const double *upper = at + row + 4, *lower = upper + row;
                value = line(line(pixel(upper), pixel(upper + 4), right), line(pixel(lower), pixel(lower + 4), right), down);
            }
            value = value < 0.0 ? Pixel{} : value;
            value = value > 255.0 ? Pixel{} + 255.0 : value;
            const Whole levels = __builtin_convertvector(value, Whole);
            out[0] = uint8_t(levels[0]), out[1] = uint8_t(levels[1]), out[2] = uint8_t(levels[2]);
        }
}

}  // namespace

extern "C" {

// image (height, width, 3) in place: (x, y) comes from (m0 x + m1 y + m2, m3 x + m4 y + m5), from outside of the image it is `fill`.
void vssm_turn(uint8_t* image, int64_t height, int64_t width, const double* matrix, int64_t cubes, const uint8_t* fill) {
    turn(spread(image, height, width).data(), height, width, matrix, cubes != 0, fill, image);
}
}
