// Products LᵀR by 64x64 tiles: a block of four warps to a tile, chunks of L and R on their way to shared memory while others are multiplied.
#pragma once

#include "epilogue.cuh"
#include "operand.cuh"

constexpr int TILE = 64;
constexpr int PRODUCT_THREADS = 128;

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

// A tile's columns of CHUNK rows of an operand in shared memory.
template <class A>
struct Chunk {
    static constexpr int STRIDE = TILE * A::BYTES + A::PAD, PLANE = CHUNK * STRIDE, SIZE = A::PLANES * PLANE;

    // Sends rows `k` to `k + CHUNK` there. What is beyond the operand is zero.
    template <class R>
    DEVICE static void send(unsigned char* shared, const R* operand, int ld, int k, int depth, int column, int columns) {
        constexpr int WIDE = 16 / A::BYTES, ACROSS = TILE / WIDE;
        UNROLL
        for (int i = threadIdx.x; i < A::PLANES * CHUNK * ACROSS; i += PRODUCT_THREADS) {
            const int plane = i / (CHUNK * ACROSS), row = i / ACROSS % CHUNK, offset = i % ACROSS * WIDE;
            const int left = columns - column - offset;
            // In whole words: what is beyond the operand by then gives columns that nobody reads.
            const int valid = k + row < depth && left > 0 ? ((left < WIDE ? left : WIDE) * A::BYTES + 3) & ~3 : 0;
            const int64 from = int64(k + row) * ld * sizeof(R) + (int64(plane) * ld + column + offset) * A::BYTES;
            const unsigned char* bytes = reinterpret_cast<const unsigned char*>(operand);
            copy_16(shared + plane * PLANE + row * STRIDE + offset * A::BYTES, bytes + (valid ? from : 0), valid);
        }
    }

    // It from a column of the tile on.
    DEVICE static Rows from(const unsigned char* shared, int column) { return {shared + column * A::BYTES, STRIDE, PLANE}; }
};

// This warp's 32x32 part of a 64x64 tile.
template <class A, class R>
DEVICE void multiply(const Factors<R>& factors, const Place& place, bool active, typename A::Fragment& tile) {
    constexpr int SIZE = Chunk<A>::SIZE;
    unsigned char* shared = shared_memory<unsigned char>();  // [stage][left and right] chunks
    const R* left = factors.left + place.sample * factors.left_stride;
    const R* right = factors.right + place.sample * factors.right_stride;
    const int warp = threadIdx.x / 32, depth = factors.depth;
    const int chunks = (depth + CHUNK - 1) / CHUNK;
    const auto fetch = [&](int chunk) {
        if (chunk < chunks) {
            unsigned char* stage = shared + chunk % STAGES<A> * 2 * SIZE;
            Chunk<A>::send(stage, left, factors.left_ld, chunk * CHUNK, depth, place.row, factors.rows);
            Chunk<A>::send(stage + SIZE, right, factors.right_ld, chunk * CHUNK, depth, place.column, factors.columns);
        }
        copies_commit();
    };
    for (int chunk = 0; chunk < STAGES<A> - 1; chunk++) fetch(chunk);
    for (int chunk = 0; chunk < chunks; chunk++) {
        copies_wait<STAGES<A> - 2>();
        // Every thread's copies have come, and the stage that is filled next has been used up.
        __syncthreads();
        fetch(chunk + STAGES<A> - 1);
        if (!active) continue;
        const unsigned char* stage = shared + chunk % STAGES<A> * 2 * SIZE;
        const Rows l = Chunk<A>::from(stage, warp / 2 * WARP_TILE), r = Chunk<A>::from(stage + SIZE, warp % 2 * WARP_TILE);
        tile.multiply(l, r, factors.scale);
    }
}

// A fragment of a product, into what comes next.
template <class A, class R>
DEVICE void keep(const Product<R>& arguments, int64 sample, typename A::Fragment& tile) {
    const Factors<R>& factors = arguments.factors;
    if (!arguments.plain) {
        if (arguments.scale) normalize<R>(tile, arguments.scale[sample]);
        finish<A>(arguments.epilogue, sample, tile);
        return;
    }
    R* out = arguments.plain + sample * arguments.plain_stride;
    UNROLL
    for (int i = 0; i < A::Fragment::PAIRS; i++) {
        if (tile.row(i) < factors.rows && tile.column(i) < factors.columns) {
            const R scale = arguments.plain_scale;
            A::put(out + tile.row(i) * arguments.plain_ld, arguments.plain_ld, tile.column(i), scale * tile.at[2 * i], scale * tile.at[2 * i + 1]);
        }
    }
}

// A tile of a product.
template <class A, class R>
DEVICE void product(const Product<R>& arguments) {
    const Factors<R>& factors = arguments.factors;
    const bool symmetric = !arguments.plain;
    const Place place(blockIdx.x, factors.rows, factors.columns, symmetric);
    const int warp = threadIdx.x / 32;
    const int row = place.row + warp / 2 * WARP_TILE, column = place.column + warp % 2 * WARP_TILE;
    const bool active = row < factors.rows && column < factors.columns && !(symmetric && row > column);
    typename A::Fragment tile(row, column);
    multiply<A>(factors, place, active, tile);
    if (active) keep<A>(arguments, place.sample, tile);
}
