// Every kernel of a tier, under the name by which the host asks for it.
#pragma once

#include "measure.cuh"
#include "read.cuh"
#include "write.cuh"
#if ISQRT_TIER >= 80
#include "resident.cuh"
#endif
#if ISQRT_TIER >= 90
#include "cluster.cuh"
#include "cluster_read.cuh"
#endif

// What kernels begin with that have nothing to do before the launch before them is over.
DEVICE void begin() {
    let_next_begin();
    previous_is_over();
}

// As many blocks as a multiprocessor has registers for: older compilations need more of them.
template <class R>
constexpr int CENTER_BLOCKS = sizeof(R) == 4 && ISQRT_TIER >= 90 ? 4 : 2;

// `A` multiplies, `R` is the type of sums, `name` that of elements `T`, with the arithmetic's before it where that is not the plain one, and `blocks`
// of `write` share a multiprocessor.
#define KERNELS_OF_READING(name, A, T, R, blocks)                                                                  \
    KERNEL(READ_THREADS, CENTER_BLOCKS<R>) center_##name(const Center<T, R> arguments) { begin(); center<A>(arguments); }          \
    KERNEL(PRODUCT_THREADS, blocks) write_##name(const Write<T, R> arguments) { let_next_begin(); write<A>(arguments); }

#define KERNELS_OF_ELEMENT(name, T, R)                                                                     \
    KERNELS_OF_READING(name, Plain<R>, T, R, sizeof(R) == 4 ? 2 : 1)                                                               \
    KERNEL(READ_THREADS, 4) moments_##name(const Moments<T> arguments) { begin(); moments(arguments); }             \
    KERNEL(READ_THREADS, 4) measure_##name(const Measure<T> arguments) { begin(); measure(arguments); }             \
    KERNEL(LOAD_THREADS, sizeof(R) == 4 ? 4 : 2) load_##name(const Load<T, R> arguments) { begin(); load<Plain<R>>(arguments); }

KERNELS_OF_ELEMENT(f32, float, float)
KERNELS_OF_ELEMENT(f16, f16, float)
KERNELS_OF_ELEMENT(bf16, bf16, float)
KERNELS_OF_ELEMENT(f64, double, double)
KERNEL(PRODUCT_THREADS, 2) product_f32(const Product<float> arguments) { let_next_begin(); product<Plain<float>, 3>(arguments); }
KERNEL(PRODUCT_THREADS, 2) chain_f32(const Chain<float> arguments) { let_next_begin(); chain<Plain<float>, 3>(arguments); }
KERNEL(PRODUCT_THREADS, 1) product_f64(const Product<double> arguments) { let_next_begin(); product<Plain<double>, 3>(arguments); }
KERNEL(PRODUCT_THREADS, 1) chain_f64(const Chain<double> arguments) { let_next_begin(); chain<Plain<double>, 3>(arguments); }

#if ISQRT_TIER >= 80
KERNELS_OF_READING(halves_f32, Halves, float, float, 3)
KERNELS_OF_READING(halves_f16, Halves, f16, float, 3)
KERNELS_OF_READING(halves_bf16, Halves, bf16, float, 3)
KERNEL(LOAD_THREADS, 4) load_halves_f32(const Load<float, float> arguments) { begin(); load<Halves>(arguments); }
KERNEL(PRODUCT_THREADS, 3) product_halves(const Product<float> arguments) { let_next_begin(); product<Halves, 4>(arguments); }
KERNEL(PRODUCT_THREADS, 2) chain_halves(const Chain<float> arguments) { let_next_begin(); resident_chain<Halves, 6>(arguments); }
#endif
#if ISQRT_TIER >= 90
#define CLUSTERS_OF_ELEMENT(name, T)                                                                       \
    KERNEL(READ_THREADS, 3) read_halves_##name(const Read<T, float> arguments) { let_next_begin(); read<Halves>(arguments); }     \
    KERNEL(PRODUCT_THREADS, 3) cluster_halves_##name(const Cluster<T, float> arguments) { let_next_begin(); cluster<Halves>(arguments); }

CLUSTERS_OF_ELEMENT(f32, float)
CLUSTERS_OF_ELEMENT(f16, f16)
CLUSTERS_OF_ELEMENT(bf16, bf16)
#endif
