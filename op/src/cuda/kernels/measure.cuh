// Matrices that are not made by a product of this call, or whose norm needs all of their entries.
#pragma once

#include "epilogue.cuh"
#include "read.cuh"

constexpr int LOAD_THREADS = 64;

// f of a sample's matrix and what follows from it.
template <class T>
DEVICE void measure(const Measure<T>& arguments) {
    const int64 sample = blockIdx.x;
    const int side = arguments.side, ld = arguments.ld, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warps = blockDim.x / 32, threads = blockDim.x;
    const T* matrix = arguments.matrix + sample * arguments.stride;
    double* room = shared_memory<double>();  // a number for each thread
    const bool given = arguments.given;
    int exponent = 0;
    if (given) {
        double greatest = arguments.epsilon;
        for (int row = warp; row < side; row += warps) {
            for (int column = row + lane; column < side; column += 32) {
                const double entry = fabs(double(widen(matrix[int64(row) * ld + column])));
                if (isfinite(entry) && entry > greatest) greatest = entry;
            }
        }
        room[threadIdx.x] = greatest;
        __syncthreads();
        for (int half = threads / 2; half > 0; half /= 2) {
            if (int(threadIdx.x) < half && room[threadIdx.x + half] > room[threadIdx.x]) {
                room[threadIdx.x] = room[threadIdx.x + half];
            }
            __syncthreads();
        }
        greatest = room[0];
        __syncthreads();
        exponent = root_exponent(greatest);
    } else {
        exponent = arguments.scale[sample].taken;
    }
    const double shift = given ? ldexp(arguments.epsilon, -2 * exponent) : 0;
    double sum = 0;
    for (int row = warp; row < side; row += warps) {
        for (int column = row + lane; column < side; column += 32) {
            if (!arguments.frobenius && row != column) break;
            double entry = widen(matrix[int64(row) * ld + column]);
            if (given) entry = ldexp(entry, -2 * exponent);
            if (row == column) entry += shift;
            sum += !arguments.frobenius ? entry : row == column ? entry * entry : 2 * entry * entry;
        }
    }
    const double total = block_sum(threads, room, [&](int) { return sum; });
    if (threadIdx.x == 0) {
        const double f = arguments.frobenius ? sqrt(total) : total;
        arguments.scale[sample] = scale_of(f, shift, exponent, arguments.divisor, arguments.form, arguments.compensated);
    }
}

// A from a matrix and its norm, 32x32 entries of the upper triangle.
template <class A, class T, class R>
DEVICE void load(const Load<T, R>& arguments) {
    const int side = arguments.side, across = (side + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const int tiles = across * (across + 1) / 2;
    const int64 sample = blockIdx.x / tiles;
    int i = blockIdx.x % tiles, j = 0;
    for (; i > j; j++) i -= j + 1;
    const T* matrix = arguments.matrix + sample * arguments.stride;
    const Scale* scale = arguments.scale + sample;
    const int exponent = arguments.given ? scale->taken : 0;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first_row = i * TILE_COLUMNS + warp * TILE_ROWS, column = j * TILE_COLUMNS + lane;
    R* room = shared_memory<R>() + warp * WARP_ROOM;
    for (int line = 0; line < TILE_ROWS; line++) {
        const int row = first_row + line;
        R value = 0;
        if (row <= column && column < side) value = ldexp(R(widen(matrix[int64(row) * arguments.ld + column])), -2 * exponent);
        room[line * TILE_LD + lane] = value;
    }
    warp_sync();
    if (first_row < side) finish<A, 3>(arguments.epilogue, OnDevice(), scale, sample, first_row, j * TILE_COLUMNS, room);
}
