// The device memory of the stub.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "stub.hpp"

namespace stub {
namespace {

// As the driver aligns. AddressSanitizer guards allocations itself, and more closely.
constexpr size_t ALIGNMENT = 256;
#ifdef ISQRT_ASAN
constexpr size_t GUARD = 0;
#else
constexpr size_t GUARD = ALIGNMENT;
#endif

std::mutex lock;
std::map<uintptr_t, size_t>& all() {
    static std::map<uintptr_t, size_t> map;
    return map;
}

// Called with the lock held.
void check(uintptr_t address, size_t bytes, const char* after) {
    const unsigned char* memory = reinterpret_cast<const unsigned char*>(address);
    for (size_t i = 1; i <= GUARD; ++i) {
        const unsigned char* where = memory[-static_cast<ptrdiff_t>(i)] != 0xff ? memory - i : memory + bytes + i - 1;
        if (*where == 0xff) continue;
        fprintf(stderr, "stub: something was written %td bytes from the start of an allocation of %zu; last was %s\n", where - memory, bytes, after);
        abort();
    }
}

// What `send` was given and has not arrived.
std::vector<std::pair<void*, std::string>> under_way;

}  // namespace

void* allocate(size_t bytes) {
    void* whole = nullptr;
    if (posix_memalign(&whole, ALIGNMENT, GUARD + bytes + GUARD) != 0) return nullptr;
    memset(whole, 0xff, GUARD + bytes + GUARD);
    void* memory = static_cast<char*>(whole) + GUARD;
    std::lock_guard<std::mutex> hold(lock);
    all()[reinterpret_cast<uintptr_t>(memory)] = bytes;
    return memory;
}

void send(void* to, const void* from, size_t bytes) {
    std::lock_guard<std::mutex> hold(lock);
    under_way.push_back({to, std::string(static_cast<const char*>(from), bytes)});
}

void arrive() {
    std::lock_guard<std::mutex> hold(lock);
    for (const auto& [to, bytes] : under_way) memcpy(to, bytes.data(), bytes.size());
    under_way.clear();
}

bool release(void* memory) {
    arrive();
    std::lock_guard<std::mutex> hold(lock);
    auto found = all().find(reinterpret_cast<uintptr_t>(memory));
    if (found == all().end()) return false;
    check(found->first, found->second, "its release");
    // Who reads it nevertheless is to see it.
    memset(memory, 0xff, found->second);
    all().erase(found);
    free(static_cast<char*>(memory) - GUARD);
    return true;
}

bool known(const void* memory, size_t bytes) {
    uintptr_t address = reinterpret_cast<uintptr_t>(memory);
    std::lock_guard<std::mutex> hold(lock);
    auto next = all().upper_bound(address);
    if (next == all().begin()) return false;
    --next;
    return address + bytes <= next->first + next->second;
}

void check_guards(const char* after) {
    std::lock_guard<std::mutex> hold(lock);
    for (const auto& [address, bytes] : all()) check(address, bytes, after);
}

}  // namespace stub
