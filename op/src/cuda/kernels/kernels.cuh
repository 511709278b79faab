// Every kernel of a tier, under the name by which the host asks for it.
#pragma once

#include "measure.cuh"
#include "read.cuh"
#include "write.cuh"

#define KERNELS_OF_ELEMENT(name, T, R)                                                                   \
    KERNEL(READ_THREADS, 4) moments_##name(const Moments<T> arguments) { moments(arguments); }           \
    KERNEL(READ_THREADS, 2) center_##name(const Center<T, R> arguments) { center(arguments); }           \
    KERNEL(READ_THREADS, 4) measure_##name(const Measure<T> arguments) { measure(arguments); }           \
    KERNEL(READ_THREADS, 2) load_##name(const Load<T, R> arguments) { load(arguments); }                 \
    KERNEL(PRODUCT_THREADS, sizeof(R) == 4 ? 4 : 3) write_##name(const Write<T, R> arguments) { write(arguments); }

#define KERNELS_OF_REAL(name, R) \
    KERNEL(PRODUCT_THREADS, sizeof(R) == 4 ? 4 : 2) product_##name(const Product<R> arguments) { product(arguments); }

#if ISQRT_TIER >= 90
#include "fused.cuh"
KERNEL(FUSED_THREADS, 1) fused_f32(const Fused<float> arguments) { fused(arguments); }
KERNEL(FUSED_THREADS, 1) fused_f16(const Fused<f16> arguments) { fused(arguments); }
KERNEL(FUSED_THREADS, 1) fused_bf16(const Fused<bf16> arguments) { fused(arguments); }
#endif

KERNELS_OF_ELEMENT(f32, float, float)
KERNELS_OF_ELEMENT(f16, f16, float)
KERNELS_OF_ELEMENT(bf16, bf16, float)
KERNELS_OF_ELEMENT(f64, double, double)
KERNELS_OF_REAL(f32, float)
KERNELS_OF_REAL(f64, double)
