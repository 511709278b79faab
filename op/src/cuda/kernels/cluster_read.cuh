// From a sample's elements to the operands of its products in one launch, by the blocks of a cluster.
#pragma once

#include "read.cuh"

// Rows of a tile in shared memory are this much longer than a multiple of 32, which keeps the accesses free of bank conflicts.
constexpr int READ_PAD = 1;

// What `moments` and `center` give, to the bit, for elements whose positions are contiguous. A block reads 32 channels once.
template <class A, class T, class R>
DEVICE void read(const Read<T, R>& arguments) {
    constexpr int WARPS = READ_THREADS / 32, OWN = CENTER_CHANNELS / WARPS;
    const Center<T, R>& center = arguments.center;
    const int channels = center.channels, positions = center.positions, ld = (positions + 31) / 32 * 32 + READ_PAD;
    const int sample = blockIdx.x / arguments.blocks, block = blockIdx.x % arguments.blocks;
    const int first_channel = block * CENTER_CHANNELS, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    double* room = shared_memory<double>();                 // a number for each warp
    R* tile = reinterpret_cast<R*>(room + WARPS);           // [32][ld], channels by positions
    R* own = tile + warp * OWN * ld;                        // this warp's channels
    const int there = channels - first_channel - warp * OWN;  // how many of those there are from them on
    const T* x = center.x + int64(sample) * channels * positions + (first_channel + warp * OWN) * positions;
    previous_is_over();
    // Zeros where there are none.
    _Pragma("unroll 2")
    for (int position = lane; position < ld - READ_PAD; position += 32) {
        R elements[OWN];
        UNROLL
        for (int i = 0; i < OWN; i++) {
            elements[i] = 0;
            if (i < there && position < positions) elements[i] = widen(x[i * positions + position]);
        }
        UNROLL
        for (int i = 0; i < OWN; i++) own[i * ld + position] = elements[i];
    }
    warp_sync();
    R mean[OWN];
    UNROLL
    for (int i = 0; i < OWN; i++) mean[i] = 0;
    if (arguments.centered) {
        double first[OWN], sum[OWN];
        UNROLL
        for (int i = 0; i < OWN; i++) first[i] = own[i * ld], sum[i] = 0;
        for (int position = lane; position < positions; position += 32) {
            UNROLL
            for (int i = 0; i < OWN; i++) sum[i] += double(own[i * ld + position]) - first[i];
        }
        UNROLL
        for (int i = 0; i < OWN; i++) mean[i] = R(first[i] + warp_sum(sum[i]) / positions);
    }
    double squares[OWN];
    UNROLL
    for (int i = 0; i < OWN; i++) squares[i] = 0;
    // Before the first element changes, every lane has read it.
    warp_sync();
    for (int position = lane; position < positions; position += 32) {
        UNROLL
        for (int i = 0; i < OWN; i++) {
            const R distance = own[i * ld + position] - mean[i];
            own[i * ld + position] = distance;
            squares[i] = fused(double(distance), double(distance), squares[i]);
        }
    }
    UNROLL
    for (int i = 0; i < OWN; i++) {
        squares[i] = warp_sum(squares[i]);
        if (lane == 0 && i < there) center.squares[int64(sample) * channels + first_channel + warp * OWN + i] = squares[i];
    }
    cluster_sync();
    const double norm = sample_norm(center, sample, room);
    if (block == 0 && threadIdx.x == 0) scale_sample(center, sample, norm);
    const Two<R> power = power_of(center, norm);
    // Eight neighbors at a time.
    if (center.straight) {
        R* straight = center.straight + int64(sample) * channels * center.straight_ld;
        _Pragma("unroll 1")
        for (int part = warp; part < (positions + 31) / 32 * (CENTER_CHANNELS / 8); part += WARPS) {
            const int row = part % (CENTER_CHANNELS / 8) * 8 + lane % 8, column = part / (CENTER_CHANNELS / 8) * 32 + lane / 8 * 8;
            if (first_channel + row >= channels || column >= positions) continue;
            R values[8];
            UNROLL
            for (int k = 0; k < 8; k++) values[k] = tile[row * ld + column + k] * power.at[0] * power.at[1];
            A::put(straight, channels, center.straight_ld, first_channel + row, column, values);
        }
    }
    R* transposed = center.transposed + int64(sample) * positions * center.transposed_ld;
    _Pragma("unroll 1")
    for (int column = warp * 8 + lane / 4; column < positions; column += WARPS * 8) {
        // Behind the last channel are zeros, up to a whole panel.
        const int row = lane % 4 * 8;
        R values[8];
        UNROLL
        for (int k = 0; k < 8; k++) values[k] = tile[(row + k) * ld + column] * power.at[0] * power.at[1];
        A::put(transposed, positions, center.transposed_ld, column, first_channel + row, values);
    }
}
