// Launches, as the driver sees them.
#pragma once

#include <stddef.h>

#include <string>
#include <vector>

namespace shim {

// A kernel of one tier, as `build` found it in the sources.
struct Kernel {
    int tier;
    const char* name;
    unsigned threads;  // the most that a block may have
    size_t bytes;      // of its one argument
    void (*call)(const void* argument);
};

std::vector<Kernel>& kernels();

template <class A, void (*F)(A)>
bool add_kernel(int tier, const char* name, unsigned threads) {
    kernels().push_back({tier, name, threads, sizeof(A), [](const void* a) { F(*static_cast<const A*>(a)); }});
    return true;
}

// The most shared memory that any GPU gives a block.
constexpr size_t MOST_SHARED = 227 << 10;

// In which order blocks run, and threads between barriers: none may matter. Negative: descending; 0: ascending; otherwise the
// seed of a shuffle. The host thread's own; by default what the environment's ISQRT_SHIM_ORDER says.
void set_order(int order);

// How often threads of this host thread's launches have come to `previous_is_over`.
long waits();

// Runs a kernel to its end, a cluster of so many blocks at a time.
void launch(const Kernel& kernel, unsigned blocks, unsigned cluster, unsigned threads, size_t shared, const void* argument);

}  // namespace shim

// What `build` writes behind a source, once for each kernel.
#define ISQRT_ADD(tier, space, name, threads) \
    static const bool name##_##tier = shim::add_kernel<shim::argument_t<decltype(&space::name)>, space::name>(tier, #name, threads);

namespace shim {
template <class F>
struct Argument;
template <class A>
struct Argument<void (*)(A)> {
    using type = A;
};
template <class F>
using argument_t = typename Argument<F>::type;
}  // namespace shim
