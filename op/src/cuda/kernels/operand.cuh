// The operands of products: how their numbers lie in memory, and what multiplies them.
//
// An arithmetic A has
//     A::Real          the type of sums
//     A::PLANES        how often a row holds a number's part, in planes of ld parts
//     A::BYTES         bytes of a part
//     A::PAD           bytes that rows in shared memory are longer than a multiple of 128, at which accesses have no bank conflicts
//     A::put           writes one number of a row, or two neighbors, of which the first has an even column
//     A::Fragment      a warp's tile of a product
// In any arithmetic a row takes ld * sizeof(Real) bytes.
#pragma once

#include "fragment.cuh"

// Numbers as they are.
template <class R>
struct Plain {
    typedef R Real;
    typedef MultiplyAdd<R> Fragment;
    static constexpr int PLANES = 1, BYTES = sizeof(R), PAD = 8 * sizeof(R);

    DEVICE static void put(R* row, int, int column, R value) { row[column] = value; }
    DEVICE static void put(R* row, int, int column, R first, R second) {
        *reinterpret_cast<Two<R>*>(row + column) = {{first, second}};
    }
};

#if ISQRT_TIER >= 80
// A float32 number as the sum of two of float16, of which the second takes what the first leaves out: together 22 bits and a sign, for numbers
// that a power of two has brought to where float16 has all of its bits.
struct Halves {
    typedef float Real;
    typedef TensorCores Fragment;
    static constexpr int PLANES = 2, BYTES = 2, PAD = 16;

    DEVICE static void put(float* row, int ld, int column, float value) {
        const Parts parts(value);
        unsigned short* planes = reinterpret_cast<unsigned short*>(row);
        planes[column] = parts.high.bits;
        planes[ld + column] = parts.low.bits;
    }
    DEVICE static void put(float* row, int ld, int column, float first, float second) {
        const Parts a(first), b(second);
        unsigned short* planes = reinterpret_cast<unsigned short*>(row);
        *reinterpret_cast<unsigned*>(planes + column) = a.high.bits | unsigned(b.high.bits) << 16;
        *reinterpret_cast<unsigned*>(planes + ld + column) = a.low.bits | unsigned(b.low.bits) << 16;
    }

private:
    struct Parts {
        f16 high, low;

        DEVICE explicit Parts(float value) {
            narrow(value, high);
            narrow(value - widen(high), low);
        }
    };
};
#endif
