// What is made of a new symmetric matrix, by a warp that has a 32x32 tile of it in shared memory.
//
// In loops with little code: what is run once is fetched at the speed of the cache for instructions, and slowly.
#pragma once

#include "arguments.cuh"
#include "operand.cuh"

// Rows that a lane has at a time.
template <class R>
constexpr int GROUP = sizeof(R) == 4 ? 16 : 8;
// The shared memory of a warp: the tile, and as many rows of a factor, in numbers.
constexpr int FACTOR_LD = WARP_TILE + 2;
template <class R>
constexpr int WARP_ROOM = WARP_TILE * TILE_LD + GROUP<R> * FACTOR_LD;

// Keeps the tile from `first_row` and `first_column` on and makes the factors of the next product. `room` has the tile, of all lanes.
//
// Where the matrix is P, A = (P + shift I) inverse takes its place first. The inverse comes in two parts, so that its own rounding does not
// shift every entry the same way. An entry of a place is read and written by the same lane, which is why a matrix may take the place of one
// that is read here for the last time.
template <class A, class R>
DEVICE void finish(const Epilogue<R>& epilogue, const Scale* scale, int64 sample, int first_row, int first_column, R* room) {
    constexpr int ROWS = GROUP<R>;
    const int side = epilogue.side, ld = epilogue.ld, lane = threadIdx.x % 32, column = first_column + lane;
    const int64 matrix = sample * side * ld;
    R* matrices = epilogue.places + matrix;
    R* own = matrices + epilogue.place * epilogue.place_stride;
    R* factor_rows = room + WARP_TILE * TILE_LD;
    R inverse = 1, rest = 0, shift = 0;
    if (scale) {
        inverse = R(scale->inverse);
        rest = R(scale->inverse - double(inverse));
        shift = R(scale->shift);
    }
    _Pragma("unroll 1")
    for (int first = 0; first < WARP_TILE; first += ROWS) {
        const int begin = first_row + first;
        // Rows that this lane's column has in the upper triangle.
        const int last = column < side ? column : -1;
        R* tile = room + first * TILE_LD + lane;
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            R value = tile[i * TILE_LD];
            if (scale) {
                if (begin + i == column) value += shift;
                value = fused(inverse, value, rest * value);
                tile[i * TILE_LD] = value;
            }
            if (epilogue.keep && begin + i <= last) own[(begin + i) * ld + column] = value;
        }
        _Pragma("unroll 1")
        for (int side_of = 0; side_of < 2; side_of++) {
            R* out = epilogue.out[side_of];
            if (!out) continue;
            R sum[ROWS];
            UNROLL
            for (int i = 0; i < ROWS; i++) {
                const R identity = begin + i == column ? epilogue.identity[side_of] : R(0);
                sum[i] = fused(epilogue.own[side_of], tile[i * TILE_LD], identity);
            }
            _Pragma("unroll 1")
            for (int term = 0; term < epilogue.terms; term++) {
                const R factor = epilogue.factors[side_of][term];
                if (factor == 0) continue;
                const R* from = matrices + epilogue.places_read[term] * epilogue.place_stride + begin * ld + column;
                R entries[ROWS];
                UNROLL
                for (int i = 0; i < ROWS; i++) entries[i] = begin + i <= last ? from[i * ld] : R(0);
                UNROLL
                for (int i = 0; i < ROWS; i++) sum[i] = fused(factor, entries[i], sum[i]);
            }
            out += matrix;
            UNROLL
            for (int i = 0; i < ROWS; i++) {
                if (begin + i <= last) A::put(out, side, ld, begin + i, column, sum[i]);
                factor_rows[i * FACTOR_LD + lane] = sum[i];
            }
            warp_sync();
            // The same entries in the lower triangle, along its rows.
            const int row = begin + lane % ROWS;
            _Pragma("unroll 4")
            for (int i = 0; i < ROWS; i++) {
                const int across = i * (WARP_TILE / ROWS) + lane / ROWS;
                if (row < first_column + across && first_column + across < side) {
                    A::put(out, side, ld, first_column + across, row, factor_rows[lane % ROWS * FACTOR_LD + across]);
                }
            }
            warp_sync();
        }
    }
}
