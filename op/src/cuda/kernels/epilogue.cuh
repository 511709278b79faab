// What is made of a new symmetric matrix, by a warp that has a 32x32 tile of it in shared memory.
//
// In loops with little code: what is run once is fetched at the speed of the cache for instructions, and slowly.
#pragma once

#include "arguments.cuh"
#include "operand.cuh"

// Rows that a lane has at a time, and matrices on their way to it together: as long as one takes, all of them take.
template <class R>
constexpr int GROUP = sizeof(R) == 4 ? 16 : 8;
constexpr int TOGETHER = 6;
// The shared memory of a warp's tile, in numbers.
constexpr int WARP_ROOM = WARP_TILE * TILE_LD;

// Keeps the tile from `first_row` and `first_column` on and makes the factors of the next product. `room` has the tile, of all lanes.
//
// Where the matrix is P, A = (P + shift I) inverse takes its place first. The inverse comes in two parts, so that its own rounding does not
// shift every entry the same way. A tile on the diagonal is made symmetric. An entry of a place is read and written by the same lane, which
// is why a matrix may take the place of one that is read here for the last time.
template <class A, class R>
DEVICE void finish(const Epilogue<R>& epilogue, const Scale* scale, int64 sample, int first_row, int first_column, R* room) {
    constexpr int ROWS = GROUP<R>;
    const int side = epilogue.side, ld = epilogue.ld, lane = threadIdx.x % 32, column = first_column + lane;
    const int64 matrix = sample * side * ld;
    const bool diagonal = first_row == first_column, inside = column < side;
    R inverse = 1, rest = 0, shift = 0;
    if (scale) {
        inverse = R(scale->inverse);
        rest = R(scale->inverse - double(inverse));
        shift = R(scale->shift);
    }
    if (scale || diagonal) {
        _Pragma("unroll 8")
        for (int line = 0; line < WARP_TILE; line++) {
            R value = diagonal && line > lane ? room[lane * TILE_LD + line] : room[line * TILE_LD + lane];
            if (scale) {
                // Of an entry below the diagonal the one above it has been done.
                if (diagonal && line == lane) value += shift;
                if (!(diagonal && line > lane)) value = fused(inverse, value, rest * value);
            }
            room[line * TILE_LD + lane] = value;
            // Rows come in order: what lies above the diagonal in a row is there for the columns that follow.
            if (diagonal) warp_sync();
        }
    }
    R* places = epilogue.places + matrix + first_row * ld + column;
    _Pragma("unroll 1")
    for (int first = 0; first < WARP_TILE; first += ROWS) {
        // Rows of the matrix that there are.
        const int rows = inside ? side - first_row - first : 0;
        const R* tile = room + first * TILE_LD + lane;
        if (epilogue.keep) {
            R* own = places + epilogue.place * epilogue.place_stride + first * ld;
            UNROLL
            for (int i = 0; i < ROWS; i++) {
                if (i < rows) own[i * ld] = tile[i * TILE_LD];
            }
        }
        _Pragma("unroll 1")
        for (int number = 0; number < 2; number++) {
            R* out = epilogue.out[number];
            if (!out) continue;
            out += matrix;
            R sum[ROWS];
            const R identity = epilogue.identity[number], own = epilogue.own[number];
            UNROLL
            for (int i = 0; i < ROWS; i++) {
                sum[i] = fused(own, tile[i * TILE_LD], first_row + first + i == column ? identity : R(0));
            }
            _Pragma("unroll 1")
            for (int begin = 0; begin < epilogue.terms; begin += TOGETHER) {
                R entries[TOGETHER][ROWS], factors[TOGETHER];
                UNROLL
                for (int term = 0; term < TOGETHER; term++) {
                    factors[term] = begin + term < epilogue.terms ? epilogue.factors[number][begin + term] : R(0);
                    const R* from = places + epilogue.places_read[begin + term] * epilogue.place_stride + first * ld;
                    const int there = factors[term] != 0 ? rows : 0;
                    UNROLL
                    for (int i = 0; i < ROWS; i++) entries[term][i] = i < there ? from[i * ld] : R(0);
                }
                UNROLL
                for (int term = 0; term < TOGETHER; term++) {
                    UNROLL
                    for (int i = 0; i < ROWS; i++) sum[i] = fused(factors[term], entries[term][i], sum[i]);
                }
            }
            const typename A::Column to(out, side, ld, first_row + first, column);
            UNROLL
            for (int i = 0; i < ROWS; i++) {
                if (i < rows) to.put(i, sum[i]);
            }
            // The same entries in the lower triangle: neighbors of a row there.
            if (diagonal || !inside) continue;
            UNROLL
            for (int i = 0; i < ROWS; i += 8) {
                const R values[8] = {sum[i], sum[i + 1], sum[i + 2], sum[i + 3], sum[i + 4], sum[i + 5], sum[i + 6], sum[i + 7]};
                A::put(out, side, ld, column, first_row + first + i, values);
            }
        }
    }
}
