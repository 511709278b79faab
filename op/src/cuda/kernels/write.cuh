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

// Rows of a warp's tile in shared memory, one number apart from each other's banks.
constexpr int WRITE_LD = WARP_TILE + 1;

// Writes a warp's 32x32 entries from `first_row` and `first_column` on. `shared` is the warp's own: [32][WRITE_LD].
template <class T, class R, class Fragment>
DEVICE void emit(const Write<T, R>& arguments, int64 sample, int first_row, int first_column, const Fragment& tile, R* shared) {
    const int side = arguments.factors.rows, vectorization = arguments.vectorization;
    const int lane = threadIdx.x % 32;
    const Scale scale = arguments.scale[sample];
    const bool zero = !arguments.covariance && scale.state == ZERO;
    const bool not_a_number = !arguments.covariance && scale.state == NOT_A_NUMBER;
    const R factor = R(scale.factor), rest = R(scale.factor - double(factor));
    const R constant = zero ? R(0) : R(nan(""));
    UNROLL
    for (int i = 0; i < 2 * Fragment::PAIRS; i++) {
        const int row = tile.row(i / 2), column = tile.column(i / 2) + i % 2;
        R value = fused(factor, tile.at[i], rest * tile.at[i]);
        if (scale.exponent != 0) value = ldexp(value, scale.exponent);
        value = row == column ? value + R(arguments.epsilon) : value * arguments.off_diagonal;
        if (zero || not_a_number) value = constant;
        shared[(row - first_row) * WRITE_LD + column - first_column] = value;
    }
    warp_sync();
    T* out = arguments.out + sample * output_size(side, vectorization);
    const bool columns_first = vectorization == UPPER_COLUMN_MAJOR;
    for (int slow = 0; slow < WARP_TILE; slow++) {
        const int row = first_row + (columns_first ? lane : slow), column = first_column + (columns_first ? slow : lane);
        if (row <= column && column < side) {
            const R value = shared[(row - first_row) * WRITE_LD + column - first_column];
            narrow(value, out[output_place(row, column, side, vectorization)]);
        }
        // The lower triangle of a matrix that is written whole, along its own rows.
        const int below_row = first_column + slow, below_column = first_row + lane;
        if (vectorization == WHOLE && below_column < below_row && below_row < side) {
            narrow(shared[lane * WRITE_LD + slow], out[int64(below_row) * side + below_column]);
        }
    }
    warp_sync();
}

// A tile of the last product.
template <class A, class T, class R>
DEVICE void write(const Write<T, R>& arguments) {
    const int side = arguments.factors.rows;
    const Place place(blockIdx.x, side, side, true);
    const int warp = threadIdx.x / 32;
    const int row = place.row + warp / 2 * WARP_TILE, column = place.column + warp % 2 * WARP_TILE;
    const bool active = row < side && column < side && row <= column;
    typename A::Fragment tile(row, column);
    multiply<A>(arguments.factors, place, active, tile);
    // The chunks have been used up.
    __syncthreads();
    if (active) emit(arguments, place.sample, row, column, tile, shared_memory<R>() + warp * WARP_TILE * WRITE_LD);
}
