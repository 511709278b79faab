// The layer's last product, written as its output: a warp's tile goes through shared memory so that rows, or columns, are written whole.
#pragma once

#include "product.cuh"

// Where an entry of the upper triangle goes in a sample's output.
DEVICE int64 output_place(int row, int column, int side, int vectorization) {
    if (vectorization == UPPER) return int64(row) * (2 * side + 1 - row) / 2 + column - row;
    if (vectorization == UPPER_COLUMN_MAJOR) return int64(column) * (column + 1) / 2 + row;
    return int64(row) * side + column;
}

DEVICE int64 output_size(int side, int vectorization) {
    return vectorization == WHOLE ? int64(side) * side : int64(side) * (side + 1) / 2;
}

// Writes a warp's 32x32 entries from `first_row` and `first_column` on, which are in its shared memory.
template <class T, class R>
DEVICE void emit(const Write<T, R>& arguments, int64 sample, int first_row, int first_column, R* room) {
    const int side = arguments.factors.rows, vectorization = arguments.vectorization;
    const int lane = threadIdx.x % 32;
    const Scale& scale = arguments.scale[sample];
    const int exponent = scale.exponent, state = arguments.covariance ? ORDINARY : scale.state;
    const R factor = R(scale.factor), rest = R(scale.factor - double(factor)), epsilon = R(arguments.epsilon);
    const bool columns_first = vectorization == UPPER_COLUMN_MAJOR;
    T* out = arguments.out + sample * output_size(side, vectorization);
    _Pragma("unroll 4")
    for (int slow = 0; slow < WARP_TILE; slow++) {
        const int i = columns_first ? lane : slow, j = columns_first ? slow : lane;
        const int row = first_row + i, column = first_column + j;
        const R entry = room[i * TILE_LD + j];
        R value = fused(factor, entry, rest * entry);
        if (exponent != 0) value = ldexp(value, exponent);
        value = row == column ? value + epsilon : value * arguments.off_diagonal;
        if (state != ORDINARY) value = state == ZERO ? R(0) : R(nan(""));
        if (row <= column && column < side) narrow(value, out[output_place(row, column, side, vectorization)]);
        if (vectorization == WHOLE) room[i * TILE_LD + j] = value;
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
