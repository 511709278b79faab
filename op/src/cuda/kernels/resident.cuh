// A sample's products of matrices that are a single tile, where shared memory keeps what is between the first one's factors and the last one's.
//
// A block's shared memory has the stages of the first product, and over them, when that is made: the warps' tiles, both factors of the next product
// as whole operands, and, where the host has left room for them, the places.
#pragma once

#include "product.cuh"

// Where a sample's matrices are: the factors that are made of any but the `last` product are the next one's, here.
template <class A>
struct Resident {
    typedef typename A::Real R;
    R* kept;  // the places, or null where they are on the device
    bool last;

    // The factor `number`, and behind both the places.
    DEVICE static R* operand(int number) {
        return shared_memory<R>() + PRODUCT_THREADS / 32 * WARP_ROOM + number * (A::WHOLE / int(sizeof(R)));
    }
    DEVICE R* places(const Epilogue<R>& epilogue, int64 before) const { return kept ? kept : epilogue.places + before; }
    DEVICE int64 place_stride(const Epilogue<R>& epilogue) const { return kept ? epilogue.side * epilogue.ld : epilogue.place_stride; }
    DEVICE R* out(const Epilogue<R>& epilogue, int64 before, int number) const { return last ? epilogue.out[number] + before : operand(number); }
    DEVICE int rows(int side) const { return last ? side : TILE; }
};

// This warp's part of a product of resident operands, into its part of the shared memory, which is what comes back.
template <class A, class R>
DEVICE R* multiply_resident(const Factors<R>& factors, bool active) {
    const auto operand = [](int number) { return reinterpret_cast<const unsigned char*>(Resident<A>::operand(number)); };
    const unsigned char *left = operand(0), *right = operand(factors.right == factors.left ? 0 : 1);
    const int warp = threadIdx.x / 32;
    typename A::Fragment tile;
    if (active) {
        _Pragma("unroll 1")
        for (int row = 0; row < factors.depth; row += CHUNK, left += A::PANEL, right += A::PANEL) {
            A::multiply(tile, left, right, A::WHOLE_PANEL, warp / 2, warp % 2, factors.scale);
        }
    }
    return put_down<A>(tile);
}

template <class A, int TOGETHER, class R>
DEVICE void resident_chain(const Chain<R>& arguments) {
    const Place place(blockIdx.x, 0, TILE, true);
    R* kept = arguments.resident ? Resident<A>::operand(2) : nullptr;
    _Pragma("unroll 1")
    for (int i = 0; i < arguments.count; i++) {
        const Product<R>& one = arguments.products[i];
        const int side = one.epilogue.side;
        const bool active = place.is_there(side, side, true);
        R* room;
        if (i == 0) {
            room = multiply<A, true>(one.factors, place, active, [] { previous_is_over(); });
            // Behind the last row a chunk of a factor has zeros.
            for (int at = side * A::ROW / 16 + threadIdx.x; at < (side + CHUNK - 1) / CHUNK * A::PANEL / 16; at += PRODUCT_THREADS) {
                UNROLL
                for (int panel = 0; panel < 2 * A::WHOLE; panel += A::WHOLE_PANEL) {
                    reinterpret_cast<Four<R>*>(Resident<A>::operand(0))[panel / 16 + at] = Four<R>();
                }
            }
        } else {
            room = multiply_resident<A>(one.factors, active);
        }
        const Resident<A> matrices = {kept, i + 1 == arguments.count};
        if (active) finish<A, TOGETHER>(one.epilogue, matrices, scale_of(one, place.sample), place.sample, place.warp_row(), place.warp_column(), room);
        // What the block's threads have written, the next product reads.
        __syncthreads();
    }
}
