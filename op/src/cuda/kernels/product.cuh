// Products LᵀR by 64x64 tiles: a block of eight warps to a tile, chunks of L and R on their way to shared memory while others are multiplied.
#pragma once

#include "epilogue.cuh"

// Which tile of which sample a block has.
struct Place {
    int sample, row, column;

    // Tiles of the upper triangle column by column, others row by row.
    DEVICE Place(int sample, int tile, int columns, bool symmetric) : sample(sample) {
        const int across = (columns + TILE - 1) / TILE;
        int i = tile / across, j = tile % across;
        if (symmetric) {
            for (j = 0; tile > j; j++) tile -= j + 1;
            i = tile;
        }
        row = i * TILE;
        column = j * TILE;
    }

    // Where this warp's part of the tile begins. Asked for again rather than kept: a place in shared memory then takes no registers.
    DEVICE int warp_row() const { return row + threadIdx.x / 32 / 2 * TILE_ROWS; }
    DEVICE int warp_column() const { return column + threadIdx.x / 32 % 2 * TILE_COLUMNS; }

    // Whether the matrix has that part, and not below its diagonal where it is `symmetric`.
    DEVICE bool is_there(int rows, int columns, bool symmetric) const {
        return warp_row() < rows && warp_column() < columns && !(symmetric && warp_row() >= warp_column() + TILE_COLUMNS);
    }
};

// The place of a block of a launch that has one for each tile of each sample.
template <class R>
DEVICE Place place_of_block(const Factors<R>& factors, bool symmetric) {
    return Place(blockIdx.x / factors.tiles, blockIdx.x % factors.tiles, factors.columns, symmetric);
}

// Puts a warp's tile into its part of the shared memory, which is what comes back, when all warps are done with what they multiply.
template <class A>
DEVICE typename A::Real* put_down(const typename A::Fragment& tile) {
    __syncthreads();
    typename A::Real* room = shared_memory<typename A::Real>() + threadIdx.x / 32 * WARP_ROOM;
    tile.store(room);
    warp_sync();
    return room;
}

// This warp's 16x32 part of a 64x64 tile, into its part of the shared memory, which is what comes back. `wait` comes before anything is read
// that is not an argument. Where the product may be a SQUARE, a tile on its diagonal fetches the columns of its only factor once.
template <class A, bool SQUARE, class R, class Wait>
DEVICE R* multiply(const Factors<R>& factors, const Place& place, bool active, Wait wait) {
    constexpr int STAGE = A::CHUNKS * 2 * A::SIZE;
    unsigned char* shared = shared_memory<unsigned char>();  // [stage][chunk][left and right]
    const int warp = threadIdx.x / 32, depth = factors.depth;
    typename A::Stream left(factors.left + factors.left_stride * place.sample, depth, factors.left_ld, place.row, factors.rows);
    typename A::Stream right(factors.right + factors.right_stride * place.sample, depth, factors.right_ld, place.column, factors.columns);
    const bool same = SQUARE && factors.left == factors.right && place.row == place.column;
    const int behind = same ? 0 : A::SIZE;
    // Chunks behind the last one are zeros.
    const int stages = (depth + A::CHUNKS * CHUNK - 1) / (A::CHUNKS * CHUNK);
    const auto fetch = [&](int stage, int offset) {
        if (stage < stages) {
            UNROLL
            for (int chunk = 0; chunk < A::CHUNKS; chunk++) {
                left.send(shared + offset + chunk * 2 * A::SIZE);
                if (!same) right.send(shared + offset + chunk * 2 * A::SIZE + A::SIZE);
            }
        }
        copies_commit();
    };
    wait();
    typename A::Fragment tile;
    const int ahead = factors.stages - 1, last = ahead * STAGE;
    _Pragma("unroll 1")
    for (int stage = 0; stage < ahead; stage++) fetch(stage, stage * STAGE);
    int empty = last, full = 0;
    for (int stage = 0; stage < stages; stage++) {
        if (ahead == A::STAGES - 1) {
            copies_wait<A::STAGES - 2>();
        } else {
            copies_wait<A::MORE_STAGES - 2>();
        }
        // Every thread's copies have come, and the stage that is filled next has been used up.
        __syncthreads();
        fetch(stage + ahead, empty);
        if (active) {
            UNROLL
            for (int chunk = 0; chunk < A::CHUNKS; chunk++) {
                const unsigned char* from = shared + full + chunk * 2 * A::SIZE;
                A::multiply(tile, from, from + behind, A::PANEL, warp / 2, warp % 2, factors.scale);
            }
        }
        empty = full;
        full = full == last ? 0 : full + STAGE;
    }
    return put_down<A>(tile);
}

// The Scale of a sample where the product is P, else null.
template <class R>
DEVICE const Scale* scale_of(const Product<R>& arguments, int sample) {
    return arguments.scale ? arguments.scale + sample : nullptr;
}

// A warp's tile of a product, into what comes next.
template <class A, int TOGETHER, class R>
DEVICE void keep(const Product<R>& arguments, int sample, int first_row, int first_column, R* room) {
    const Factors<R>& factors = arguments.factors;
    if (!arguments.plain) {
        finish<A, TOGETHER>(arguments.epilogue, OnDevice(), scale_of(arguments, sample), sample, first_row, first_column, room);
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

// The block's tile of a product.
template <class A, int TOGETHER, class R, class Wait>
DEVICE void product(const Product<R>& arguments, const Place& place, Wait wait) {
    const Factors<R>& factors = arguments.factors;
    const bool active = place.is_there(factors.rows, factors.columns, !arguments.plain);
    R* room = multiply<A, true>(factors, place, active, wait);
    if (active) keep<A, TOGETHER>(arguments, place.sample, place.warp_row(), place.warp_column(), room);
}

template <class A, int TOGETHER, class R>
DEVICE void product(const Product<R>& arguments) {
    product<A, TOGETHER>(arguments, place_of_block(arguments.factors, !arguments.plain), [] { previous_is_over(); });
}

// A sample's products of matrices that are a single tile, one after the other.
template <class A, int TOGETHER, class R>
DEVICE void chain(const Chain<R>& arguments) {
    const Place place(blockIdx.x, 0, TILE, true);
    previous_is_over();
    _Pragma("unroll 1")
    for (int i = 0; i < arguments.count; i++) {
        product<A, TOGETHER>(arguments.products[i], place, [] {});
        // What the block's threads have written, the next product reads, in shared memory as well as beside it.
        __syncthreads();
    }
}
