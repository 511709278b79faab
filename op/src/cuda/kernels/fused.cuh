// The whole layer of a sample in one launch, by a cluster of blocks: stages as those of the other kernels, with the cluster's barrier where
// they have the end of a launch. What one block makes for another goes through memory that stays in the device's cache.
//
// For sides up to 256. Every warp has a tile at a time, and a block those panels of the factors in shared memory that its tiles need: all rows of
// them at once where there is room, and otherwise in a ring of pieces.
#pragma once

#include "read.cuh"
#include "write.cuh"

constexpr int FUSED_THREADS = 384;
constexpr int FUSED_WARPS = FUSED_THREADS / 32;
constexpr int FUSED_SHARED = 208 << 10;
constexpr int MOST_STAGES = 8;
// Rows of a piece, and bytes of a panel's.
constexpr int PIECE = 2 * CHUNK;
constexpr int PIECE_SIZE = PIECE * Halves::ROW;

// Waits until at most `pending` groups of this thread are under way.
DEVICE void copies_wait_for(int pending) {
    switch (pending) {
        case 0: copies_wait<0>(); break;
        case 1: copies_wait<1>(); break;
        case 2: copies_wait<2>(); break;
        case 3: copies_wait<3>(); break;
        case 4: copies_wait<4>(); break;
        case 5: copies_wait<5>(); break;
        default: copies_wait<6>(); break;
    }
}

DEVICE int ones(int mask) {
    int count = 0;
    UNROLL
    for (int i = 0; i < 8; i++) count += mask >> i & 1;
    return count;
}

// Asks for rows `k` to `k + PIECE` of the panels of an operand that are listed. What is beyond it is zero.
DEVICE void send_panels(unsigned char* shared, const float* operand, unsigned panels, int count, int k, int depth) {
    const int offset = threadIdx.x * 16;
    if (offset >= PIECE_SIZE) return;
    const bool there = k + offset / Halves::ROW < depth;
    const unsigned char* rows = reinterpret_cast<const unsigned char*>(operand) + (there ? k * Halves::ROW + offset : 0);
    const int valid = there ? 16 : 0, panel_size = there ? depth * Halves::ROW : 0;
    shared += offset;
    _Pragma("unroll 1")
    for (int i = 0; i < count; i++, panels >>= 4, shared += PIECE_SIZE) copy_16(shared, rows + (panels & 15) * panel_size, valid);
}

// Calls `done(row, column, room)` for this warp's tiles of LᵀR, with the tile in the warp's shared memory.
template <class Done>
DEVICE void multiply_all(const Factors<float>& factors, int64 sample, const Tiles& tiles, int rank, Done done) {
    unsigned char* shared = shared_memory<unsigned char>();  // [stage][left and right]
    const float* left = factors.left + sample * factors.left_stride;
    const float* right = factors.right + sample * factors.right_stride;
    const bool square = left == right;
    const Share& share = tiles.shares[rank];
    if (share.count == 0) return;
    const int left_mask = share.left, right_mask = square ? left_mask : share.right;
    const int left_count = ones(left_mask), right_count = square ? 0 : ones(right_mask);
    const int stage_size = (left_count + right_count) * PIECE_SIZE;
    const int most = FUSED_SHARED / stage_size;
    const int stages = most < MOST_STAGES ? most : MOST_STAGES;
    const int depth = factors.depth, pieces = (depth + PIECE - 1) / PIECE;
    const int warp = threadIdx.x / 32;
    const auto fetch = [&](int piece, int stage) {
        if (piece < pieces) {
            unsigned char* to = shared + stage * stage_size;
            send_panels(to, left, share.left_panels, left_count, piece * PIECE, depth);
            send_panels(to + left_count * PIECE_SIZE, right, share.right_panels, right_count, piece * PIECE, depth);
        }
        copies_commit();
    };
    _Pragma("unroll 1")
    for (int first = 0; first < share.count; first += FUSED_WARPS) {
        const bool active = first + warp < share.count;
        const int number = active ? tiles.order[share.first + first + warp] : 0;
        const int i = number / 8, j = number % 8;
        const unsigned char* left_panel = shared + ones(left_mask & ((1 << i) - 1)) * PIECE_SIZE;
        const unsigned char* right_panel = shared + (square ? 0 : left_count * PIECE_SIZE) + ones(right_mask & ((1 << j) - 1)) * PIECE_SIZE;
        TensorCores tile;
        _Pragma("unroll 1")
        for (int piece = 0; piece < stages - 1; piece++) fetch(piece, piece);
        int stage = 0, filled = stages - 1;
        _Pragma("unroll 1")
        for (int piece = 0; piece < pieces; piece++) {
            copies_wait_for(stages - 2);
            __syncthreads();
            fetch(piece + stages - 1, filled);
            if (active) {
                const int rows = depth - piece * PIECE < PIECE ? depth - piece * PIECE : PIECE;
                const int at = stage * stage_size, next = at + CHUNK * Halves::ROW;
                tile.multiply(left_panel + at, right_panel + at, factors.scale);
                if (rows > CHUNK) tile.multiply(left_panel + next, right_panel + next, factors.scale);
            }
            if (++stage == stages) stage = 0;
            if (++filled == stages) filled = 0;
        }
        // The pieces have been used up: the tiles may have their memory, and then the next tiles' pieces.
        __syncthreads();
        float* room = shared_memory<float>() + warp * WARP_ROOM<float>;
        if (active) {
            tile.store(room);
            warp_sync();
            done(i * WARP_TILE, j * WARP_TILE, room);
        }
        __syncthreads();
    }
}

template <class T>
DEVICE void fused(const Fused<T>& arguments) {
    const int rank = cluster_rank(), blocks = cluster_size();
    const int64 sample = blockIdx.x / blocks;
    const int channels = arguments.center.channels, positions = arguments.center.positions;
    _Pragma("unroll 1")
    for (int group = rank; group < moments_blocks(channels, FUSED_THREADS); group += blocks) {
        moments(arguments.moments, sample, group);
    }
    cluster_sync();
    const int exponent = sample_exponent(arguments.center, sample, rank);
    _Pragma("unroll 1")
    for (int block = rank; block < center_blocks(channels, positions); block += blocks) {
        center<Halves>(arguments.center, sample, block, exponent);
    }
    _Pragma("unroll 1")
    for (int step = 0; step <= arguments.steps; step++) {
        cluster_sync();
        const bool last = step == arguments.steps;
        const Product<float>& product = arguments.products[last ? 0 : step];
        const Factors<float>& factors = last ? arguments.write.factors : product.factors;
        const Tiles& tiles = last ? arguments.last : product.plain ? arguments.rectangle
                             : factors.left == factors.right   ? arguments.square
                                                               : arguments.symmetric;
        multiply_all(factors, sample, tiles, rank, [&](int row, int column, float* room) {
            if (last) {
                emit(arguments.write, sample, row, column, room);
            } else {
                keep<Halves>(product, sample, row, column, room);
            }
        });
    }
}
