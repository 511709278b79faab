// Element types as they lie in tensors, converted in software to the bit as a GPU converts them, and the arithmetic of its tensor cores.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

typedef long long int64;

struct f16 {
    unsigned short bits;
};
struct bf16 {
    unsigned short bits;
};

inline unsigned bits_of(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float float_of(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(bf16 x) { return float_of(static_cast<unsigned>(x.bits) << 16); }
inline float widen(f16 x) {
    unsigned sign = (x.bits & 0x8000u) << 16, exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023u;
    if (exponent == 31) return float_of(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) {
        float small = static_cast<float>(mantissa) * 0x1p-24f;
        return sign ? -small : small;
    }
    return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

inline void narrow(float x, float& to) { to = x; }
inline void narrow(double x, double& to) { to = x; }
inline void narrow(float x, bf16& to) {
    unsigned bits = bits_of(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        to.bits = 0x7fff;
    } else {
        to.bits = static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    }
}
inline void narrow(float x, f16& to) {
    unsigned bits = bits_of(x), sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    unsigned found;
    if (bits > 0x7f800000u) {
        found = 0x7fff;
        sign = 0;
    } else if (bits >= 0x477ff000u) {
        found = 0x7c00;  // 65520, halfway to where 2^16 would be, and beyond
    } else if (bits < 0x38800000u) {
        // Below 2^-14 the numbers are multiples of 2^-24: those of float at 1/2, where addition rounds to nearest even.
        found = bits_of(float_of(bits) + 0.5f) - bits_of(0.5f);
    } else {
        found = (bits - 0x38000000u + 0xfffu + (bits >> 13 & 1)) >> 13;
    }
    to.bits = static_cast<unsigned short>(sign | found);
}

inline float fused(float a, float b, float c) { return fmaf(a, b, c); }
inline double fused(double a, double b, double c) { return fma(a, b, c); }

// CUDA's take arguments of two types as well.
template <class A, class B>
inline std::common_type_t<A, B> min(A a, B b) {
    static_assert(std::is_arithmetic_v<A> && std::is_arithmetic_v<B>);
    using T = std::common_type_t<A, B>;
    return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
}
template <class A, class B>
inline std::common_type_t<A, B> max(A a, B b) {
    static_assert(std::is_arithmetic_v<A> && std::is_arithmetic_v<B>);
    using T = std::common_type_t<A, B>;
    return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}

namespace shim {

// The two float16 numbers of a register.
inline float lower_half(unsigned bits) { return widen(f16{static_cast<unsigned short>(bits)}); }
inline float upper_half(unsigned bits) { return widen(f16{static_cast<unsigned short>(bits >> 16)}); }

// Rounded toward zero, as sums in tensor cores are: never better than a GPU's, and biased as those are.
inline float toward_zero(double sum) {
    float nearest = static_cast<float>(sum);
    return float_of(bits_of(nearest) - (fabs(static_cast<double>(nearest)) > fabs(sum)));
}

}  // namespace shim
