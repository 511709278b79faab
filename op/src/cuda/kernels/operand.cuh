// The operands of products: how their numbers lie in memory, how a block gets them, and what multiplies them.
//
// An arithmetic A has
//     A::Real       the type of sums
//     A::put        writes four or eight neighbors of a row of an operand with so many rows of `ld` numbers, from a column on that is a
//                   multiple of as many
//     A::SIZE       bytes of CHUNK rows and TILE columns in shared memory
//     A::STAGES     stages there, each with A::CHUNKS chunks of both operands; A::MORE_STAGES where a block has a multiprocessor for itself
//     A::Stream     asks for an operand's chunks, one after the other
//     A::multiply   lets a warp's tile, an A::Fragment, have its part of them: columns from 16 `down` and 32 `across` on, in panels of 32 that are
//                   `panel` bytes apart
//     A::PANEL      bytes from panel to panel of such a chunk
// In any arithmetic an operand takes rows * ld * sizeof(Real) bytes.
#pragma once

#include "fragment.cuh"

constexpr int TILE = 64;
constexpr int PRODUCT_THREADS = 256;

// Numbers as they are, row by row.
template <class R>
struct Plain {
    typedef R Real;
    typedef MultiplyAdd<R> Fragment;
    // Rows that are 8 numbers longer keep the accesses free of bank conflicts.
    static constexpr int STRIDE = (TILE + 8) * sizeof(R), SIZE = CHUNK * STRIDE, PANEL = 0;
    static constexpr int STAGES = sizeof(R) == 4 ? 4 : 2, MORE_STAGES = STAGES, CHUNKS = 1;

    DEVICE static void put(R* operand, int, int ld, int row, int column, const Four<R>& values) {
        *reinterpret_cast<Four<R>*>(operand + row * ld + column) = values;
    }
    DEVICE static void put(R* operand, int, int ld, int row, int column, const R (&values)[8]) {
        Four<R>* to = reinterpret_cast<Four<R>*>(operand + row * ld + column);
        to[0] = {{values[0], values[1], values[2], values[3]}};
        to[1] = {{values[4], values[5], values[6], values[7]}};
    }

    struct Stream {
        static constexpr int WIDE = 16 / sizeof(R), ACROSS = TILE / WIDE, DOWN = PRODUCT_THREADS / ACROSS;
        const R* from;  // this thread's part of the next chunk
        int ld, rows;   // and how many rows there are from its row on
        int valid;      // bytes

        // Columns from `column` on of `columns`.
        DEVICE Stream(const R* operand, int all_rows, int ld, int column, int columns) : ld(ld) {
            const int row = threadIdx.x / ACROSS, offset = column + threadIdx.x % ACROSS * WIDE, left = columns - offset;
            from = operand + row * ld + offset;
            rows = all_rows - row;
            valid = left > 0 ? (left < WIDE ? left : WIDE) * int(sizeof(R)) : 0;
        }
        DEVICE void send(unsigned char* shared) {
            unsigned char* to = shared + threadIdx.x / ACROSS * STRIDE + threadIdx.x % ACROSS * 16;
            UNROLL
            for (int i = 0; i < CHUNK; i += DOWN) copy_16(to + i * STRIDE, from + i * ld, i < rows ? valid : 0);
            from += CHUNK * ld;
            rows -= CHUNK;
        }
    };

    DEVICE static void multiply(Fragment& tile, const unsigned char* left, const unsigned char* right, int, int down, int across, R) {
        tile.template multiply<STRIDE>(left + down * int(TILE_ROWS * sizeof(R)), right + across * int(TILE_COLUMNS * sizeof(R)));
    }
};

#if ISQRT_TIER >= 80
// A float32 number as the sum of two of float16, of which the second takes what the first leaves out: together 22 bits and a sign, for numbers
// that a power of two has brought to where float16 has all of its bits.
//
// Panels of 32 columns lie one after another, rows of 128 bytes in each: eight units of 16 bytes, the high halves and then the low ones, in an
// order that depends on the row: unit u is at u XOR (row % 8). So a panel is copied as it is, and eight rows of a unit are in different banks.
struct Halves {
    typedef float Real;
    typedef TensorCores Fragment;
    static constexpr int ROW = 128, PANEL = CHUNK * ROW, SIZE = TILE / TILE_COLUMNS * PANEL;
    // Bytes of a panel of TILE rows, and of an operand of TILE columns in such panels.
    static constexpr int WHOLE_PANEL = TILE * ROW, WHOLE = TILE / TILE_COLUMNS * WHOLE_PANEL;
    static constexpr int STAGES = 3, MORE_STAGES = 6, CHUNKS = 2;

    DEVICE static void put(float* operand, int rows, int, int row, int column, const Four<float>& values) {
        Two<unsigned> high, low;
        UNROLL
        for (int i = 0; i < 2; i++) split(values.at[2 * i], values.at[2 * i + 1], high.at[i], low.at[i]);
        unsigned char* unit = place(operand, rows, row, column);
        *reinterpret_cast<Two<unsigned>*>(unit + column % 8 * 2) = high;
        *reinterpret_cast<Two<unsigned>*>(other(unit) + column % 8 * 2) = low;
    }
    DEVICE static void put(float* operand, int rows, int, int row, int column, const float (&values)[8]) {
        Four<unsigned> high, low;
        UNROLL
        for (int i = 0; i < 4; i++) split(values[2 * i], values[2 * i + 1], high.at[i], low.at[i]);
        unsigned char* unit = place(operand, rows, row, column);
        *reinterpret_cast<Four<unsigned>*>(unit) = high;
        *reinterpret_cast<Four<unsigned>*>(other(unit)) = low;
    }

    // Where the high halves of a column's unit are, and the low ones.
    DEVICE static unsigned char* place(float* operand, int rows, int row, int column) {
        const int unit = (column % TILE_COLUMNS / 8) ^ (row % 8);
        return reinterpret_cast<unsigned char*>(operand) + int64(column / TILE_COLUMNS * rows + row) * ROW + (unit << 4);
    }
    DEVICE static unsigned char* other(unsigned char* unit) {
        return reinterpret_cast<unsigned char*>(reinterpret_cast<unsigned long long>(unit) ^ 64);
    }
    DEVICE static void split(float first, float second, unsigned& high, unsigned& low) {
        f16 parts[2][2];
        narrow(first, parts[0][0]);
        narrow(second, parts[1][0]);
        narrow(first - widen(parts[0][0]), parts[0][1]);
        narrow(second - widen(parts[1][0]), parts[1][1]);
        high = parts[0][0].bits | unsigned(parts[1][0].bits) << 16;
        low = parts[0][1].bits | unsigned(parts[1][1].bits) << 16;
    }

    struct Stream {
        const unsigned char* from;  // this thread's part of the next chunk
        int rows;                   // there are from its row on

        DEVICE Stream(const float* operand, int all_rows, int, int column, int columns) {
            const int offset = threadIdx.x * 16 % PANEL, panel = column / TILE_COLUMNS + threadIdx.x * 16 / PANEL;
            from = reinterpret_cast<const unsigned char*>(operand) + int64(panel * all_rows) * ROW + offset;
            rows = panel * TILE_COLUMNS < columns ? all_rows - offset / ROW : 0;
        }
        DEVICE void send(unsigned char* shared) {
            copy_16(shared + threadIdx.x * 16, from, rows > 0 ? 16 : 0);
            from += PANEL;
            rows -= CHUNK;
        }
    };

    DEVICE static void multiply(Fragment& tile, const unsigned char* left, const unsigned char* right, int panel, int down, int across, float scale) {
        tile.multiply(left + down / 2 * panel, down % 2, right + across * panel, scale);
    }
};
static_assert(Halves::SIZE == PRODUCT_THREADS * 16, "every thread copies 16 bytes of a chunk");
#endif
