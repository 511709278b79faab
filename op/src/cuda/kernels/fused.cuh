// The whole layer of a sample in one launch, by a cluster of blocks: stages as those of the other kernels, with the cluster's barrier where
// they have the end of a launch. What one block makes for another goes through memory that stays in the device's cache.
//
// For sides up to FUSED_SIDE. Tiles are a warp's; every block has whole rows of the factors in shared memory, a chunk at a time.
#pragma once

#include "read.cuh"
#include "write.cuh"

constexpr int FUSED_THREADS = 512;
constexpr int FUSED_WARPS = FUSED_THREADS / 32;
constexpr int FUSED_SIDE = 256;
constexpr int FUSED_LD = FUSED_SIDE + 8;
constexpr int FUSED_STAGES = 4;

// Calls `done(i, j, tile)` for this warp's 32x32 tiles of LᵀR; i and j count tiles.
template <class Done>
DEVICE void multiply_all(const Factors<float>& factors, int64 sample, bool symmetric, int rank, int blocks, Done done) {
    constexpr int SIZE = CHUNK * FUSED_LD;
    float* shared = shared_memory<float>();  // [stage][left and right][CHUNK][FUSED_LD]
    const float* left = factors.left + sample * factors.left_stride;
    const float* right = factors.right + sample * factors.right_stride;
    const bool square = left == right;
    const int down = (factors.rows + WARP_TILE - 1) / WARP_TILE, across = (factors.columns + WARP_TILE - 1) / WARP_TILE;
    const int tiles = symmetric ? down * (down + 1) / 2 : down * across;
    const int depth = factors.depth, chunks = (depth + CHUNK - 1) / CHUNK;
    const int own = rank + int(threadIdx.x) / 32 * blocks;
    const auto fetch = [&](int chunk) {
        if (chunk < chunks) {
            float* stage = shared + chunk % FUSED_STAGES * 2 * SIZE;
            send<FUSED_SIDE, FUSED_LD>(stage, left, factors.left_ld, chunk * CHUNK, depth, 0, factors.rows);
            if (!square) send<FUSED_SIDE, FUSED_LD>(stage + SIZE, right, factors.right_ld, chunk * CHUNK, depth, 0, factors.columns);
        }
        copies_commit();
    };
    for (int first = 0; first < tiles; first += blocks * FUSED_WARPS) {
        const int number = first + own;
        int i = number / across, j = number % across;
        if (symmetric) {
            i = number;
            for (j = 0; i > j; j++) i -= j + 1;
        }
        typename Chosen<float>::Fragment tile(i * WARP_TILE, j * WARP_TILE);
        for (int chunk = 0; chunk < FUSED_STAGES - 1; chunk++) fetch(chunk);
        for (int chunk = 0; chunk < chunks; chunk++) {
            copies_wait<FUSED_STAGES - 2>();
            __syncthreads();
            fetch(chunk + FUSED_STAGES - 1);
            const float* stage = shared + chunk % FUSED_STAGES * 2 * SIZE;
            if (number < tiles) {
                tile.template multiply<FUSED_LD>(stage + i * WARP_TILE, stage + (square ? 0 : SIZE) + j * WARP_TILE);
            }
        }
        // The chunks have been used up: `done` and the next tiles may have their memory.
        __syncthreads();
        if (number < tiles) done(i, j, tile);
    }
    __syncthreads();
}

template <class T>
DEVICE void fused(const Fused<T>& arguments) {
    const int rank = cluster_rank(), blocks = cluster_size();
    const int64 sample = blockIdx.x / blocks;
    const int channels = arguments.center.channels, positions = arguments.center.positions;
    for (int group = rank; group < moments_blocks(channels, FUSED_THREADS); group += blocks) {
        moments(arguments.moments, sample, group);
        __syncthreads();
    }
    cluster_sync();
    const int exponent = sample_exponent(arguments.center, sample, rank);
    for (int block = rank; block < center_blocks(channels, positions); block += blocks) {
        center(arguments.center, sample, block, exponent);
    }
    for (int step = 0; step < arguments.steps; step++) {
        cluster_sync();
        const Product<float>& product = arguments.products[step];
        multiply_all(product.factors, sample, !product.plain, rank, blocks,
                     [&](int, int, typename Chosen<float>::Fragment& tile) { keep(product, sample, tile); });
    }
    cluster_sync();
    float* shared = shared_memory<float>() + int(threadIdx.x) / 32 * WARP_TILE * WRITE_LD;
    multiply_all(arguments.write.factors, sample, true, rank, blocks, [&](int i, int j, typename Chosen<float>::Fragment& tile) {
        emit(arguments.write, sample, i * WARP_TILE, j * WARP_TILE, tile, shared);
    });
}
