// The whole layer of a sample in one launch, by a cluster of blocks: stages as those of the other kernels, with the cluster's barrier where
// they have the end of a launch. What one block makes for another goes through memory that stays in the device's cache.
//
// For sides up to 256. Every warp has a tile at a time, and a block those columns of the factors in shared memory that its tiles need: all rows of
// them at once where there is room, and otherwise in a ring of pieces.
#pragma once

#include "read.cuh"
#include "write.cuh"

constexpr int FUSED_THREADS = 512;
constexpr int FUSED_WARPS = FUSED_THREADS / 32;
constexpr int FUSED_SHARED = 208 << 10;
constexpr int MOST_STAGES = 8;
// Rows of a piece.
constexpr int PIECE = 2 * CHUNK;
// Rows for as many columns as a panel has, of one plane, in bytes.
constexpr int PANEL = WARP_TILE * Halves::BYTES;

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

// The panels of an operand that a block has, in shared memory side by side.
struct Panels {
    int mask, count, stride;  // bytes from row to row

    DEVICE explicit Panels(int mask) : mask(mask), count(bits(mask)), stride(bits(mask) * PANEL + Halves::PAD) {}
    DEVICE int plane() const { return PIECE * stride; }
    DEVICE int size() const { return Halves::PLANES * plane(); }
    // Where panel `panel` is in a row.
    DEVICE int place(int panel) const { return bits(mask & ((1 << panel) - 1)) * PANEL; }
    DEVICE static int bits(int mask) {
        int count = 0;
        UNROLL
        for (int i = 0; i < 8; i++) count += mask >> i & 1;
        return count;
    }

    // Sends rows `k` to `k + PIECE`. What is beyond the operand is zero. A warp has rows of its own.
    DEVICE void send(unsigned char* shared, const float* operand, int ld, int k, int depth, int columns) const {
        constexpr int WIDE = 16 / Halves::BYTES, ACROSS = PANEL / 16;
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const int plane_of = lane / ACROSS % 2, offset = lane % ACROSS * WIDE, row_of = lane / (2 * ACROSS);
        const unsigned short* planes = reinterpret_cast<const unsigned short*>(operand) + plane_of * ld;
        // Every other panel, from one of two on.
        constexpr int GROUPS = PIECE / 4;
        const int row = warp % GROUPS * 4 + row_of;
        int turn = warp / GROUPS;
        unsigned char* to = shared + plane_of * plane() + row * stride + offset * Halves::BYTES;
        const unsigned short* from = planes + (k + row) * 2 * ld + offset;
        for (int left = mask, panel = 0; left; left >>= 1, panel++) {
            if (!(left & 1)) continue;
            if ((turn++ & 1) == 0) {
                const int beyond = columns - panel * WARP_TILE - offset;
                const int valid = k + row < depth && beyond > 0 ? ((beyond < WIDE ? beyond : WIDE) * Halves::BYTES + 3) & ~3 : 0;
                copy_16(to, valid ? from + panel * WARP_TILE : planes, valid);
            }
            to += PANEL;
        }
    }
};

// Calls `done(i, j, tile)` for this warp's tiles of LᵀR, which begin at row i and column j.
template <class Done>
DEVICE void multiply_all(const Factors<float>& factors, int64 sample, const Tiles& tiles, int rank, Done done) {
    unsigned char* shared = shared_memory<unsigned char>();  // [stage][left and right]
    const float* left = factors.left + sample * factors.left_stride;
    const float* right = factors.right + sample * factors.right_stride;
    const bool square = left == right;
    const Share share = tiles.shares[rank];
    const Panels left_panels(square ? share.left | share.right : share.left), right_panels(square ? 0 : share.right);
    const int stage_size = left_panels.size() + (square ? 0 : right_panels.size());
    const int most = FUSED_SHARED / stage_size;
    const int stages = most < MOST_STAGES ? most : MOST_STAGES;
    const int depth = factors.depth, pieces = (depth + PIECE - 1) / PIECE;
    const int warp = threadIdx.x / 32;
    const auto fetch = [&](int piece, int stage) {
        if (piece < pieces) {
            unsigned char* to = shared + stage * stage_size;
            left_panels.send(to, left, factors.left_ld, piece * PIECE, depth, factors.rows);
            if (!square) right_panels.send(to + left_panels.size(), right, factors.right_ld, piece * PIECE, depth, factors.columns);
        }
        copies_commit();
    };
    for (int first = 0; first < share.count; first += FUSED_WARPS) {
        const bool active = first + warp < share.count;
        const int number = active ? tiles.order[share.first + first + warp] : 0;
        const int i = number / 8, j = number % 8;
        const int left_place = left_panels.place(i), right_place = square ? left_panels.place(j) : left_panels.size() + right_panels.place(j);
        const int right_stride = square ? left_panels.stride : right_panels.stride;
        const int right_plane = square ? left_panels.plane() : right_panels.plane();
        Halves::Fragment tile(i * WARP_TILE, j * WARP_TILE);
        for (int piece = 0; piece < stages - 1; piece++) fetch(piece, piece);
        for (int piece = 0, stage = 0, filled = stages - 1; piece < pieces; piece++) {
            copies_wait_for(stages - 2);
            __syncthreads();
            fetch(piece + stages - 1, filled);
            const unsigned char* at = shared + stage * stage_size;
            UNROLL
            for (int k = 0; k < PIECE; k += CHUNK) {
                if (!active || piece * PIECE + k >= depth) continue;
                const Rows l = {at + left_place + k * left_panels.stride, left_panels.stride, left_panels.plane()};
                const Rows r = {at + right_place + k * right_stride, right_stride, right_plane};
                tile.multiply(l, r, factors.scale);
            }
            if (++stage == stages) stage = 0;
            if (++filled == stages) filled = 0;
        }
        // The pieces have been used up, and `done` may have their memory; then the next tiles' pieces.
        __syncthreads();
        if (active) done(i * WARP_TILE, j * WARP_TILE, tile);
        __syncthreads();
    }
}

template <class T>
DEVICE void fused(const Fused<T>& arguments) {
    const int rank = cluster_rank(), blocks = cluster_size();
    const int64 sample = blockIdx.x / blocks;
    const int channels = arguments.center.channels, positions = arguments.center.positions;
    for (int group = rank; group < moments_blocks(channels, FUSED_THREADS); group += blocks) {
        moments(arguments.moments, sample, group);
    }
    cluster_sync();
    const int exponent = sample_exponent(arguments.center, sample, rank);
    for (int block = rank; block < center_blocks(channels, positions); block += blocks) {
        center<Halves>(arguments.center, sample, block, exponent);
    }
    for (int step = 0; step < arguments.steps; step++) {
        cluster_sync();
        const Product<float>& product = arguments.products[step];
        multiply_all(product.factors, sample, product.plain ? arguments.rectangle : arguments.symmetric, rank,
                     [&](int, int, Halves::Fragment& tile) { keep<Halves>(product, sample, tile); });
    }
    cluster_sync();
    float* shared = shared_memory<float>() + int(threadIdx.x) / 32 * WARP_TILE * WRITE_LD;
    multiply_all(arguments.write.factors, sample, arguments.last, rank, [&](int row, int column, Halves::Fragment& tile) {
        emit(arguments.write, sample, row, column, tile, shared);
    });
}
