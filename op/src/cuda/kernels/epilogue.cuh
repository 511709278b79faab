// What is made of a new symmetric matrix while its tiles are in registers.
//
// A fragment is a thread's part of a tile: PAIRS pairs of neighbors in a row, `row(i)` and `column(i)` where pair i begins, in the whole
// matrix, and `at[2 * i]`, `at[2 * i + 1]` its numbers.
#pragma once

#include "arguments.cuh"

// Pairs of which at least one entry is in the upper triangle.
DEVICE bool is_upper_pair(int row, int column, int side) { return row < side && column < side && row <= column + 1; }

// Adds up a combination for as many pairs as fit in registers, from pair `begin` on.
template <int COUNT, class R, class Fragment>
DEVICE void combine(const Combination<R>& combination, const Epilogue<R>& epilogue, const R* places, const Fragment& tile, int begin,
                    R (&sum)[2 * COUNT]) {
    UNROLL
    for (int i = 0; i < COUNT; i++) {
        sum[2 * i] = tile.row(begin + i) == tile.column(begin + i) ? combination.identity : R(0);
        sum[2 * i + 1] = tile.row(begin + i) == tile.column(begin + i) + 1 ? combination.identity : R(0);
    }
    for (int term = 0; term < combination.terms; term++) {
        const R factor = combination.factors[term];
        const int place = combination.places[term];
        if (place == epilogue.place) {
            UNROLL
            for (int i = 0; i < 2 * COUNT; i++) sum[i] = fused(factor, tile.at[2 * begin + i], sum[i]);
            continue;
        }
        const R* matrix = places + place * epilogue.place_stride;
        UNROLL
        for (int i = 0; i < COUNT; i++) {
            const int row = tile.row(begin + i), column = tile.column(begin + i);
            if (is_upper_pair(row, column, epilogue.side)) {
                const Two<R> pair = *reinterpret_cast<const Two<R>*>(matrix + int64(row) * epilogue.ld + column);
                sum[2 * i] = fused(factor, pair.at[0], sum[2 * i]);
                sum[2 * i + 1] = fused(factor, pair.at[1], sum[2 * i + 1]);
            }
        }
    }
}

// Writes an upper triangle's numbers there and to the lower one.
template <int COUNT, class R, class Fragment>
DEVICE void mirror(R* out, int side, int ld, const Fragment& tile, int begin, const R (&sum)[2 * COUNT]) {
    UNROLL
    for (int i = 0; i < COUNT; i++) {
        const int row = tile.row(begin + i), column = tile.column(begin + i);
        if (!is_upper_pair(row, column, side)) continue;
        if (row <= column && column + 1 < side) {
            *reinterpret_cast<Two<R>*>(out + int64(row) * ld + column) = {{sum[2 * i], sum[2 * i + 1]}};
        } else if (row <= column) {
            out[int64(row) * ld + column] = sum[2 * i];
        } else if (column + 1 < side) {
            out[int64(row) * ld + column + 1] = sum[2 * i + 1];
        }
        if (row < column) out[int64(column) * ld + row] = sum[2 * i];
        if (row < column + 1 && column + 1 < side) out[int64(column + 1) * ld + row] = sum[2 * i + 1];
    }
}

// Keeps a tile of the new matrix and makes the factors of the next product. Every place is read and written by the same thread, which
// is why a matrix may take the place of one that is read here for the last time.
template <class R, class Fragment>
DEVICE void finish(const Epilogue<R>& epilogue, int64 sample, const Fragment& tile) {
    constexpr int COUNT = Fragment::PAIRS < 8 ? Fragment::PAIRS : 8;
    const int side = epilogue.side, ld = epilogue.ld;
    const int64 matrix = sample * side * ld;
    R* places = epilogue.places + matrix;
    UNROLL
    for (int begin = 0; begin < Fragment::PAIRS; begin += COUNT) {
        R left[2 * COUNT] = {}, right[2 * COUNT] = {};
        if (epilogue.left.out) combine<COUNT>(epilogue.left, epilogue, places, tile, begin, left);
        if (epilogue.right.out) combine<COUNT>(epilogue.right, epilogue, places, tile, begin, right);
        if (epilogue.left.out) mirror<COUNT>(epilogue.left.out + matrix, side, ld, tile, begin, left);
        if (epilogue.right.out) mirror<COUNT>(epilogue.right.out + matrix, side, ld, tile, begin, right);
        if (!epilogue.keep) continue;
        UNROLL
        for (int i = 0; i < COUNT; i++) {
            const int row = tile.row(begin + i), column = tile.column(begin + i);
            if (is_upper_pair(row, column, side)) {
                R* out = places + epilogue.place * epilogue.place_stride + int64(row) * ld + column;
                *reinterpret_cast<Two<R>*>(out) = {{tile.at[2 * (begin + i)], tile.at[2 * (begin + i) + 1]}};
            }
        }
    }
}

// (P + shift I) inverse. The inverse in two parts, so that its own rounding does not shift every entry the same way.
template <class R, class Fragment>
DEVICE void normalize(Fragment& tile, const Scale& scale) {
    const R inverse = R(scale.inverse), rest = R(scale.inverse - double(inverse)), shift = R(scale.shift);
    UNROLL
    for (int i = 0; i < 2 * Fragment::PAIRS; i++) {
        R value = tile.at[i];
        if (tile.row(i / 2) == tile.column(i / 2) + i % 2) value += shift;
        tile.at[i] = fused(inverse, value, rest * value);
    }
}
