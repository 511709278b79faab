// Kernels that test the shim: right ones, and with -DMISTAKE=n ones that it has to catch.
#include "platform.cuh"

#ifndef MISTAKE
#define MISTAKE 0
#endif

struct Sums {
    const float* x;
    double* sums;
    int length;
};

// One sum for a block, by warps and then by a tree in shared memory.
KERNEL(256, 2) sums(const Sums of) {
    double* partial = shared_memory<double>();
    int thread = threadIdx.x;
    double sum = 0;
    for (int i = thread; i < of.length; i += blockDim.x) sum += widen(of.x[int64(blockIdx.x) * of.length + i]);
    for (int mask = 16; mask > 0; mask /= 2) sum += exchange(sum, mask);
    if (thread % 32 == 0) partial[thread / 32] = sum;
#if MISTAKE == 2
    if (thread < 64) return;
#endif
#if MISTAKE != 1
    __syncthreads();
#endif
    if (thread == 0) {
        double total = 0;
        for (int i = 0; i < int(blockDim.x) / 32 + (MISTAKE == 3); ++i) total += partial[i];
        of.sums[blockIdx.x] = total;
    }
#if MISTAKE == 4
    of.sums[0] = 1;
#endif
#if MISTAKE == 5
    if (thread == 0) of.sums[gridDim.x] = 0;
#endif
}

#if ISQRT_TIER >= 80
struct Stream {
    const float* x;
    float* y;
    int length;  // floats, of which 4 make a copy
};

// y = x reversed within runs of 4 * threads, through a pipeline of two stages in shared memory.
KERNEL(128, 4) stream(const Stream of) {
    float* buffer = shared_memory<float>();
    int size = 4 * blockDim.x, own = 4 * threadIdx.x, runs = (of.length + size - 1) / size;
    auto fetch = [&](int run) {
        int from = run * size + own;
        int valid = min(16, max(0, 4 * (of.length - from)));
        if (run < runs) copy_16(buffer + run % 2 * size + own, of.x + (valid ? from : 0), valid);
        copies_commit();
    };
    fetch(0);
    for (int run = 0; run < runs; ++run) {
        fetch(run + 1);
        copies_wait<MISTAKE == 6 ? 2 : 1>();
        if (MISTAKE != 7) __syncthreads();
        for (int i = threadIdx.x; i < size; i += blockDim.x) {
            if (run * size + i < of.length) of.y[run * size + i] = buffer[run % 2 * size + size - 1 - i];
        }
        if (MISTAKE != 8) __syncthreads();
    }
}

struct Tile {
    const f16* a;  // 16x16, the transpose
    const f16* b;  // 16x8
    float* c;      // 16x8
};

KERNEL(32, 1) tile(const Tile of) {
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    f16* shared = shared_memory<f16>();  // a, and b in rows of 16
    for (int i = lane; i < 256; i += 32) shared[i] = of.a[i];
    for (int i = lane; i < 128; i += 32) shared[256 + i / 8 * 16 + i % 8] = of.b[i];
    __syncthreads();
    float c[4] = {0, 0, 0, 0};
    const float zero[4] = {0, 0, 0, 0};
    unsigned a[4], b[4];
    load_transposed(a, shared + (lane / 16 * 8 + lane % 8) * 16 + lane / 8 % 2 * 8);
    load_transposed(b, shared + 256 + (lane / 8 % 2 * 8 + lane % 8) * 16);
    const unsigned first[2] = {b[0], b[1]};
    if (MISTAKE != 9 || threadIdx.x != 5) multiply_f16(c, a, first, zero);
    for (int i = 0; i < 4; ++i) of.c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
}
#endif

#if ISQRT_TIER >= 90
struct Ring {
    int* x;      // one for each block
    int* found;  // likewise
};

// Each block says a number, and reads its neighbor's in the cluster.
KERNEL(64, 1) ring(const Ring of) {
    int rank = cluster_rank(), size = cluster_size(), first = int(blockIdx.x) - rank;
    if (threadIdx.x == 0) of.x[blockIdx.x] = 10 * int(blockIdx.x);
    if (MISTAKE != 10) cluster_sync();
    if (threadIdx.x == 63) of.found[blockIdx.x] = of.x[first + (rank + 1) % size];
}
#endif
