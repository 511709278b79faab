// What is made of a new symmetric matrix, by a warp that has a 16x32 tile of it in shared memory.
//
// In loops with little code: what is run once is fetched at the speed of the cache for instructions, and slowly.
#pragma once

#include "arguments.cuh"
#include "operand.cuh"

// Rows of a tile that are made at a time.
constexpr int GROUP = 8;
// The shared memory of a warp, in numbers: its tile, and the rows of a factor that are made.
constexpr int WARP_ROOM = (TILE_ROWS + GROUP) * TILE_LD;

// Where a sample's matrices are: on the device, `before` numbers after those of the first sample.
struct OnDevice {
    template <class R>
    DEVICE R* places(const Epilogue<R>& epilogue, int64 before) const { return epilogue.places + before; }
    template <class R>
    DEVICE int64 place_stride(const Epilogue<R>& epilogue) const { return epilogue.place_stride; }
    // A factor of the next product, with so many rows.
    template <class R>
    DEVICE R* out(const Epilogue<R>& epilogue, int64 before, int number) const { return epilogue.out[number] + before; }
    DEVICE int rows(int side) const { return side; }
};

// Keeps the tile from `first_row` and `first_column` on and makes the factors of the next product. `room` has the tile, of all lanes.
//
// Where the matrix is P, A = (P + shift I) inverse takes its place first. The inverse comes in two parts, so that its own rounding does not
// shift every entry the same way. Of the tile's two 16x16 blocks one may lie on the diagonal, which is made symmetric, and one below it, which is
// left alone. A lane has four neighbors of every fourth row. An entry of a place
// is read and written by the same lane. No term is the place that the new matrix takes: what that has is this matrix, `own`.
//
// So many matrices are on their way TOGETHER: as long as one takes, all of them take.
template <class A, int TOGETHER, class R, class Matrices>
DEVICE void finish(const Epilogue<R>& epilogue, const Matrices& matrices, const Scale* scale, int sample, int first_row, int first_column, R* room) {
    static_assert(TERMS % TOGETHER == 0, "what is behind the last term is zero");
    constexpr int TURNS = GROUP / 4;
    const int side = epilogue.side, ld = epilogue.ld, lane = threadIdx.x % 32;
    const int64 before = int64(sample) * side * ld;
    const int column = first_column + lane % 8 * 4;
    R* const places = matrices.places(epilogue, before) + (first_row + lane / 8) * ld + column;
    // Of this lane's rows, those that there are; none in a block below the diagonal.
    const int lines = column < side && column >= first_row ? side - first_row - lane / 8 : 0;
    // Matrices from the term `begin` on, on their way while other things are done.
    Four<R> read[TOGETHER][TURNS];
    const auto request = [&](int first, int begin) {
        UNROLL
        for (int term = 0; term < TOGETHER; term++) {
            const R* from = places + epilogue.places_read[begin + term] * matrices.place_stride(epilogue) + first * ld;
            const int rows = begin + term < epilogue.terms ? lines - first : 0;
            UNROLL
            for (int i = 0; i < TURNS; i++) {
                read[term][i] = Four<R>();
                if (4 * i < rows) read[term][i] = *reinterpret_cast<const Four<R>*>(from + 4 * i * ld);
            }
        }
    };
    Four<R> sums[2][TURNS];
    const auto add = [&](int begin) {
        UNROLL
        for (int term = 0; term < TOGETHER; term++) {
            UNROLL
            for (int i = 0; i < 8 * TURNS; i++) {
                R& sum = sums[i % 8 / 4][i / 8].at[i % 4];
                sum = fused(epilogue.factors[i % 8 / 4][begin + term], read[term][i / 8].at[i % 4], sum);
            }
        }
    };
    request(0, 0);
    // The diagonal's place in the tile, if that is where a block begins.
    const int block = first_row - first_column;
    const bool diagonal = block >= 0;
    if (scale || diagonal) {
        R inverse = 1, rest = 0, shift = 0;
        if (scale) {
            inverse = R(scale->inverse);
            rest = R(scale->inverse - double(inverse));
            shift = R(scale->shift);
        }
        // Below the diagonal stands what is above it, before any of it is changed.
        const int own = lane - block;
        R values[TILE_ROWS];
        UNROLL
        for (int line = 0; line < TILE_ROWS; line++) {
            const bool below = diagonal && own >= 0 && own < line;
            const R value = below ? room[own * TILE_LD + block + line] : room[line * TILE_LD + lane];
            const R shifted = own == line ? value + shift : value;
            values[line] = fused(inverse, shifted, rest * shifted);
        }
        if (diagonal) warp_sync();
        UNROLL
        for (int line = 0; line < TILE_ROWS; line++) room[line * TILE_LD + lane] = values[line];
        warp_sync();
    }
    R* made = room + TILE_ROWS * TILE_LD;
    _Pragma("unroll 1")
    for (int first = 0; first < TILE_ROWS; first += GROUP) {
        const int row = first_row + first + lane / 8, rows = lines - first;
        const Four<R>* tile = reinterpret_cast<const Four<R>*>(room + (first + lane / 8) * TILE_LD + lane % 8 * 4);
        UNROLL
        for (int i = 0; i < TURNS; i++) {
            const Four<R> entries = tile[i * TILE_LD];
            if (epilogue.keep && 4 * i < rows) *reinterpret_cast<Four<R>*>(places + epilogue.place * matrices.place_stride(epilogue) + (first + 4 * i) * ld) = entries;
            UNROLL
            for (int k = 0; k < 8; k++) {
                const R identity = row + 4 * i == column + k % 4 ? epilogue.identity[k / 4] : R(0);
                sums[k / 4][i].at[k % 4] = fused(epilogue.own[k / 4], entries.at[k % 4], identity);
            }
        }
        add(0);
        _Pragma("unroll 1")
        for (int begin = TOGETHER; begin < epilogue.terms; begin += TOGETHER) {
            request(first, begin);
            add(begin);
        }
        if (first + GROUP < TILE_ROWS) request(first + GROUP, 0);
        UNROLL
        for (int number = 0; number < 2; number++) {
            if (!epilogue.out[number]) continue;
            R* out = matrices.out(epilogue, before, number);
            UNROLL
            for (int i = 0; i < TURNS; i++) {
                if (4 * i < rows) A::put(out, matrices.rows(side), ld, row + 4 * i, column, sums[number][i]);
                *reinterpret_cast<Four<R>*>(made + (lane / 8 + 4 * i) * TILE_LD + lane % 8 * 4) = sums[number][i];
            }
            // The same entries in the lower triangle: eight neighbors of a row there, which is this lane's column here.
            warp_sync();
            R values[GROUP];
            UNROLL
            for (int k = 0; k < GROUP; k++) values[k] = made[k * TILE_LD + lane];
            const int below = first_column + lane;
            if (below < side && below >= first_row + TILE_ROWS) A::put(out, matrices.rows(side), ld, below, first_row + first, values);
            warp_sync();
        }
    }
}
