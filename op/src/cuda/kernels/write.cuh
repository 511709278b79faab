// The layer's last product, written as its output: a tile goes through shared memory so that rows, or columns, are written whole.
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

template <class T, class R>
DEVICE void write(const Write<T, R>& arguments) {
    constexpr int SHARED_LD = TILE + 1;
    const Factors<R>& factors = arguments.factors;
    const int side = factors.rows, vectorization = arguments.vectorization;
    const Place place(blockIdx.x, side, side, true);
    const int thread = threadIdx.x, warp = thread / 32;
    const int row = place.row + warp / 2 * WARP_TILE, column = place.column + warp % 2 * WARP_TILE;
    const bool active = row < side && column < side && row <= column;
    typename Chosen<R>::Fragment tile(row, column);
    multiply(factors, place, active, tile);

    const Scale scale = arguments.scale[place.sample];
    const bool zero = !arguments.covariance && scale.state == ZERO;
    const bool not_a_number = !arguments.covariance && scale.state == NOT_A_NUMBER;
    const R factor = R(scale.factor), rest = R(scale.factor - double(factor));
    const R constant = zero ? R(0) : R(nan(""));
    R* shared = shared_memory<R>();  // [TILE][SHARED_LD]
    __syncthreads();
    if (active) {
        UNROLL
        for (int i = 0; i < 2 * tile.PAIRS; i++) {
            const int at_row = tile.row(i / 2), at_column = tile.column(i / 2) + i % 2;
            R value = fused(factor, tile.at[i], rest * tile.at[i]);
            if (scale.exponent != 0) value = ldexp(value, scale.exponent);
            value = at_row == at_column ? value + R(arguments.epsilon) : value * arguments.off_diagonal;
            if (zero || not_a_number) value = constant;
            shared[(at_row - place.row) * SHARED_LD + at_column - place.column] = value;
        }
    }
    __syncthreads();

    T* out = arguments.out + place.sample * output_size(side, vectorization);
    const bool columns_first = vectorization == UPPER_COLUMN_MAJOR;
    for (int i = thread; i < TILE * TILE; i += PRODUCT_THREADS) {
        const int slow = i / TILE, fast = i % TILE;
        const int r = columns_first ? fast : slow, c = columns_first ? slow : fast;
        const int at_row = place.row + r, at_column = place.column + c;
        if (at_row <= at_column && at_column < side) {
            narrow(shared[r * SHARED_LD + c], out[output_place(at_row, at_column, side, vectorization)]);
        }
        // The lower triangle of a matrix that is written whole, along its own rows.
        const int below_row = place.column + slow, below_column = place.row + fast;
        if (vectorization == WHOLE && below_column < below_row && below_row < side) {
            narrow(shared[fast * SHARED_LD + slow], out[int64(below_row) * side + below_column]);
        }
    }
}
