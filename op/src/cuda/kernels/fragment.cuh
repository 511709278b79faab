// 32x32 tiles of a product LᵀR, one to a warp, in two ways: by multiply-add, and by tensor cores.
//
// `multiply` adds the products of CHUNK rows of L and R, which lie in shared memory in rows of LD numbers: 8 more than a multiple of 32,
// which keeps the accesses free of bank conflicts. Each chunk is summed by itself first, which keeps long sums accurate.
#pragma once

#include "platform.cuh"

constexpr int CHUNK = 16;
constexpr int WARP_TILE = 32;

// A lane has 4 rows and twice 4 columns.
template <class R>
struct MultiplyAdd {
    static constexpr int PAIRS = 16;
    R at[2 * PAIRS];
    int first_row, first_column;

    DEVICE MultiplyAdd(int row, int column) {
        const int lane = threadIdx.x % 32;
        first_row = row + lane / 4 * 4;
        first_column = column + lane % 4 * 4;
        UNROLL
        for (int i = 0; i < 2 * PAIRS; i++) at[i] = 0;
    }
    DEVICE int row(int pair) const { return first_row + pair / 4; }
    DEVICE int column(int pair) const { return first_column + pair / 2 % 2 * 16 + pair % 2 * 2; }

    template <int LD>
    DEVICE void multiply(const R* left, const R* right) {
        const int lane = threadIdx.x % 32;
        R sum[2 * PAIRS];
        UNROLL
        for (int i = 0; i < 2 * PAIRS; i++) sum[i] = 0;
        UNROLL
        for (int k = 0; k < CHUNK; k++) {
            const Four<R> a = *reinterpret_cast<const Four<R>*>(left + k * LD + lane / 4 * 4);
            const Four<R> b[2] = {*reinterpret_cast<const Four<R>*>(right + k * LD + lane % 4 * 4),
                                  *reinterpret_cast<const Four<R>*>(right + k * LD + lane % 4 * 4 + 16)};
            UNROLL
            for (int i = 0; i < 2 * PAIRS; i++) sum[i] = fused(a.at[i / 8], b[i / 4 % 2].at[i % 4], sum[i]);
        }
        UNROLL
        for (int i = 0; i < 2 * PAIRS; i++) at[i] += sum[i];
    }
};

#if ISQRT_TIER >= 80
// A float32 number as the sum of two that tensor cores take whole. What is left out is less than 2^-23 of it.
struct Split {
    unsigned high, low;

    DEVICE explicit Split(float number) {
        high = (bits_of(number) + 0x1000u) & 0xffffe000u;
        low = bits_of(number - float_of(high));
    }
};

// Three products of halves for each product of two numbers: float32 accuracy. Tensor cores round sums toward zero, so that no more than a
// chunk is summed there.
struct TensorCores {
    static constexpr int PAIRS = 16;
    float at[2 * PAIRS];  // of the 16x8 tiles in rows m and columns n: m * 16 + n * 4 + what `multiply_tf32` numbers
    int first_row, first_column;

    DEVICE TensorCores(int row, int column) {
        const int lane = threadIdx.x % 32;
        first_row = row + lane / 4;
        first_column = column + lane % 4 * 2;
        UNROLL
        for (int i = 0; i < 2 * PAIRS; i++) at[i] = 0;
    }
    DEVICE int row(int pair) const { return first_row + pair / 8 * 16 + pair % 2 * 8; }
    DEVICE int column(int pair) const { return first_column + pair / 2 % 4 * 8; }

    template <int LD>
    DEVICE void multiply(const float* left, const float* right) {
        const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        float sum[2][4][4];
        UNROLL
        for (int i = 0; i < 2 * PAIRS; i++) sum[i / 16][i / 4 % 4][i % 4] = 0;
        UNROLL
        for (int k = 0; k < CHUNK; k += 8) {
            unsigned a[2][2][4], b[2][4][2];  // high and low halves
            UNROLL
            for (int i = 0; i < 8; i++) {
                const Split split(left[(k + t + i % 4 / 2 * 4) * LD + i / 4 * 16 + g + i % 2 * 8]);
                a[0][i / 4][i % 4] = split.high;
                a[1][i / 4][i % 4] = split.low;
            }
            UNROLL
            for (int i = 0; i < 8; i++) {
                const Split split(right[(k + t + i % 2 * 4) * LD + i / 2 * 8 + g]);
                b[0][i / 2][i % 2] = split.high;
                b[1][i / 2][i % 2] = split.low;
            }
            UNROLL
            for (int part = 0; part < 3; part++) {
                UNROLL
                for (int m = 0; m < 2; m++) {
                    UNROLL
                    for (int n = 0; n < 4; n++) multiply_tf32(sum[m][n], a[part == 0][m], b[part == 1][n]);
                }
            }
        }
        UNROLL
        for (int i = 0; i < 2 * PAIRS; i++) at[i] += sum[i / 16][i / 4 % 4][i % 4];
    }
};
#endif

// The way that a tier takes.
template <class R>
struct Chosen {
    typedef MultiplyAdd<R> Fragment;
};
#if ISQRT_TIER >= 80
template <>
struct Chosen<float> {
    typedef TensorCores Fragment;
};
#endif
