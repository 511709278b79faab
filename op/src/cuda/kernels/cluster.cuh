// A sample's products and its output in one launch, by the blocks of a cluster.
#pragma once

#include "write.cuh"

// What a block is at: a tile of a product, and the tile after it. In shared memory, where it takes no registers while the product is made.
struct Turn {
    Place place;
    int product, next;
};
static_assert(sizeof(Turn) <= TURN, "the host leaves room for it");

// Each product and the output waits for what all blocks of the cluster have made of the one before.
template <class A, class T, class R>
DEVICE void cluster(const Cluster<T, R>& arguments) {
    Turn& turn = *reinterpret_cast<Turn*>(shared_memory<unsigned char>() + arguments.behind);
    int i = 0;
    // This block's tiles of the product i, one after the other.
    const auto each_tile = [&](const Factors<R>& factors, bool symmetric, auto work) {
        _Pragma("unroll 1")
        for (int tile = blockIdx.x % arguments.blocks; tile < factors.tiles; tile = turn.next) {
            // The last turn is over: what it has written is there, and what is in shared memory of it has been used up.
            __syncthreads();
            if (threadIdx.x == 0) turn = {Place(blockIdx.x / arguments.blocks, tile, factors.columns, symmetric), i, tile + arguments.blocks};
            __syncthreads();
            work();
            i = turn.product;
        }
    };
    previous_is_over();
    _Pragma("unroll 1")
    for (; i < arguments.count; i++) {
        const Product<R>& one = arguments.products[i];
        each_tile(one.factors, !one.plain, [&] { product<A, 3>(one, turn.place, [] {}); });
        // Until then all is the same block's, whose threads meet in `each_tile`.
        if (i + 1 >= arguments.single && (i + 1 < arguments.count || arguments.write.out)) cluster_sync();
    }
    if (arguments.write.out) each_tile(arguments.write.factors, true, [&] { write<A>(arguments.write, turn.place, [] {}); });
}
