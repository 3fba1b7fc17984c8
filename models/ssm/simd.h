// Vectors of channels and the few functions of them that the kernels need, in the vector extensions that GCC (12 or newer) and clang share.
// The build compiles each kernel three times (AVX-512, AVX2, the compiler's default) and `models.ssm.kernel` picks one by the CPU's flags.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__AVX512F__) || defined(__SSE2__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

template <class T> struct Lanes;
template <> struct Lanes<float> {
    typedef float Vec __attribute__((vector_size(VECTOR_BYTES)));
    typedef int32_t Int __attribute__((vector_size(VECTOR_BYTES)));
};
template <> struct Lanes<double> {
    typedef double Vec __attribute__((vector_size(VECTOR_BYTES)));
    typedef int64_t Int __attribute__((vector_size(VECTOR_BYTES)));
};
template <class T> using Vec = typename Lanes<T>::Vec;
template <class T> constexpr int WIDTH = VECTOR_BYTES / sizeof(T);
using Float = Vec<float>;
using Double = Vec<double>;

// Tiny values decay into denormals, which cost a hundred cycles each on some CPUs; inside a kernel they are zero.
struct FlushDenormals {
#if defined(__SSE2__)
    unsigned saved = _mm_getcsr();
    FlushDenormals() { _mm_setcsr(saved | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(saved); }
#endif
};

// ---- exp, sigmoid, softplus ---------------------------------------------------------------------------------------------------------------------

#if defined(__AVX512F__)
// In sixteenths: 2^x = 2^floor(k) 2^(k - floor(k)) 2^f with k a multiple of 1/16 and |f| <= 1/32. The second factor comes from a table by the low
// bits of k, which an addition of SIXTEENTHS leaves at the end of the significand; the third needs three terms for 1e-9.
constexpr float SIXTEENTHS = 786432.0f;  // 1.5 * 2^19
INLINE Float exp2_of_parts(Float shifted, Float f) {
    const Float roots = {1.0f, 1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f, 1.29683955f, 1.35425555f,
                         1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f, 1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f};
    const Float root = (Float)_mm512_permutexvar_ps((__m512i)shifted, (__m512)roots);
    const Float y = root + root * (f * (f * (f * 5.550410866e-2f + 2.402265070e-1f) + 6.931471806e-1f));
    return (Float)_mm512_scalef_ps((__m512)y, (__m512)(shifted - SIXTEENTHS));
}
INLINE Float exp2(Float x) {
    const Float shifted = x + SIXTEENTHS;
    return exp2_of_parts(shifted, x - (shifted - SIXTEENTHS));
}
// e^x to about 1 ulp: log2(e) in two parts, the first exact in a fused product and difference.
INLINE Float exp(Float x) {
    const Float low = Float{} - 87.0f, high = Float{} + 88.0f;
    x = (Float)_mm512_min_ps((__m512)high, _mm512_max_ps((__m512)low, (__m512)x));  // in this order a NaN stays a NaN
    const Float shifted = x * 1.44269504f + SIXTEENTHS;
    return exp2_of_parts(shifted, (x * 1.44269504f - (shifted - SIXTEENTHS)) + x * 1.92596299e-8f);
}
#else
// 2^f for f in [-0.5, 0.5]: minimax polynomial, 1.9e-9 relative before rounding.
INLINE Float exp2_of_fraction(Float f) {
    Float p = f * 1.534581187e-4f + 1.339993122e-3f;
    p = p * f + 9.618488958e-3f;
    p = p * f + 5.550328777e-2f;
    p = p * f + 2.402264689e-1f;
    p = p * f + 6.931472057e-1f;
    return p * f + 1.0f;
}
constexpr float ROUNDING = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the significand
INLINE Float rounded(Float x) { return (x + ROUNDING) - ROUNDING; }
INLINE Float times_power_of_2(Float p, Float k) {
    typedef Lanes<float>::Int Int;
    return (Float)((Int)p + ((Int)(k + ROUNDING) << 23));
}
INLINE Float clamped(Float x, float low, float high) {
    x = x < low ? Float{} + low : x;  // in this order a NaN stays a NaN
    return x > high ? Float{} + high : x;
}
INLINE Float exp2(Float x) {
    x = clamped(x, -126.0f, 127.0f);
    const Float k = rounded(x);
    return times_power_of_2(exp2_of_fraction(x - k), k);
}
// e^x to about 1 ulp: ln 2 in two parts, the first exact in products with k.
INLINE Float exp(Float x) {
    x = clamped(x, -87.0f, 88.0f);
    const Float k = rounded(x * 1.44269504088896341f);
    const Float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    return times_power_of_2(exp2_of_fraction(r * 1.44269504088896341f), k);
}
#endif
INLINE Double exp2(Double x) {
    Double y;
    for (int i = 0; i < WIDTH<double>; i++) y[i] = std::exp2(x[i]);
    return y;
}

INLINE Double exp(Double x) {
    Double y;
    for (int i = 0; i < WIDTH<double>; i++) y[i] = std::exp(x[i]);
    return y;
}

template <class V> INLINE V sigmoid(V x) { return 1 / (1 + exp(-x)); }

// softplus, log(1 + e^x) = max(x, 0) + log1p(e) with e = e^-|x| in (0, 1], and its slope, the sigmoid. log1p(e) = 2 atanh(s), s = e / (2 + e), by a
// series that has converged to 2e-8 after seven terms. One division serves both; what is not used costs nothing.
INLINE Float softplus(Float x, Float& slope) {
    const Float zero{};
    const Float e = exp(x > zero ? -x : x), inverse = 1.0f / ((e + 1.0f) * (e + 2.0f)), s = e * (e + 1.0f) * inverse, q = s * s;
    slope = (x > zero ? zero + 1.0f : e) * (e + 2.0f) * inverse;
    Float p = q * (1.0f / 13) + 1.0f / 11;
    p = p * q + 1.0f / 9;
    p = p * q + 1.0f / 7;
    p = p * q + 1.0f / 5;
    p = p * q + 1.0f / 3;
    p = p * q + 1.0f;
    return (x > zero ? x : zero) + 2.0f * s * p;
}
INLINE Double softplus(Double x, Double& slope) {
    Double y;
    for (int i = 0; i < WIDTH<double>; i++) {
        y[i] = std::fmax(x[i], 0.0) + std::log1p(std::exp(-std::fabs(x[i])));
        slope[i] = 1 / (1 + std::exp(-x[i]));
    }
    return y;
}

// ---- loads and stores ---------------------------------------------------------------------------------------------------------------------------

struct bfloat16 {
    uint16_t bits;
};
template <class S> using Compute = std::conditional_t<std::is_same_v<S, double>, double, float>;  // what a stored type is computed in

template <class T> INLINE T load(const T* p) { return *p; }
INLINE float load(const bfloat16* p) {
    const uint32_t bits = (uint32_t)p->bits << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
template <class T> INLINE void store(T* p, T x) { *p = x; }
INLINE void store(bfloat16* p, float x) {  // round to nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &x, 4);
    p->bits = x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES)));

template <class T> INLINE Vec<T> load_vector(const T* p) {
    Vec<T> x;
    memcpy(&x, p, VECTOR_BYTES);
    return x;
}
INLINE Float load_vector(const bfloat16* p) {
    Halves bits;
    memcpy(&bits, p, VECTOR_BYTES / 2);
    return (Float)(__builtin_convertvector(bits, Words) << 16);
}
template <class T> INLINE void store_vector(T* p, Vec<T> x) { memcpy(p, &x, VECTOR_BYTES); }
INLINE void store_vector(bfloat16* p, Float x) {
    const Words bits = (Words)x, rounded_up = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Words nan = (Words)(x != x);
    const Halves halves = __builtin_convertvector((nan & 0x7fc0u) | (~nan & rounded_up), Halves);
    memcpy(p, &halves, VECTOR_BYTES / 2);
}

// One stage of a transposition: blocks of `Step` x `Step` change places across the diagonal.
template <int Step, class V, int... I> INLINE V lower_blocks(V a, V b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, ((I & Step) ? I - Step + (int)sizeof...(I) : I)...);
}
template <int Step, class V, int... I> INLINE V upper_blocks(V a, V b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, ((I & Step) ? I + (int)sizeof...(I) : I + Step)...);
}
template <class T, int Step = 1> INLINE void transpose(Vec<T>* rows) {
    if constexpr (Step < WIDTH<T>) {
        constexpr auto lanes = std::make_integer_sequence<int, WIDTH<T>>{};
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH<T>; i++)
            if (!(i & Step)) {
                const Vec<T> a = rows[i], b = rows[i + Step];
                rows[i] = lower_blocks<Step>(a, b, lanes);
                rows[i + Step] = upper_blocks<Step>(a, b, lanes);
            }
        transpose<T, Step * 2>(rows);
    }
}

// Sums over the lanes of `Count` rows, in one vector: lane j holds the sum of row j % Count or, where lanes are left, a part of it, and the other
// parts lie Count lanes further each. A tree in which every step adds two rows into one.
template <class T, int Count, int Step = 1> INLINE Vec<T> merged(const Vec<T>* rows) {
    if constexpr (Count == 1) return rows[0];
    else {
        constexpr auto lanes = std::make_integer_sequence<int, WIDTH<T>>{};
        Vec<T> half[Count / 2];
#pragma GCC unroll 16
        for (int i = 0; i < Count / 2; i++)
            half[i] = lower_blocks<Step>(rows[2 * i], rows[2 * i + 1], lanes) + upper_blocks<Step>(rows[2 * i], rows[2 * i + 1], lanes);
        return merged<T, Count / 2, Step * 2>(half);
    }
}

}  // namespace
