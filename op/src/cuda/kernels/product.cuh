// Products LᵀR by 64x64 tiles: a block of four warps to a tile, chunks of L and R on their way to shared memory while others are multiplied.
#pragma once

#include "epilogue.cuh"
#include "fragment.cuh"

constexpr int TILE = 64;
constexpr int LD = TILE + 8;
constexpr int PRODUCT_THREADS = 128;

// Chunks in shared memory at a time.
template <class R>
constexpr int STAGES = sizeof(R) == 4 ? 4 : 2;

// Shared memory of a product, in bytes.
template <class R>
constexpr int PRODUCT_SHARED = STAGES<R> * 2 * CHUNK * LD * int(sizeof(R));

// Which tile of which sample a block has.
struct Place {
    int64 sample;
    int row, column;

    // `symmetric`: tiles of the upper triangle, column by column; else all, row by row.
    DEVICE Place(unsigned block, int rows, int columns, bool symmetric) {
        const int down = (rows + TILE - 1) / TILE, across = (columns + TILE - 1) / TILE;
        const int tiles = symmetric ? down * (down + 1) / 2 : down * across;
        sample = block / tiles;
        int tile = block % tiles;
        int i = tile / across, j = tile % across;
        if (symmetric) {
            for (j = 0; tile > j; j++) tile -= j + 1;
            i = tile;
        }
        row = i * TILE;
        column = j * TILE;
    }
};

// Sends rows `k` to `k + CHUNK` of a factor, and of those `WIDTH` columns, to shared memory in rows of LD numbers. What is beyond the
// factor is zero.
template <int WIDTH, int LD, class R>
DEVICE void send(R* shared, const R* factor, int ld, int k, int depth, int column, int columns) {
    constexpr int WIDE = 16 / int(sizeof(R)), ACROSS = WIDTH / WIDE;
    for (int i = threadIdx.x; i < CHUNK * ACROSS; i += blockDim.x) {
        const int row = i / ACROSS, offset = i % ACROSS * WIDE;
        const int left = columns - column - offset;
        const int valid = k + row < depth && left > 0 ? (left < WIDE ? left : WIDE) * int(sizeof(R)) : 0;
        const R* from = valid ? factor + int64(k + row) * ld + column + offset : factor;
        copy_16(shared + row * LD + offset, from, valid);
    }
}

// This warp's 32x32 part of a 64x64 tile.
template <class R, class Fragment>
DEVICE void multiply(const Factors<R>& factors, const Place& place, bool active, Fragment& tile) {
    constexpr int SIZE = CHUNK * LD;
    R* shared = shared_memory<R>();  // [stage][left and right][CHUNK][LD]
    const R* left = factors.left + place.sample * factors.left_stride;
    const R* right = factors.right + place.sample * factors.right_stride;
    const int warp = threadIdx.x / 32, depth = factors.depth;
    const int chunks = (depth + CHUNK - 1) / CHUNK;
    const auto fetch = [&](int chunk) {
        if (chunk < chunks) {
            R* stage = shared + chunk % STAGES<R> * 2 * SIZE;
            send<TILE, LD>(stage, left, factors.left_ld, chunk * CHUNK, depth, place.row, factors.rows);
            send<TILE, LD>(stage + SIZE, right, factors.right_ld, chunk * CHUNK, depth, place.column, factors.columns);
        }
        copies_commit();
    };
    for (int chunk = 0; chunk < STAGES<R> - 1; chunk++) fetch(chunk);
    for (int chunk = 0; chunk < chunks; chunk++) {
        copies_wait<STAGES<R> - 2>();
        // Every thread's copies have come, and the stage that is filled next has been used up.
        __syncthreads();
        fetch(chunk + STAGES<R> - 1);
        const R* stage = shared + chunk % STAGES<R> * 2 * SIZE;
        if (active) tile.template multiply<LD>(stage + warp / 2 * WARP_TILE, stage + SIZE + warp % 2 * WARP_TILE);
    }
}

// A fragment of a product, into what comes next.
template <class R, class Fragment>
DEVICE void keep(const Product<R>& arguments, int64 sample, Fragment& tile) {
    const Factors<R>& factors = arguments.factors;
    if (!arguments.plain) {
        if (arguments.scale) normalize<R>(tile, arguments.scale[sample]);
        finish(arguments.epilogue, sample, tile);
        return;
    }
    R* out = arguments.plain + sample * arguments.plain_stride;
    UNROLL
    for (int i = 0; i < Fragment::PAIRS; i++) {
        if (tile.row(i) < factors.rows && tile.column(i) < factors.columns) {
            R* to = out + int64(tile.row(i)) * arguments.plain_ld + tile.column(i);
            *reinterpret_cast<Two<R>*>(to) = {{tile.at[2 * i], tile.at[2 * i + 1]}};
        }
    }
}

// A tile of a product.
template <class R>
DEVICE void product(const Product<R>& arguments) {
    const Factors<R>& factors = arguments.factors;
    const bool symmetric = !arguments.plain;
    const Place place(blockIdx.x, factors.rows, factors.columns, symmetric);
    const int warp = threadIdx.x / 32;
    const int row = place.row + warp / 2 * WARP_TILE, column = place.column + warp % 2 * WARP_TILE;
    const bool active = row < factors.rows && column < factors.columns && !(symmetric && row > column);
    typename Chosen<R>::Fragment tile(row, column);
    multiply(factors, place, active, tile);
    if (active) keep(arguments, place.sample, tile);
}
