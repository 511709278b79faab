// From a sample's elements to the operands of its products: moments, then centered and scaled elements in both orders.
#pragma once

#include "arguments.cuh"
#include "operand.cuh"

constexpr int READ_THREADS = 256;
constexpr int CENTER_CHANNELS = 32;
constexpr int CENTER_POSITIONS = 128;

// The blocks of a sample.
DEVICE int moments_blocks(int channels, int threads) { return (channels + threads / 32 - 1) / (threads / 32); }
DEVICE int center_blocks(int channels, int positions) {
    return ((channels + CENTER_CHANNELS - 1) / CENTER_CHANNELS) * ((positions + CENTER_POSITIONS - 1) / CENTER_POSITIONS);
}

// The sum over the lanes of a warp, in every lane; the same order of additions each time.
DEVICE double warp_sum(double value) {
    UNROLL
    for (int mask = 16; mask > 0; mask /= 2) value += exchange(value, mask);
    return value;
}

// Means and sums of squared distances of as many channels as the block has warps.
//
// What is summed is the distance from the first element, in float64: the mean of a constant channel is that constant exactly, and
// neither the sums nor their squares overflow or vanish where float32 would.
template <class T>
DEVICE void moments(const Moments<T>& arguments, int64 sample, int group) {
    const int warps = blockDim.x / 32, first_channel = group * warps;
    const int channels = arguments.channels, positions = arguments.positions, last = arguments.channels_last;
    const T* x = arguments.x + sample * (channels * positions);
    double* sums = shared_memory<double>();  // [32][warps], where the channels are contiguous
    const int thread = threadIdx.x;
    // Lanes lie along the axis that is contiguous, as far as it goes.
    const int own = last ? thread % warps : thread / 32;
    const int begin = last ? thread / warps : thread % 32;
    const int channel = first_channel + own;
    const bool there = channel < channels;

    const auto total = [&](double value) {
        if (!last) return warp_sum(value);
        __syncthreads();
        sums[begin * warps + own] = value;
        __syncthreads();
        double sum = 0;
        for (int i = 0; i < 32; i++) sum += sums[i * warps + own];
        return sum;
    };
    const T* from = x + (last ? channel : channel * positions);
    const int step = last ? channels : 1;
    const auto element = [&](int position) { return widen(from[position * step]); };

    double mean = 0, squares = 0;
    if (arguments.centered) {
        const double first = there ? double(element(0)) : 0;
        double sum = 0;
        if (there) {
            _Pragma("unroll 4")
            for (int position = begin; position < positions; position += 32) sum += double(element(position)) - first;
        }
        mean = first + total(sum) / positions;
    }
    if (there) {
        const auto rounded = decltype(element(0))(mean);
        _Pragma("unroll 4")
        for (int position = begin; position < positions; position += 32) {
            const double distance = element(position) - rounded;
            squares = fused(distance, distance, squares);
        }
    }
    squares = total(squares);
    if (there && begin == 0) {
        arguments.means[sample * channels + channel] = mean;
        arguments.squares[sample * channels + channel] = squares;
    }
}

// The sum of values(0) to values(count - 1) in every thread of a block of SUMS threads, whose order of additions is always the same. `room` has a
// number for each warp.
constexpr int SUMS = 256;
template <class Values>
DEVICE double block_sum(int count, double* room, Values values) {
    const int thread = threadIdx.x;
    double sum = 0;
    for (int i = thread; i < count; i += SUMS) sum += values(i);
    sum = warp_sum(sum);
    if (thread % 32 == 0) room[thread / 32] = sum;
    __syncthreads();
    sum = room[0];
    UNROLL
    for (int warp = 1; warp < SUMS / 32; warp++) sum += room[warp];
    __syncthreads();
    return sum;
}

// The power of two that a matrix with this norm, or an entry as large, has its root divided by: the norm is then between 1 and 4.
DEVICE int root_exponent(double norm) {
    if (!(norm > 0) || !isfinite(norm)) return 0;
    const int exponent = ilogb(norm);
    return (exponent - (exponent & 1)) / 2;
}

// What follows from f, the norm of the shifted and scaled P.
DEVICE Scale scale_of(double f, double shift, int exponent, double divisor, int form, int compensated) {
    Scale scale;
    scale.state = f == 0 ? ZERO : isfinite(f) ? ORDINARY : NOT_A_NUMBER;
    scale.inverse = f == 0 ? 0 : 1 / f;
    scale.shift = shift;
    scale.exponent = exponent;
    scale.taken = exponent;
    scale.unused = 0;
    if (form == COVARIANCE) {
        scale.factor = 1 / divisor;
        scale.exponent = 2 * exponent;
    } else if (compensated) {
        scale.factor = form == GRAM ? 1 / sqrt(f * divisor) : sqrt(f / divisor);
    } else {
        scale.factor = form == GRAM ? 1 / f : 1;
        scale.exponent = 0;
    }
    // The result's power of two is one of the factor too where it is then exact.
    if (scale.exponent > -100 && scale.exponent < 100) {
        scale.factor = ldexp(scale.factor, scale.exponent);
        scale.exponent = 0;
    }
    return scale;
}

// What is added to the diagonal of P, which is a multiple of the covariance.
template <class T, class R>
DEVICE double shift_of(const Center<T, R>& arguments) {
    return arguments.form == COVARIANCE ? 0 : arguments.epsilon * arguments.divisor;
}

// The norm of the shifted P. `room` has a number for each warp.
template <class T, class R>
DEVICE double sample_norm(const Center<T, R>& arguments, int64 sample, double* room) {
    const int channels = arguments.channels;
    const double* squares = arguments.squares + sample * channels;
    return fused(shift_of(arguments), double(channels), block_sum(channels, room, [&](int i) { return squares[i]; }));
}

// Writes down what follows from a sample's norm.
template <class T, class R>
DEVICE void scale_sample(const Center<T, R>& arguments, int64 sample, double norm) {
    const int exponent = root_exponent(norm);
    // The Frobenius norm is not known before P is; P is left as it is until then.
    Scale scale = scale_of(ldexp(norm, -2 * exponent), ldexp(shift_of(arguments), -2 * exponent), exponent, arguments.divisor, arguments.form, arguments.compensated);
    if (arguments.frobenius) scale.inverse = 1;
    arguments.scale[sample] = scale;
}

// The power of two that a sample's centered elements are multiplied by, so that the norm of P is between 1 and 4; as two factors, each of which is a
// number itself.
template <class T, class R>
DEVICE Two<R> power_of(const Center<T, R>& arguments, double norm) {
    const int raised = arguments.raised - root_exponent(norm);
    return {{ldexp(R(1), raised / 2), ldexp(R(1), raised - raised / 2)}};
}

// Writes 32 channels and 128 positions, centered and scaled.
template <class A, class T, class R>
DEVICE void center(const Center<T, R>& arguments, int64 sample, int block) {
    constexpr int LD = CENTER_POSITIONS + 1, ELEMENTS = CENTER_CHANNELS * CENTER_POSITIONS / READ_THREADS;
    const int channels = arguments.channels, positions = arguments.positions, last = arguments.channels_last;
    const int groups = (positions + CENTER_POSITIONS - 1) / CENTER_POSITIONS;
    const int first_channel = block / groups * CENTER_CHANNELS;
    const int first_position = block % groups * CENTER_POSITIONS;
    const int thread = threadIdx.x, threads = READ_THREADS;
    R* tile = shared_memory<R>();  // [32][LD], channels by positions

    // Lanes lie along the axis that is contiguous.
    const int along = last ? CENTER_CHANNELS : CENTER_POSITIONS, fast = thread % along, slow = thread / along, step = threads / along;
    const int channel = first_channel + (last ? fast : slow), position = first_position + (last ? slow : fast);
    const int stride = last ? channels : positions;
    const T* x = arguments.x + sample * (channels * positions) + (last ? position * channels + channel : channel * positions + position);
    const double* means = arguments.means + sample * channels + channel;
    // While elements and means are on their way, the norm is summed up.
    const int there = last ? (channel < channels ? positions - position : 0) : (position < positions ? channels - channel : 0);
    R elements[ELEMENTS];
    UNROLL
    for (int i = 0; i < ELEMENTS; i++) {
        elements[i] = 0;
        if (i * step < there) elements[i] = widen(x[i * step * stride]) - R(means[last ? 0 : i * step]);
    }
    const double norm = sample_norm(arguments, sample, shared_memory<double>());
    if (block == 0 && thread == 0) scale_sample(arguments, sample, norm);
    const Two<R> power = power_of(arguments, norm);
    R* own = tile + (last ? fast * LD + slow : slow * LD + fast);
    UNROLL
    for (int i = 0; i < ELEMENTS; i++) own[i * step * (last ? 1 : LD)] = elements[i] * power.at[0] * power.at[1];
    __syncthreads();
    // Eight neighbors at a time.
    if (arguments.straight) {
        R* straight = arguments.straight + sample * (channels * arguments.straight_ld);
        _Pragma("unroll 1")
        for (int i = thread; i < CENTER_CHANNELS * CENTER_POSITIONS / 8; i += threads) {
            const int row = i / (CENTER_POSITIONS / 8), column = i % (CENTER_POSITIONS / 8) * 8;
            if (first_channel + row < channels && first_position + column < positions) {
                R values[8];
                UNROLL
                for (int k = 0; k < 8; k++) values[k] = tile[row * LD + column + k];
                A::put(straight, channels, arguments.straight_ld, first_channel + row, first_position + column, values);
            }
        }
    }
    R* transposed = arguments.transposed + sample * (positions * arguments.transposed_ld);
    _Pragma("unroll 1")
    for (int i = thread; i < CENTER_CHANNELS * CENTER_POSITIONS / 8; i += threads) {
        const int column = i / (CENTER_CHANNELS / 8), row = i % (CENTER_CHANNELS / 8) * 8;
        if (first_position + column < positions && first_channel + row < channels) {
            R values[8];
            UNROLL
            for (int k = 0; k < 8; k++) values[k] = tile[(row + k) * LD + column];
            A::put(transposed, positions, arguments.transposed_ld, first_position + column, first_channel + row, values);
        }
    }
}

template <class T>
DEVICE void moments(const Moments<T>& arguments) {
    const int blocks = moments_blocks(arguments.channels, blockDim.x);
    moments(arguments, blockIdx.x / blocks, blockIdx.x % blocks);
}

template <class A, class T, class R>
DEVICE void center(const Center<T, R>& arguments) {
    const int blocks = center_blocks(arguments.channels, arguments.positions);
    center<A>(arguments, blockIdx.x / blocks, blockIdx.x % blocks);
}
