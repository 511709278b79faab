// 32x32 tiles of a product LᵀR, one to a warp, in two ways: by multiply-add, and by tensor cores.
//
// `multiply` adds the products of CHUNK rows of L and R in shared memory. Each chunk is summed by itself first, which keeps long sums accurate.
#pragma once

#include "platform.cuh"

constexpr int CHUNK = 16;
constexpr int WARP_TILE = 32;

// Rows of an operand in shared memory, from some column on.
struct Rows {
    const unsigned char* at;
    int stride;  // bytes from row to row
    int plane;   // and from plane to plane
};

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

    DEVICE void multiply(const Rows& left, const Rows& right, R) {
        const int lane = threadIdx.x % 32;
        R sum[2 * PAIRS];
        UNROLL
        for (int i = 0; i < 2 * PAIRS; i++) sum[i] = 0;
        UNROLL
        for (int k = 0; k < CHUNK; k++) {
            const R* row = reinterpret_cast<const R*>(left.at + k * left.stride) + lane / 4 * 4;
            const R* column = reinterpret_cast<const R*>(right.at + k * right.stride) + lane % 4 * 4;
            const Four<R> a = *reinterpret_cast<const Four<R>*>(row);
            const Four<R> b[2] = {*reinterpret_cast<const Four<R>*>(column), *reinterpret_cast<const Four<R>*>(column + 16)};
            UNROLL
            for (int i = 0; i < 2 * PAIRS; i++) sum[i] = fused(a.at[i / 8], b[i / 4 % 2].at[i % 4], sum[i]);
        }
        UNROLL
        for (int i = 0; i < 2 * PAIRS; i++) at[i] += sum[i];
    }
};

#if ISQRT_TIER >= 80
// Three products of halves for each product of two numbers: float32 accuracy. Tensor cores round sums toward zero, so that no more than a
// chunk is summed there.
struct TensorCores {
    static constexpr int PAIRS = 16;
    float at[2 * PAIRS];  // of the 16x8 tiles in rows m and columns n: m * 16 + n * 4 + what `multiply_f16` numbers
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

    DEVICE void multiply(const Rows& left, const Rows& right, float scale) {
        const int lane = threadIdx.x % 32, eighth = lane / 8, line = lane % 8;
        unsigned a[2][2][4], b[2][2][4];  // high and low halves
        UNROLL
        for (int part = 0; part < 2; part++) {
            UNROLL
            for (int i = 0; i < 2; i++) {
                // 8x8 matrices: rows first, then along the sum; and of b the other way round.
                load_transposed(a[part][i], left.at + part * left.plane + (eighth / 2 * 8 + line) * left.stride + (i * 16 + eighth % 2 * 8) * 2);
                load_transposed(b[part][i], right.at + part * right.plane + (eighth % 2 * 8 + line) * right.stride + (i * 16 + eighth / 2 * 8) * 2);
            }
        }
        float sum[2][4][4];
        UNROLL
        for (int i = 0; i < 2 * PAIRS; i++) sum[i / 16][i / 4 % 4][i % 4] = 0;
        UNROLL
        for (int term = 0; term < 3; term++) {
            UNROLL
            for (int m = 0; m < 2; m++) {
                UNROLL
                for (int n = 0; n < 4; n++) {
                    const unsigned column[2] = {b[term == 1][n / 2][n % 2 * 2], b[term == 1][n / 2][n % 2 * 2 + 1]};
                    multiply_f16(sum[m][n], a[term == 0][m], column);
                }
            }
        }
        UNROLL
        for (int i = 0; i < 2 * PAIRS; i++) at[i] = fused(scale, sum[i / 16][i / 4 % 4][i % 4], at[i]);
    }
};
#endif
