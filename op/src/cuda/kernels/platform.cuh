// What the kernels ask of the machine, and nothing else of CUDA: the sources are compiled by nvcc for GPUs, and as C++ against
// `op/tests/cuda/shim.hpp` for the tests, which defines every name of this file and those CUDA names that the kernels use:
// threadIdx.x, blockIdx.x, blockDim.x, gridDim.x, __syncthreads, __launch_bounds__.
#pragma once

// Four numbers that are read and written together.
template <class R>
struct alignas(16) Four {
    R at[4];
};
// Two numbers that are.
template <class R>
struct alignas(2 * sizeof(R)) Two {
    R at[2];
};

#ifdef ISQRT_SHIM
#include "shim.hpp"
#else

#define DEVICE __device__ __forceinline__
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define UNROLL _Pragma("unroll")

typedef long long int64;

// The block's dynamic shared memory, aligned to 128 bytes. Kernels have no other.
template <class T>
DEVICE T* shared_memory() {
    extern __shared__ __align__(128) unsigned char bytes[];
    return reinterpret_cast<T*>(bytes);
}

// The value that the lane with number (own number XOR mask) passes. All 32 lanes of the warp take part.
DEVICE float exchange(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE double exchange(double value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
// Waits for the other lanes of the warp. What they have written before, to shared memory too, all of them see after.
DEVICE void warp_sync() { __syncwarp(); }

// Element types as they lie in tensors.
struct f16 {
    unsigned short bits;
};
struct bf16 {
    unsigned short bits;
};
DEVICE float widen(float x) { return x; }
DEVICE double widen(double x) { return x; }
DEVICE float widen(f16 x) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}
DEVICE float widen(bf16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
// Round to nearest, ties to even.
DEVICE void narrow(float x, float& to) { to = x; }
DEVICE void narrow(double x, double& to) { to = x; }
DEVICE void narrow(float x, f16& to) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }
DEVICE void narrow(float x, bf16& to) {
    const unsigned bits = __float_as_uint(x);
    // A NaN stays one though its upper bits may be an infinity's.
    to.bits = x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }

// A launch may begin while the one before it on the stream still runs: as soon as all blocks of that have come to `let_next_begin`. What
// that one and those before it wrote is there, and all they read may be overwritten, behind `previous_is_over`.
#if ISQRT_TIER >= 90
DEVICE void let_next_begin() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
DEVICE void previous_is_over() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
DEVICE void let_next_begin() {}
DEVICE void previous_is_over() {}
#endif

#if ISQRT_TIER >= 90
// Waits for the other threads of the block's cluster. What they have written before, to global memory too, all of them see after.
DEVICE void cluster_sync() { asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory"); }
#endif

#if ISQRT_TIER >= 80
// Copies 16 bytes from global to shared memory, of which the first `valid`, a multiple of 4, are read and the rest are zeros. Both addresses are
// multiples of 16. The bytes are there for the thread that asked once `copies_wait` has returned for their group, and for the
// others after a barrier behind that.
DEVICE void copy_16(void* shared, const void* global, int valid) {
    unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid) : "memory");
}
// Ends a group of copies.
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `PENDING` groups of this thread are under way.
template <int PENDING>
DEVICE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four 8x8 matrices of 16-bit numbers from shared memory, transposed: lane i gives the address, a multiple of 16, of row i % 8 of matrix i / 8.
// With g = lane / 4 and t = lane % 4, a lane gets of each matrix what is in rows 2t (the lower half) and 2t + 1 of column g.
DEVICE void load_transposed(unsigned (&to)[4], const void* row) {
    const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
}

// d = a b + c for a 16x16 matrix a, a 16x8 matrix b, of float16, and 16x8 matrices c and d of float32 that the 32 lanes of a warp hold together, with
// g = lane / 4 and t = lane % 4: a[0] (g, 2t), a[1] (g + 8, 2t), a[2] (g, 2t + 8), a[3] (g + 8, 2t + 8); b[0] (2t, g), b[1] (2t + 8, g), each with
// the next along the sum in its upper half; c[0] and d[0] (g, 2t), c[1] (g, 2t + 1), c[2] (g + 8, 2t), c[3] (g + 8, 2t + 1).
DEVICE void multiply_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
#else
// The same without hardware for it: the copy is made at once.
DEVICE void copy_16(void* shared, const void* global, int valid) {
    Four<float> bytes = {};
    if (valid == 16) {
        bytes = *static_cast<const Four<float>*>(global);
    } else {
        for (int i = 0; i < valid / 4; i++) bytes.at[i] = static_cast<const float*>(global)[i];
    }
    *static_cast<Four<float>*>(shared) = bytes;
}
DEVICE void copies_commit() {}
template <int PENDING>
DEVICE void copies_wait() {}
#endif

#endif
