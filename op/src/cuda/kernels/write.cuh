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

// Writes a warp's 16x32 entries from `first_row` and `first_column` on, which are in its shared memory.
template <class T, class R>
DEVICE void emit(const Write<T, R>& arguments, const Scale& scale, int sample, int first_row, int first_column, R* room) {
    const int side = arguments.factors.rows, vectorization = arguments.vectorization;
    const int lane = threadIdx.x % 32;
    const int state = arguments.covariance ? ORDINARY : scale.state;
    const int exponent = scale.exponent;
    const R factor = R(scale.factor), rest = R(scale.factor - double(factor)), epsilon = R(arguments.epsilon);
    const R other = arguments.off_diagonal, constant = state == ZERO ? R(0) : R(nan(""));
    T* out = arguments.out + output_size(side, vectorization) * sample;
    const auto result = [&](int i, int j) {
        const R entry = room[i * TILE_LD + j];
        R value = fused(factor, entry, rest * entry);
        if (exponent != 0) value = ldexp(value, exponent);
        value = first_row + i == first_column + j ? value + epsilon : value * other;
        return state == ORDINARY ? value : constant;
    };
    if (vectorization != UPPER_COLUMN_MAJOR) {
        const int column = first_column + lane;
        _Pragma("unroll 4")
        for (int i = 0; i < TILE_ROWS; i++) {
            const int row = first_row + i;
            if (row <= column && column < side) narrow(result(i, lane), out[output_row(row, side, vectorization) + column]);
        }
    }
    if (vectorization == UPPER) return;
    // Columns of the upper triangle, or the lower one's rows.
    const int row = first_row + lane % TILE_ROWS;
    _Pragma("unroll 4")
    for (int j = lane / TILE_ROWS; j < TILE_COLUMNS; j += 32 / TILE_ROWS) {
        const int column = first_column + j;
        if (column >= side || row > column) continue;
        if (vectorization == UPPER_COLUMN_MAJOR) {
            narrow(result(lane % TILE_ROWS, j), out[output_column(column) + row]);
        } else if (row < column) {
            narrow(result(lane % TILE_ROWS, j), out[int64(column) * side + row]);
        }
    }
}

// The block's tile of the last product.
template <class A, class T, class R, class Wait>
DEVICE void write(const Write<T, R>& arguments, const Place& place, Wait wait) {
    const bool active = place.is_there(arguments.factors.rows, arguments.factors.rows, true);
    Scale scale;
    // On its way while the product is made.
    R* room = multiply<A, false>(arguments.factors, place, active, [&] {
        wait();
        scale = arguments.scale[place.sample];
    });
    if (active) emit(arguments, scale, place.sample, place.warp_row(), place.warp_column(), room);
}

template <class A, class T, class R>
DEVICE void write(const Write<T, R>& arguments) {
    write<A>(arguments, place_of_block(arguments.factors, true), [] { previous_is_over(); });
}
