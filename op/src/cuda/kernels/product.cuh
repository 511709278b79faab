// Products LᵀR by 64x64 tiles: a block of eight warps to a tile, chunks of L and R on their way to shared memory while others are multiplied.
#pragma once

#include "epilogue.cuh"

// Chunks in shared memory at a time.
template <class A>
constexpr int STAGES = sizeof(typename A::Real) == 4 ? 4 : 2;

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

// This warp's 16x32 part of a 64x64 tile, into its part of the shared memory, which is what comes back.
template <class A, class R>
DEVICE R* multiply(const Factors<R>& factors, const Place& place, bool active) {
    unsigned char* shared = shared_memory<unsigned char>();  // [stage][left and right] chunks
    const R* left = factors.left + place.sample * factors.left_stride;
    const R* right = factors.right + place.sample * factors.right_stride;
    const int warp = threadIdx.x / 32, depth = factors.depth;
    const int chunks = (depth + CHUNK - 1) / CHUNK;
    const auto fetch = [&](int chunk) {
        if (chunk < chunks) {
            unsigned char* stage = shared + chunk % STAGES<A> * 2 * A::SIZE;
            A::send(stage, left, depth, factors.left_ld, chunk * CHUNK, place.row, factors.rows);
            A::send(stage + A::SIZE, right, depth, factors.right_ld, chunk * CHUNK, place.column, factors.columns);
        }
        copies_commit();
    };
    typename A::Fragment tile;
    for (int chunk = 0; chunk < STAGES<A> - 1; chunk++) fetch(chunk);
    for (int chunk = 0; chunk < chunks; chunk++) {
        copies_wait<STAGES<A> - 2>();
        // Every thread's copies have come, and the stage that is filled next has been used up.
        __syncthreads();
        fetch(chunk + STAGES<A> - 1);
        if (active) A::multiply(tile, shared + chunk % STAGES<A> * 2 * A::SIZE, warp / 2, warp % 2, factors.scale);
    }
    __syncthreads();
    R* room = shared_memory<R>() + warp * WARP_ROOM<R>;
    tile.store(room);
    warp_sync();
    return room;
}

// A warp's tile of a product, into what comes next.
template <class A, class R>
DEVICE void keep(const Product<R>& arguments, int64 sample, int first_row, int first_column, R* room) {
    const Factors<R>& factors = arguments.factors;
    if (!arguments.plain) {
        finish<A>(arguments.epilogue, arguments.scale ? arguments.scale + sample : nullptr, sample, first_row, first_column, room);
        return;
    }
    R* out = arguments.plain + sample * arguments.plain_stride;
    const int lane = threadIdx.x % 32, row = first_row + lane / 8, column = first_column + lane % 8 * 4;
    _Pragma("unroll 4")
    for (int i = 0; i < TILE_ROWS; i += 4) {
        Four<R> values = *reinterpret_cast<const Four<R>*>(room + (i + lane / 8) * TILE_LD + lane % 8 * 4);
        UNROLL
        for (int k = 0; k < 4; k++) values.at[k] *= arguments.plain_scale;
        if (row + i < factors.rows && column < factors.columns) A::put(out, factors.rows, arguments.plain_ld, row + i, column, values);
    }
}

// A tile of a product.
template <class A, class R>
DEVICE void product(const Product<R>& arguments) {
    const Factors<R>& factors = arguments.factors;
    const bool symmetric = !arguments.plain;
    const Place place(blockIdx.x, factors.rows, factors.columns, symmetric);
    const int warp = threadIdx.x / 32;
    const int row = place.row + warp / 2 * TILE_ROWS, column = place.column + warp % 2 * TILE_COLUMNS;
    const bool active = row < factors.rows && column < factors.columns && !(symmetric && row >= column + TILE_COLUMNS);
    R* room = multiply<A>(factors, place, active);
    if (active) keep<A>(arguments, place.sample, row, column, room);
}
