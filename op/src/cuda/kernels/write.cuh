// The layer's last product, written as its output: a warp's tile goes through shared memory so that rows, or columns, are written whole.
#pragma once

#include "product.cuh"

// Where row `row` begins in a sample's output, less the number of its first column.
DEVICE int64 output_row(int row, int side, int vectorization) {
    if (vectorization == UPPER) return int64(row) * (2 * side + 1 - row) / 2 - row;
    return int64(row) * side;
}
DEVICE int64 output_column(int column) { return int64(column) * (column + 1) / 2; }

DEVICE int64 output_size(int side, int vectorization) {
    return vectorization == WHOLE ? int64(side) * side : int64(side) * (side + 1) / 2;
}

// Writes a warp's 32x32 entries from `first_row` and `first_column` on, which are in its shared memory.
template <class T, class R>
DEVICE void emit(const Write<T, R>& arguments, int64 sample, int first_row, int first_column, R* room) {
    const int side = arguments.factors.rows, vectorization = arguments.vectorization;
    const int lane = threadIdx.x % 32;
    const Scale& scale = arguments.scale[sample];
    const int state = arguments.covariance ? ORDINARY : scale.state;
    // The result's power of two where it is one of the factor too, which is then exact.
    const bool moderate = scale.exponent > -100 && scale.exponent < 100;
    const int exponent = moderate ? 0 : scale.exponent;
    const double whole = moderate ? ldexp(scale.factor, scale.exponent) : scale.factor;
    const R factor = R(whole), rest = R(whole - double(factor)), epsilon = R(arguments.epsilon);
    const R other = arguments.off_diagonal, constant = state == ZERO ? R(0) : R(nan(""));
    const bool columns_first = vectorization == UPPER_COLUMN_MAJOR;
    const int fast = columns_first ? first_row + lane : first_column + lane, step = columns_first ? 1 : TILE_LD;
    const R* from = room + (columns_first ? lane * TILE_LD : lane);
    T* out = arguments.out + sample * output_size(side, vectorization);
    _Pragma("unroll 4")
    for (int i = 0; i < WARP_TILE; i++) {
        const int row = columns_first ? fast : first_row + i, column = columns_first ? first_column + i : fast;
        const R entry = from[i * step];
        R value = fused(factor, entry, rest * entry);
        if (exponent != 0) value = ldexp(value, exponent);
        value = row == column ? value + epsilon : value * other;
        if (state != ORDINARY) value = constant;
        const int64 begin = columns_first ? output_column(column) : output_row(row, side, vectorization);
        if (row <= column && column < side) narrow(value, out[begin + fast]);
        if (vectorization == WHOLE) room[i * TILE_LD + lane] = value;
    }
    if (vectorization != WHOLE) return;
    warp_sync();
    // The lower triangle, along its own rows.
    _Pragma("unroll 4")
    for (int slow = 0; slow < WARP_TILE; slow++) {
        const int row = first_column + slow, column = first_row + lane;
        if (column < row && row < side) narrow(room[lane * TILE_LD + slow], out[int64(row) * side + column]);
    }
}

// A tile of the last product.
template <class A, class T, class R>
DEVICE void write(const Write<T, R>& arguments) {
    const int side = arguments.factors.rows;
    const Place place(blockIdx.x, side, side, true);
    const int warp = threadIdx.x / 32;
    const int row = place.row + warp / 2 * WARP_TILE, column = place.column + warp % 2 * WARP_TILE;
    const bool active = row < side && column < side && row <= column;
    R* room = multiply<A>(arguments.factors, place, active);
    if (active) emit(arguments, place.sample, row, column, room);
}
