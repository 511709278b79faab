// The kernels' machine for tests: what `platform.cuh` asks of a GPU, and those of CUDA's names that the kernels use, in C++17.
//
// A block's threads are fibers of one processor, so that a run can be repeated to the bit, in any order (`machine.cpp`). What
// a GPU would leave to luck is made visible: shared memory starts as NaN and is as large as asked for and no larger; a copy's
// destination is NaN until its thread has waited for it; a barrier that not all threads reach ends the program.
//
// `build` finds the kernels by the attribute that KERNEL leaves in the preprocessed text, and compiles each tier's in a namespace
// of its own.
#pragma once

#include "numbers.hpp"

#define DEVICE inline __attribute__((always_inline))
#define KERNEL(threads, blocks) [[isqrt::kernel(threads, blocks)]] static void
#define UNROLL _Pragma("GCC unroll 16")

namespace shim {

struct Index {
    unsigned x;
};
// Where a thread is, and what it has.
struct Place {
    Index thread, block, threads, blocks;
    void* shared;
};
// The running thread's. Host threads may launch side by side.
extern __thread const Place* here __attribute__((tls_model("initial-exec")));

struct Copy {
    void* shared;
    const void* global;
    int valid;
};

// The collectives: each returns when all threads of the block, of its cluster or of the warp have come to it.
void block_barrier();
void cluster_barrier();
void warp_barrier();
// Counts those who wait for the launch before.
void wait_for_previous();
uint64_t warp_exchange(uint64_t value, int mask);
void warp_addresses(const void* own, const void* (&all)[32]);
void warp_multiply(float* c, const unsigned* a, const unsigned* b);

// A thread's copies under way: `first_copy` takes the oldest off the list if its group has to be done for at most `pending` to be left.
void add_copy(Copy copy);
void end_group();
bool first_copy(int pending, Copy& copy);

}  // namespace shim

#define threadIdx (shim::here->thread)
#define blockIdx (shim::here->block)
#define blockDim (shim::here->threads)
#define gridDim (shim::here->blocks)

// Launches run one after the other; that every thread waits is counted.
DEVICE void let_next_begin() {}
DEVICE void previous_is_over() { shim::wait_for_previous(); }

DEVICE void __syncthreads() { shim::block_barrier(); }
#if ISQRT_TIER >= 90
DEVICE void cluster_sync() { shim::cluster_barrier(); }
#endif

template <class T>
DEVICE T* shared_memory() {
    return static_cast<T*>(shim::here->shared);
}

DEVICE float exchange(float value, int mask) {
    return float_of(static_cast<unsigned>(shim::warp_exchange(bits_of(value), mask)));
}
DEVICE double exchange(double value, int mask) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    bits = shim::warp_exchange(bits, mask);
    memcpy(&value, &bits, 8);
    return value;
}

// Also where a GPU would copy at once: what does not wait is wrong on the others.
// The copies are carried out here, where the sanitizers see the accesses as the kernel's own.
inline void copy_16(void* shared, const void* global, int valid) {
    shim::add_copy({shared, global, valid});
    unsigned* to = static_cast<unsigned*>(shared);
    for (int i = 0; i < 4; ++i) to[i] = 0xffffffffu;
}
inline void copies_commit() { shim::end_group(); }
template <int PENDING>
inline void copies_wait() {
    shim::Copy copy;
    while (shim::first_copy(PENDING, copy)) {
        unsigned char* to = static_cast<unsigned char*>(copy.shared);
        const unsigned char* from = static_cast<const unsigned char*>(copy.global);
        for (int i = 0; i < 16; ++i) to[i] = i < copy.valid ? from[i] : 0;
    }
}

DEVICE void warp_sync() { shim::warp_barrier(); }

#if ISQRT_TIER >= 80
// Each lane reads what it gets itself, where the sanitizers see it.
inline void load_transposed(unsigned (&to)[4], const void* row) {
    const void* rows[32];
    shim::warp_addresses(row, rows);
    int lane = int(shim::here->thread.x % 32), g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
        unsigned lower = static_cast<const unsigned short*>(rows[i * 8 + 2 * t])[g];
        unsigned upper = static_cast<const unsigned short*>(rows[i * 8 + 2 * t + 1])[g];
        to[i] = lower | upper << 16;
    }
}
DEVICE void multiply_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4]) {
    float sum[4] = {c[0], c[1], c[2], c[3]};
    shim::warp_multiply(sum, a, b);
    for (int i = 0; i < 4; ++i) d[i] = sum[i];
}
#endif
