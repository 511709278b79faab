// What is made of a new symmetric matrix while its tiles are in registers.
//
// A fragment is a thread's part of a tile: PAIRS pairs of neighbors in a row, `row(i)` and `column(i)` where pair i begins, in the whole
// matrix, and `at[2 * i]`, `at[2 * i + 1]` its numbers.
#pragma once

#include "arguments.cuh"

// Pairs of which at least one entry is in the upper triangle.
DEVICE bool is_upper_pair(int row, int column, int side) { return row < side && column < side && row <= column + 1; }

// Where a fragment's pairs are in a matrix, and which of them count.
template <int COUNT, class Fragment>
struct Places {
    int offset[COUNT];
    bool there[COUNT];

    DEVICE Places(const Fragment& tile, int begin, int side, int ld) {
        UNROLL
        for (int i = 0; i < COUNT; i++) {
            offset[i] = tile.row(begin + i) * ld + tile.column(begin + i);
            there[i] = is_upper_pair(tile.row(begin + i), tile.column(begin + i), side);
        }
    }
};

template <int COUNT, class R, class Fragment>
DEVICE void fetch(const R* matrix, const Places<COUNT, Fragment>& places, Two<R> (&pairs)[COUNT]) {
    UNROLL
    for (int i = 0; i < COUNT; i++) {
        if (places.there[i]) pairs[i] = *reinterpret_cast<const Two<R>*>(matrix + places.offset[i]);
    }
}

template <int COUNT, class R>
DEVICE void add(R factor, const Two<R> (&pairs)[COUNT], R (&sum)[2 * COUNT]) {
    UNROLL
    for (int i = 0; i < 2 * COUNT; i++) sum[i] = fused(factor, pairs[i / 2].at[i % 2], sum[i]);
}

// Begins a factor with its terms in the identity and in the new matrix.
template <int COUNT, class R, class Fragment>
DEVICE void start(R identity, R own, const Fragment& tile, int begin, R (&sum)[2 * COUNT]) {
    UNROLL
    for (int i = 0; i < 2 * COUNT; i++) {
        const bool diagonal = tile.row(begin + i / 2) == tile.column(begin + i / 2) + i % 2;
        sum[i] = fused(own, tile.at[2 * begin + i], diagonal ? identity : R(0));
    }
}

// Writes an upper triangle's numbers there and to the lower one.
template <class A, int COUNT, class R, class Fragment>
DEVICE void mirror(R* out, int side, int ld, const Fragment& tile, int begin, const R (&sum)[2 * COUNT]) {
    UNROLL
    for (int i = 0; i < COUNT; i++) {
        const int row = tile.row(begin + i), column = tile.column(begin + i);
        if (!is_upper_pair(row, column, side)) continue;
        const R first = sum[2 * i], second = sum[2 * i + 1];
        const bool two = column + 1 < side;
        if (row <= column && two) {
            A::put(out + row * ld, ld, column, first, second);
        } else if (row <= column) {
            A::put(out + row * ld, ld, column, first);
        } else if (two) {
            A::put(out + row * ld, ld, column + 1, second);
        }
        if (row < column) A::put(out + column * ld, ld, row, first);
        if (row < column + 1 && two) A::put(out + (column + 1) * ld, ld, row, second);
    }
}

// Keeps a tile of the new matrix and makes the factors of the next product. Every place is read and written by the same thread, which
// is why a matrix may take the place of one that is read here for the last time.
template <class A, class R, class Fragment>
DEVICE void finish(const Epilogue<R>& epilogue, int64 sample, const Fragment& tile) {
    constexpr int COUNT = Fragment::PAIRS < 8 ? Fragment::PAIRS : 8;
    const int side = epilogue.side, ld = epilogue.ld, terms = epilogue.terms;
    const int64 matrix = sample * side * ld, stride = epilogue.place_stride;
    R* matrices = epilogue.places + matrix;
    UNROLL
    for (int begin = 0; begin < Fragment::PAIRS; begin += COUNT) {
        const Places<COUNT, Fragment> places(tile, begin, side, ld);
        R left[2 * COUNT], right[2 * COUNT];
        start<COUNT>(epilogue.left_identity, epilogue.left_own, tile, begin, left);
        start<COUNT>(epilogue.right_identity, epilogue.right_own, tile, begin, right);
        // One matrix is on its way while another is added.
        Two<R> pairs[COUNT] = {}, next[COUNT] = {};
        if (terms > 0) fetch(matrices + epilogue.places_read[0] * stride, places, next);
        for (int term = 0; term < terms; term++) {
            UNROLL
            for (int i = 0; i < COUNT; i++) pairs[i] = next[i];
            if (term + 1 < terms) fetch(matrices + epilogue.places_read[term + 1] * stride, places, next);
            add<COUNT>(epilogue.left_factors[term], pairs, left);
            add<COUNT>(epilogue.right_factors[term], pairs, right);
        }
        if (epilogue.left) mirror<A, COUNT>(epilogue.left + matrix, side, ld, tile, begin, left);
        if (epilogue.right) mirror<A, COUNT>(epilogue.right + matrix, side, ld, tile, begin, right);
        if (!epilogue.keep) continue;
        R* own = matrices + epilogue.place * stride;
        UNROLL
        for (int i = 0; i < COUNT; i++) {
            if (places.there[i]) {
                *reinterpret_cast<Two<R>*>(own + places.offset[i]) = {{tile.at[2 * (begin + i)], tile.at[2 * (begin + i) + 1]}};
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
