// Runs the kernels of toy.cu through the driver's stub and holds them against plain loops, in several orders. Says what is wrong
// and returns 1, unless the shim or a sanitizer has ended the program before.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <string>
#include <vector>

#include "numbers.hpp"

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void**, int);
int cuCtxSetCurrent(void*);
int cuModuleLoadData(void**, const void*);
int cuModuleGetFunction(void**, void*, const char*);
int cuMemAlloc_v2(uint64_t*, size_t);
int cuMemFree_v2(uint64_t);
int cuMemcpyHtoD_v2(uint64_t, const void*, size_t);
int cuMemcpyDtoH_v2(void*, uint64_t, size_t);
int cuLaunchKernelEx(const void*, void*, void**, void**);
void isqrt_stub_order(int);
}

static int wrong = 0;
static void* module;

#define CHECK(condition)                                               \
    do {                                                               \
        if (!(condition)) {                                            \
            printf("%s:%d: not %s\n", __FILE__, __LINE__, #condition); \
            wrong = 1;                                                 \
        }                                                              \
    } while (0)

template <class T>
struct Buffer {
    uint64_t at = 0;
    size_t count;
    explicit Buffer(size_t count) : count(count) { CHECK(cuMemAlloc_v2(&at, count * sizeof(T)) == 0); }
    explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) { CHECK(cuMemcpyHtoD_v2(at, values.data(), count * sizeof(T)) == 0); }
    ~Buffer() { CHECK(cuMemFree_v2(at) == 0); }
    std::vector<T> read() const {
        std::vector<T> values(count);
        CHECK(cuMemcpyDtoH_v2(values.data(), at, count * sizeof(T)) == 0);
        return values;
    }
};

template <class A>
static void launch(const char* name, unsigned blocks, unsigned threads, unsigned shared, const A& argument, unsigned cluster = 1) {
    struct { int id; int padding; unsigned size[16]; } attribute = {4, 0, {cluster, 1, 1}};
    struct { unsigned blocks[3], threads[3], shared; void* stream; void* attributes; unsigned count; } with = {
        {blocks, 1, 1}, {threads, 1, 1}, shared, nullptr, &attribute, 1};
    void* function = nullptr;
    CHECK(cuModuleGetFunction(&function, module, name) == 0);
    void* arguments[] = {const_cast<A*>(&argument)};
    CHECK(cuLaunchKernelEx(&with, function, arguments, nullptr) == 0);
}

static std::vector<float> numbers(size_t count, unsigned seed) {
    std::vector<float> values(count);
    for (float& value : values) seed = seed * 1664525 + 1013904223, value = static_cast<float>(seed >> 8) * 0x1p-23f - 1;
    return values;
}

static void sums() {
    constexpr int BLOCKS = 5, LENGTH = 1000;
    std::vector<float> x = numbers(BLOCKS * LENGTH, 1);
    Buffer<float> in(x);
    Buffer<double> out(BLOCKS);
    struct { uint64_t x, sums; int length; } of = {in.at, out.at, LENGTH};
    launch("sums", BLOCKS, 256, 64, of);
    std::vector<double> found = out.read();
    for (int block = 0; block < BLOCKS; ++block) {
        double sum = 0;
        for (int i = 0; i < LENGTH; ++i) sum += x[block * LENGTH + i];
        CHECK(fabs(found[block] - sum) < 1e-12);
    }
}

static void stream() {
    constexpr int LENGTH = 4 * 1000 + 3, THREADS = 64;
    std::vector<float> x = numbers(LENGTH, 2);
    Buffer<float> in(x), out(LENGTH);
    struct { uint64_t x, y; int length; } of = {in.at, out.at, LENGTH};
    launch("stream", 1, THREADS, 2 * 16 * THREADS, of);
    std::vector<float> found = out.read();
    int size = 4 * THREADS;
    for (int i = 0; i < LENGTH; ++i) {
        int from = i / size * size + size - 1 - i % size;
        CHECK(found[i] == (from < LENGTH ? x[from] : 0));
    }
}

static void tile() {
    std::vector<f16> a(256), b(128);
    std::vector<float> x = numbers(256, 3), y = numbers(128, 4);
    for (int i = 0; i < 256; ++i) narrow(x[i], a[i]);
    for (int i = 0; i < 128; ++i) narrow(y[i], b[i]);
    Buffer<f16> left(a), right(b);
    Buffer<float> out(128);
    struct { uint64_t a, b, c; } of = {left.at, right.at, out.at};
    launch("tile", 1, 32, 1024, of);
    std::vector<float> found = out.read();
    for (int row = 0; row < 16; ++row) {
        for (int column = 0; column < 8; ++column) {
            double sum = 0;
            for (int k = 0; k < 16; ++k) sum += double(widen(a[k * 16 + row])) * widen(b[k * 8 + column]);
            double value = found[row * 8 + column];
            CHECK(fabs(value) <= fabs(sum) && fabs(value - sum) <= fabs(sum) * 0x1p-23);
        }
    }
}

static void ring() {
    Buffer<int> said(16), heard(16);
    struct { uint64_t x, found; } of = {said.at, heard.at};
    launch("ring", 16, 64, 0, of, 8);
    std::vector<int> found = heard.read();
    for (int i = 0; i < 16; ++i) CHECK(found[i] == 10 * (i / 8 * 8 + (i + 1) % 8));
}

// Every value of the small types to float and back, and what lies at the edges of their roundings.
template <class T>
static void conversions() {
    for (unsigned bits = 0; bits < 65536; ++bits) {
        T x{static_cast<unsigned short>(bits)}, back;
        float wide = widen(x);
        narrow(wide, back);
        CHECK(isnan(wide) ? back.bits == 0x7fff : back.bits == bits);
        T next{static_cast<unsigned short>(bits + 1)};
        if (!isfinite(wide) || !isfinite(widen(next))) continue;
        float middle = static_cast<float>((double(wide) + widen(next)) / 2);
        narrow(middle, back);
        CHECK(back.bits == (bits & 1 ? next.bits : x.bits));
        narrow(nextafterf(middle, wide), back);
        CHECK(back.bits == x.bits);
        narrow(nextafterf(middle, widen(next)), back);
        CHECK(back.bits == next.bits);
    }
}

static void speed() {
    constexpr int BLOCKS = 500;
    Buffer<float> in(numbers(BLOCKS * 256, 1));
    Buffer<double> out(BLOCKS);
    struct { uint64_t x, sums; int length; } of = {in.at, out.at, 256};
    timespec from, to;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    launch("sums", BLOCKS, 256, 64, of);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    double seconds = double(to.tv_sec - from.tv_sec) + 1e-9 * double(to.tv_nsec - from.tv_nsec);
    printf("%.1f million changes of thread a second\n", BLOCKS * 256 * 7 / seconds * 1e-6);
}

int main(int count, char** arguments) {
    conversions<f16>();
    conversions<bf16>();
    void* context = nullptr;
    CHECK(cuInit(0) == 0 && cuDevicePrimaryCtxRetain(&context, 0) == 0 && cuCtxSetCurrent(context) == 0);
    CHECK(cuModuleLoadData(&module, ".version 7.0\n.target sm_90\n") == 0);
    if (count > 1 && !strcmp(arguments[1], "speed")) speed();
    for (int order : {0, -1, 1, 2, 3}) {
        isqrt_stub_order(order);
        sums();
        stream();
        tile();
        ring();
    }
    if (!wrong) puts("as it should be");
    return wrong;
}
