// 16x32 tiles of a product LᵀR, one to a warp, in two ways: by multiply-add, and by tensor cores.
//
// `multiply` adds the products of CHUNK rows of L and R in shared memory. Each chunk is summed by itself first, which keeps long sums accurate.
// `store` writes the tile to shared memory, row by row.
#pragma once

#include "platform.cuh"

constexpr int CHUNK = 16;
constexpr int TILE_ROWS = 16;
constexpr int TILE_COLUMNS = 32;
// Numbers from row to row of a tile in shared memory.
constexpr int TILE_LD = TILE_COLUMNS + 4;

// A lane has 2 rows and twice 4 columns. Rows of L and R are STRIDE bytes apart.
template <class R>
struct MultiplyAdd {
    R at[16];

    DEVICE MultiplyAdd() {
        UNROLL
        for (int i = 0; i < 16; i++) at[i] = 0;
    }

    template <int STRIDE>
    DEVICE void multiply(const unsigned char* left, const unsigned char* right) {
        const int lane = threadIdx.x % 32;
        R sum[16];
        UNROLL
        for (int i = 0; i < 16; i++) sum[i] = 0;
        UNROLL
        for (int k = 0; k < CHUNK; k++) {
            const R* row = reinterpret_cast<const R*>(left + k * STRIDE) + lane / 4 * 2;
            const R* column = reinterpret_cast<const R*>(right + k * STRIDE) + lane % 4 * 4;
            const Two<R> a = *reinterpret_cast<const Two<R>*>(row);
            const Four<R> b[2] = {*reinterpret_cast<const Four<R>*>(column), *reinterpret_cast<const Four<R>*>(column + 16)};
            UNROLL
            for (int i = 0; i < 16; i++) sum[i] = fused(a.at[i / 8], b[i / 4 % 2].at[i % 4], sum[i]);
        }
        UNROLL
        for (int i = 0; i < 16; i++) at[i] += sum[i];
    }

    DEVICE void store(R* tile) const {
        const int lane = threadIdx.x % 32;
        UNROLL
        for (int i = 0; i < 16; i++) tile[(lane / 4 * 2 + i / 8) * TILE_LD + i / 4 % 2 * 16 + lane % 4 * 4 + i % 4] = at[i];
    }
};

#if ISQRT_TIER >= 80
// Three products of halves for each product of two numbers: float32 accuracy. Tensor cores round sums toward zero, so that no more than a
// chunk is summed there. L and R are panels as `Halves` lays them out; `left` begins at one of the panel's two halves.
struct TensorCores {
    float at[16];  // of the 16x8 tiles in columns n: n * 4 + what `multiply_f16` numbers

    DEVICE TensorCores() {
        UNROLL
        for (int i = 0; i < 16; i++) at[i] = 0;
    }

    DEVICE void multiply(const unsigned char* left, int half, const unsigned char* right, float scale) {
        const int lane = threadIdx.x % 32, eighth = lane / 8, line = lane % 8;
        // 8x8 matrices: of L first along the tile's rows, then along the sum; of R the other way round.
        const unsigned char* left_row = left + (eighth / 2 * 8 + line) * 128;
        const unsigned char* right_row = right + (eighth % 2 * 8 + line) * 128;
        const int left_unit = (half * 2 + eighth % 2) ^ line, right_unit = (eighth / 2) ^ line;
        unsigned a[2][4], b[2][2][4];  // high and low halves
        UNROLL
        for (int part = 0; part < 2; part++) {
            load_transposed(a[part], left_row + ((left_unit ^ (part * 4)) << 4));
            UNROLL
            for (int i = 0; i < 2; i++) load_transposed(b[part][i], right_row + ((right_unit ^ (part * 4 + i * 2)) << 4));
        }
        float sum[4][4];
        const float zero[4] = {};
        UNROLL
        for (int term = 0; term < 3; term++) {
            UNROLL
            for (int n = 0; n < 4; n++) {
                const unsigned column[2] = {b[term == 1][n / 2][n % 2 * 2], b[term == 1][n / 2][n % 2 * 2 + 1]};
                if (term == 0) {
                    multiply_f16(sum[n], a[1], column, zero);
                } else {
                    multiply_f16(sum[n], a[0], column, sum[n]);
                }
            }
        }
        UNROLL
        for (int i = 0; i < 16; i++) at[i] = fused(scale, sum[i / 4][i % 4], at[i]);
    }

    DEVICE void store(float* tile) const {
        const int lane = threadIdx.x % 32;
        UNROLL
        for (int i = 0; i < 16; i++) tile[(i % 4 / 2 * 8 + lane / 4) * TILE_LD + i / 4 * 8 + lane % 4 * 2 + i % 2] = at[i];
    }
};
#endif
