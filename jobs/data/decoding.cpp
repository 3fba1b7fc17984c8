// Images of a .beton file as a network needs them: the box of an image is decoded, resampled and mirrored; a batch is normalised. jobs/data/decoding.py
// calls it. The rows of an image are read one after the other, and only those that the box needs. Each is resampled along its length at once, and
// kept in a ring until the output rows that need it are written. So no image is ever whole in memory.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "clones.h"
#include "jpeg_rows.h"

namespace {

enum Filter : int64_t { AREA, BILINEAR, BICUBIC };
enum Mode : int32_t { JPG, RAW };

#pragma pack(push, 1)
struct Row {  // jobs.data.decoding.SELECTION, field for field
    int64_t ptr, size, label;
    int32_t height, width, mode;
    int32_t top, left, rows, cols, flip, whole;
    int64_t starts;  // where its Starts lie; 0: nowhere
};
struct Starts {  // of an image's rows of MCUs, in a file that jobs/data/row_starts.py writes
    uint32_t count;
    RowStart first[1];
};
#pragma pack(pop)

// The weights of the source positions behind each output position; none for an output position outside of the image, which is zero.
struct Taps {
    struct Span {
        int first, count, at;  // at: of its first weight
    };
    std::vector<Span> spans;
    std::vector<float> weights;
    int first = 0, end = 0;  // of all source positions that are needed

    void add(int begin, const double* values, int count, double scale, int limit) {
        const int low = std::max(begin, 0), high = std::min(begin + count, limit);
        spans.push_back({low, std::max(high - low, 0), int(weights.size())});
        for (int i = low; i < high; ++i) weights.push_back(float(values[i - begin] * scale));
    }
    void close() {
        first = INT32_MAX, end = 0;
        for (const Span& span : spans)
            if (span.count) first = std::min(first, span.first), end = std::max(end, span.first + span.count);
        first = std::min(first, end);
    }
};

// One axis: the source positions [start, start + length) become `out` output positions, of which `count` from `from` on are wanted.
struct Axis {
    double start, length;
    int out, from, count, limit;  // limit: source positions that exist
    double scale() const { return length / out; }
};

double triangle(double x) { return std::max(0.0, 1.0 - std::fabs(x)); }

double cubic(double x) {  // Keys 1981 with a = -1/2, as PIL
    const double a = -0.5;
    x = std::fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

// PIL's antialiased filters: the filter is stretched by the scale where the image shrinks, cut at the ends of the source, and sums to 1.
Taps filtered(const Axis& axis, Filter filter) {
    Taps taps;
    std::vector<double> values;
    const double scale = axis.scale(), stretch = std::max(scale, 1.0), support = (filter == BILINEAR ? 1.0 : 2.0) * stretch;
    const double low = std::floor(axis.start), high = std::ceil(axis.start + axis.length);
    for (int i = axis.from; i < axis.from + axis.count; ++i) {
        const double center = axis.start + (i + 0.5) * scale;
        const int begin = int(std::max(low, std::floor(center - support + 0.5)));
        const int end = int(std::min(high, std::floor(center + support + 0.5)));
        values.clear();
        double sum = 0;
        for (int x = begin; x < end; ++x) {
            values.push_back((filter == BILINEAR ? triangle : cubic)((x - center + 0.5) / stretch));
            sum += values.back();
        }
        const bool inside = i >= 0 && i < axis.out;
        taps.add(begin, values.data(), inside ? int(values.size()) : 0, 1 / sum, axis.limit);
    }
    taps.close();
    return taps;
}

// OpenCV's INTER_AREA where both axes shrink: each source position by the part of it that the output position covers.
Taps covered(const Axis& axis) {
    Taps taps;
    std::vector<double> values;
    const double scale = axis.scale();
    for (int i = axis.from; i < axis.from + axis.count; ++i) {
        const double begin = axis.start + i * scale, end = std::min(begin + scale, axis.start + axis.length);
        const int first = int(std::floor(begin + 1e-3));
        values.clear();
        double sum = 0;
        for (int x = first; x < end - 1e-3; ++x) {
            values.push_back(std::min(end, x + 1.0) - std::max(begin, double(x)));
            sum += values.back();
        }
        taps.add(first, values.data(), int(values.size()), 1 / sum, axis.limit);
    }
    taps.close();
    return taps;
}

// OpenCV's INTER_AREA where an axis grows: two neighbours, of which the second counts where the output position reaches into it. The scale is rounded
// twice, as there: that decides which neighbour an output position takes that begins with a pixel.
Taps reached(const Axis& axis) {
    Taps taps;
    const double grown = axis.out / axis.length, scale = 1 / grown;
    const int last = int(std::ceil(axis.length)) - 1;
    for (int i = axis.from; i < axis.from + axis.count; ++i) {
        const int x = std::min(int(std::floor(i * scale)), last);
        float second = float((i + 1) - (x + 1) * grown);
        second = second <= 0 || x == last ? 0 : second - std::floor(second);
        const double values[2] = {1.0 - second, second};
        taps.add(int(axis.start) + x, values, second > 0 ? 2 : 1, 1, axis.limit);
    }
    taps.close();
    return taps;
}

struct Box {
    Taps down, across;
};

// denominator: the image is decoded at 1/denominator of its size.
Box box_of(const Row& row, int size, Filter filter, int denominator) {
    const double d = denominator;
    const int height = (row.height + denominator - 1) / denominator, width = (row.width + denominator - 1) / denominator;
    Axis down{row.top / d, row.rows / d, size, 0, size, height}, across{row.left / d, row.cols / d, size, 0, size, width};
    if (row.whole) down = {0, row.height / d, row.rows, row.top, size, height}, across = {0, row.width / d, row.cols, row.left, size, width};
    if (filter != AREA) return {filtered(down, filter), filtered(across, filter)};
    if (down.scale() >= 1 && across.scale() >= 1) return {covered(down), covered(across)};
    return {reached(down), reached(across)};
}

// The coarsest size at which a box still has a pixel for each pixel of the result.
int coarsest(const Row& row, int size) {
    int denominator = 1;
    while (denominator < 8 && std::min(row.rows, row.cols) >= 2 * denominator * size) denominator *= 2;
    return denominator;
}

void mirror(Taps& taps) { std::reverse(taps.spans.begin(), taps.spans.end()); }

CLONES void widen(const uint8_t* __restrict row, float* __restrict out, int count) {
    for (int i = 0; i < count; ++i) out[i] = row[i];
}

typedef float Pixel __attribute__((vector_size(16), aligned(4)));  // red, green, blue, and whatever follows

// The taps of one axis with as many for each output position: the loops over them are short, and unrolled.
struct Across {
    int count = 1;
    std::vector<int> firsts;  // values into a row that starts at the first pixel needed
    std::vector<float> weights;

    void set(const Taps& taps) {
        count = 1;
        for (const Taps::Span& span : taps.spans) count = std::max(count, span.count);
        firsts.clear(), weights.assign(taps.spans.size() * count, 0.0f);
        float* weight = weights.data();
        for (const Taps::Span& span : taps.spans) {
            const int before = std::max(0, span.first + count - taps.end);  // zeros come first where the row ends
            firsts.push_back(span.count ? 3 * (span.first - before - taps.first) : 0);
            std::copy_n(taps.weights.begin() + span.at, span.count, weight + before);
            weight += count;
        }
    }
};

template <int COUNT> ALWAYS_INLINE void weigh(const float* row, const Across& across, float* out) {
    const int count = COUNT ? COUNT : across.count;
    const float* weight = across.weights.data();
    for (const int first : across.firsts) {
        const float* pixel = row + first;
        Pixel sum = {0, 0, 0, 0};
        for (int i = 0; i < count; ++i) sum += weight[i] * *reinterpret_cast<const Pixel*>(pixel + 3 * i);
        *reinterpret_cast<Pixel*>(out) = sum;
        out += 3, weight += count;
    }
}

// `out` and `row` have room for one more value than their pixels.
CLONES void resample_across(const float* __restrict row, const Across& across, float* __restrict out) {
    switch (across.count) {
        case 1: return weigh<1>(row, across, out);
        case 2: return weigh<2>(row, across, out);
        case 3: return weigh<3>(row, across, out);
        case 4: return weigh<4>(row, across, out);
        case 5: return weigh<5>(row, across, out);
        case 6: return weigh<6>(row, across, out);
        default: return weigh<0>(row, across, out);
    }
}

constexpr int BLOCK = 16;
typedef float Block __attribute__((vector_size(4 * BLOCK), aligned(4)));

// PIL keeps whole grey levels between its two passes. `values` have room up to a multiple of BLOCK. (GCC makes branches of a loop over single values.)
CLONES void to_levels(float* values, int count) {
    typedef int32_t Whole __attribute__((vector_size(4 * BLOCK)));
    for (int at = 0; at < count; at += BLOCK) {
        Block level = *reinterpret_cast<Block*>(values + at);
        level = level > 0.0f ? level : Block{};
        level = level < 255.0f ? level : Block{} + 255.0f;
        *reinterpret_cast<Block*>(values + at) = __builtin_convertvector(__builtin_convertvector(level + 0.5f, Whole), Block);
    }
}

// The weighted sum of `taps` rows of `count` values; all have room up to a multiple of BLOCK.
CLONES void resample_down(const float* const* rows, const float* weights, int taps, int count, float* __restrict out) {
    for (int at = 0; at < count; at += BLOCK) {
        Block sum = {};
        for (int tap = 0; tap < taps; ++tap) sum += weights[tap] * *reinterpret_cast<const Block*>(rows[tap] + at);
        *reinterpret_cast<Block*>(out + at) = sum;
    }
}

CLONES void to_bytes(const float* __restrict values, uint8_t* __restrict out, int count) {
    for (int i = 0; i < count; ++i) out[i] = uint8_t(int32_t(std::min(std::max(values[i], 0.0f), 255.0f) + 0.5f));
}

// The buffers of one thread.
struct Work {
    std::vector<float> wide, ring, sums;
    std::vector<const float*> rows;
    Across across;
};

// Writes the box to out, (size, size, 3). `next` gives the source row after the last one, from `box.down.first` on, cut to `box.across`; null if it fails.
template <class Next> bool resample(const Box& box, int size, bool levels, Next next, Work& work, uint8_t* out) {
    const int values = 3 * size, room = values + BLOCK, source = 3 * (box.across.end - box.across.first);
    work.across.set(box.across);
    int longest = 1;
    for (const Taps::Span& span : box.down.spans) longest = std::max(longest, span.count);
    work.wide.resize(source + BLOCK), work.sums.resize(room), work.rows.resize(longest), work.ring.resize(size_t(longest) * room);
    int read = box.down.first;
    for (const Taps::Span& span : box.down.spans) {
        for (; span.count && read < span.first + span.count; ++read) {
            const uint8_t* row = next();
            if (!row) return false;
            if (read < span.first) continue;
            float* kept = &work.ring[size_t(read % longest) * room];
            widen(row, work.wide.data(), source);
            resample_across(work.wide.data(), work.across, kept);
            if (levels) to_levels(kept, values);
        }
        for (int i = 0; i < span.count; ++i) work.rows[i] = &work.ring[size_t((span.first + i) % longest) * room];
        resample_down(work.rows.data(), box.down.weights.data() + span.at, span.count, values, work.sums.data());
        to_bytes(work.sums.data(), out, values);
        out += values;
    }
    return true;
}

bool fill_row(const uint8_t* file, const uint8_t* starts_file, const Row& row, int size, Filter filter, bool scaled, Work& work, uint8_t* out) {
    const int denominator = scaled && row.mode == JPG && !row.whole ? coarsest(row, size) : 1;
    Box box = box_of(row, size, filter, denominator);
    if (row.flip) mirror(box.across);
    if (!box.down.end || !box.across.end) return std::memset(out, 0, size_t(3) * size * size) != nullptr;  // all of it lies outside of the image
    const uint8_t* content = file + row.ptr;
    const bool levels = filter != AREA;
    if (row.mode == RAW) {
        const size_t length = size_t(3) * row.width;
        const uint8_t* at = content + length * box.down.first + 3 * box.across.first;
        return resample(box, size, levels, [&] { return (at += length) - length; }, work, out);
    }
    JpegRows rows(content, size_t(row.size));
    const Starts* starts = starts_file && row.starts ? reinterpret_cast<const Starts*>(starts_file + row.starts) : nullptr;
    if (!rows.start(row.height, row.width, denominator, box.down.first, box.across.first, box.across.end, starts ? starts->first : nullptr,
                    starts ? int(starts->count) : 0))
        return false;
    return resample(box, size, levels, [&] { return rows.next(); }, work, out) && rows.sound();
}

CLONES void normalise_image(const uint8_t* __restrict image, int64_t pixels, const float* mean, const float* deviation, float* __restrict out) {
    for (int channel = 0; channel < 3; ++channel) {
        const float m = mean[channel], d = deviation[channel];
        for (int64_t i = 0; i < pixels; ++i) out[channel * pixels + i] = (float(image[3 * i + channel]) - m) / d;
    }
}

}  // namespace

extern "C" {

int64_t vssm_row_bytes() { return sizeof(Row); }

// Grows with every change of a function's arguments; jobs/data/decoding.py has the same number.
int64_t vssm_version() { return 3; }

// Fills out, (count, size, size, 3), with the images of `rows`. starts: null, or the content of their file. Returns the number of a damaged one, or -1.
int64_t vssm_fill(const uint8_t* file, const uint8_t* starts, const void* rows, int64_t count, int64_t size, int64_t filter, int64_t scaled,
                  int64_t threads, uint8_t* out) {
    int64_t damaged = -1;
#pragma omp parallel num_threads(int(threads)) if (threads > 1) reduction(max : damaged)
    {
        Work work;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < count; ++i)
            if (!fill_row(file, starts, static_cast<const Row*>(rows)[i], int(size), Filter(filter), scaled, work, out + i * size * size * 3))
                damaged = i;
    }
    return damaged;
}

// Writes where the rows of MCUs of a JPEG start. Returns their number, 0 where they cannot be known or are more than `room`.
int64_t vssm_row_starts(const uint8_t* jpeg, int64_t bytes, int64_t room, void* starts) {
    return JpegRows(jpeg, size_t(bytes)).find_starts(static_cast<RowStart*>(starts), int(room));
}

// images (count, pixels, 3) to out (count, 3, pixels): (value - mean) / deviation, in fp32.
void vssm_normalise(const uint8_t* images, int64_t count, int64_t pixels, const float* mean, const float* deviation, int64_t threads, float* out) {
#pragma omp parallel for num_threads(int(threads)) if (threads > 1)
    for (int64_t i = 0; i < count; ++i) normalise_image(images + i * pixels * 3, pixels, mean, deviation, out + i * pixels * 3);
}
}
