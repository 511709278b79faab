// What the host passes to the kernels. `op/src/cuda/arguments.rs` declares the same structures; a test compares the layouts.
#pragma once

#include "platform.cuh"

// The most matrices that a combination can have.
constexpr int TERMS = 12;
// The most products of a chain: a kernel's arguments may take 4 KiB.
constexpr int CHAIN = 9;
// The bytes of shared memory that a block of a cluster keeps its Turn in.
constexpr int TURN = 32;

// What is known of one sample's matrix, written by `center` or `measure`.
struct alignas(16) Scale {
    double inverse;  // 1/f, where f normalizes P: A = (P + shift I) inverse
    double shift;    // what is added to P's diagonal
    double factor;   // of the result, and
    int exponent;    // the power of two that it is multiplied by besides
    int state;       // ORDINARY, ZERO or NOT_A_NUMBER
    int taken;       // the power of two that elements were divided by; P by its square
    int unused;
};
enum State { ORDINARY = 0, ZERO = 1, NOT_A_NUMBER = 2 };
enum Form { DIRECT = 0, GRAM = 1, COVARIANCE = 2 };
enum Vectorization { UPPER = 0, UPPER_COLUMN_MAJOR = 1, WHOLE = 2 };

// One sample's moments: `moments_T`, one block for 8 channels of a sample (channels fastest, then samples).
template <class T>
struct Moments {
    const T* x;
    double* means;    // [samples][channels]
    double* squares;  // [samples][channels]: sums of the squared distances from the mean
    int samples, channels, positions, channels_last, centered;
};

// Centered samples: `center_T` and `center_halves_T`, one block for 32 channels and 128 positions of a sample (positions fastest, then channels) and
// one more for its Scale (then samples).
template <class T, class R>
struct Center {
    const T* x;
    const double* means;
    double* squares;  // of the moments; `read_halves_T` writes them
    R* straight;    // [samples][channels][straight_ld], or null
    R* transposed;  // [samples][positions][transposed_ld]
    Scale* scale;   // [samples]
    double divisor, epsilon;
    int samples, channels, positions, channels_last;
    int straight_ld, transposed_ld;
    int form, compensated, frobenius;
    int raised;  // the exponent of a power of two that operands are multiplied by
};

// Both at once: `read_halves_T`, a cluster of one block for each 32 channels of a sample (channels fastest, then samples).
template <class T, class R>
struct Read {
    Center<T, R> center;  // without means, and with positions that are contiguous
    int centered, blocks;
};

// f of a matrix: `measure_T`, one block for a sample.
template <class T>
struct Measure {
    const T* matrix;  // [samples][stride], of which the upper triangle counts
    Scale* scale;     // [samples]
    int64 stride;
    double divisor, epsilon;
    int samples, side, ld;
    int form, compensated, frobenius;
    int given;  // whether it is an operator's input, without a Scale as yet; otherwise it is P, shifted and scaled already
};

// What becomes of a new symmetric matrix: it is kept in a place, and with it the left and the right factor of the next product are made,
//
//     out[f] = identity[f] I + own[f] (the new matrix) + sum of factors[f][i] times the matrix in places_read[i]
//
// where `out[f]` is not null: [samples][side][ld], an operand.
template <class R>
struct Epilogue {
    R* places;  // [place][samples][side][ld], upper triangles
    int64 place_stride;
    R* out[2];
    int samples, side, ld;
    int place;  // the new matrix's
    int keep;   // whether anything reads it there
    int terms;
    R identity[2], own[2];
    R factors[2][TERMS];
    int places_read[TERMS];  // zero from `terms` on
};

// A = (matrix scaled + shift I) inverse: `load_T` and `load_halves_f32`, one block for 32x32 entries of the upper triangle (tiles fastest, then samples).
template <class T, class R>
struct Load {
    const T* matrix;
    const Scale* scale;
    int64 stride;
    int side, ld;
    int given;  // as in Measure
    Epilogue<R> epilogue;
};

// The factors of a product LᵀR: rows of L and R are the terms of its sums.
template <class R>
struct Factors {
    const R* left;
    const R* right;
    int64 left_stride, right_stride;  // from sample to sample
    int left_ld, right_ld;            // multiples of 16 bytes, as are the addresses
    int rows, columns, depth;
    int tiles;   // of the product: those of the upper triangle where it is symmetric, else all
    int stages;  // that there is shared memory for: A::STAGES or A::MORE_STAGES
    R scale;     // of the product: a power of two that undoes those of its factors
};

// A product that stays on the device: `product_R` and `product_halves`, one block for a tile (tiles fastest, then samples). Where `plain` is null the matrix is
// symmetric, its tiles are those of the upper triangle, and the epilogue takes it.
template <class R>
struct Product {
    Factors<R> factors;
    const Scale* scale;  // where the product is P, else null
    R* plain;            // [samples][rows][plain_ld], an operand
    int64 plain_stride;
    int plain_ld;
    R plain_scale;  // a power of two that it is multiplied by
    Epilogue<R> epilogue;
};

// Products of matrices that are a single tile, each of which reads what those before it wrote: `chain_R` and `chain_halves`, one block for a sample.
template <class R>
struct Chain {
    Product<R> products[CHAIN];
    int count;
    int resident;  // whether the block's shared memory has room for the places, which nothing else reads or writes: `chain_halves`
};

// The layer's last product: `write_T` and `write_halves_T`, one block for a tile of the upper triangle.
template <class T, class R>
struct Write {
    Factors<R> factors;
    const Scale* scale;
    T* out;
    double epsilon;  // added to the diagonal
    R off_diagonal;
    int vectorization;
    int covariance;  // whether a sample's state does not matter
};

// Products, each of which reads what those before it wrote, and the output, if `write` has one: `cluster_halves_T`, a cluster of so many blocks for a
// sample.
template <class T, class R>
struct Cluster {
    Product<R> products[CHAIN];
    Write<T, R> write;
    int count, blocks;
    int single;  // how many products, from the first on, are a single tile
    int behind;  // bytes of shared memory, before those for the block's Turn
};
