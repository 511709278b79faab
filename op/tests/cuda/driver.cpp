// A stub of the CUDA driver: the functions that the crate calls, and those that a test needs to call it. One device, whose memory is
// the heap and whose launches are over when they return, unless their stream is captured (`capture.cpp`). Handles are checked, so that a call with the
// wrong one fails as it does on a GPU. Signatures are those of CUDA's cuda.h.
#include "driver.hpp"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "capture.hpp"
#include "machine.hpp"
#include "stub.hpp"

using stub::note;
using stub::number;
using stub::setting;

// What a capture may forbid: that which could wait for the device.
#define UNSAFE \
    if (!stub::permitted()) return CAPTURE_UNSUPPORTED

namespace {

struct Module;
struct Function {
    const shim::Kernel* kernel;
    int shared = 48 << 10;
    unsigned cluster = 8;
};
struct Module {
    int tier;
    std::map<std::string, Function> functions;
};

// A handle is the address of something that is never freed: one that was given back is known to be wrong.
std::mutex lock;
std::set<void*> modules, functions, streams, pools;
// Streams that do not wait for the default one, on which copies are.
std::set<void*> apart;
char context;
thread_local std::vector<void*> stack;
std::atomic<long> allocations, launches;

void* handle(std::set<void*>& kind) {
    void* made = new char;
    std::lock_guard<std::mutex> hold(lock);
    kind.insert(made);
    return made;
}
bool valid(std::set<void*>& kind, void* handle) {
    std::lock_guard<std::mutex> hold(lock);
    return kind.count(handle) > 0;
}
bool give_back(std::set<void*>& kind, void* handle) {
    std::lock_guard<std::mutex> hold(lock);
    return kind.erase(handle) > 0;
}
bool current() { return !stack.empty() && stack.back(); }
// As the log has it.
std::string text(void* stream) { return std::to_string(reinterpret_cast<uintptr_t>(stream)); }
int capability() {
    int major = 9, minor = 0;
    sscanf(setting("CAPABILITY", "9.0").c_str(), "%d.%d", &major, &minor);
    return 10 * major + minor;
}
int most_shared() {
    switch (capability()) {
        case 75: return 64 << 10;
        case 80: case 87: return 163 << 10;
        case 86: case 89: case 120: return 99 << 10;
        default: return capability() < 75 ? 96 << 10 : 227 << 10;
    }
}

CUresult allocate(uint64_t* address, size_t bytes, const std::string& how) {
    if (!current()) return INVALID_CONTEXT;
    if (bytes == 0) return INVALID_VALUE;
    long most = number("ALLOCATIONS", "-1");
    void* memory = most >= 0 && allocations >= most ? nullptr : stub::allocate(bytes);
    ++allocations;
    note("%s %zu -> %p", how.c_str(), bytes, memory);
    *address = reinterpret_cast<uint64_t>(memory);
    return memory ? SUCCESS : OUT_OF_MEMORY;
}
// Whether this is the toolkit's library in the driver's place, which fails at everything: what is in a folder of that name.
bool only_links() {
    Dl_info found;
    return dladdr(&context, &found) && strstr(found.dli_fname, "/stubs/");
}
void* device(uint64_t address) { return reinterpret_cast<void*>(address); }

}  // namespace

// The default streams' handles are small numbers.
bool stub::is_stream(void* stream) { return reinterpret_cast<uintptr_t>(stream) <= 2 || valid(streams, stream); }
using stub::is_stream;

void stub::reach(void* stream) {
    if (!valid(apart, stream)) arrive();
}

DRIVER cuInit(unsigned) {
    note("cuInit");
    if (only_links()) return STUB_LIBRARY;
    return number("DEVICES", "1") > 0 ? SUCCESS : NO_DEVICE;
}
DRIVER cuDriverGetVersion(int* version) {
    *version = static_cast<int>(number("DRIVER", "12040"));
    return SUCCESS;
}
DRIVER cuGetErrorName(CUresult error, const char** name) {
    static const std::map<int, const char*> names = {
        {SUCCESS, "CUDA_SUCCESS"}, {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"}, {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"}, {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"}, {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
        {INVALID_PTX, "CUDA_ERROR_INVALID_PTX"}, {UNSUPPORTED_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
        {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"}, {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"}, {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}, {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
    };
    auto found = names.find(error);
    *name = found == names.end() ? nullptr : found->second;
    return *name ? SUCCESS : INVALID_VALUE;
}
DRIVER cuGetErrorString(CUresult error, const char** text) { return cuGetErrorName(error, text); }

DRIVER cuDeviceGetCount(int* count) {
    *count = static_cast<int>(number("DEVICES", "1"));
    return SUCCESS;
}
DRIVER cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < number("DEVICES", "1") ? SUCCESS : INVALID_DEVICE;
}
DRIVER cuDeviceGetName(char* name, int length, int) {
    snprintf(name, static_cast<size_t>(length), "stub of compute capability %s", setting("CAPABILITY", "9.0").c_str());
    return SUCCESS;
}
DRIVER cuDeviceGetAttribute(int* value, int attribute, int device) {
    if (device != 0) return INVALID_DEVICE;
    switch (attribute) {
        case 16: *value = static_cast<int>(number("MULTIPROCESSORS", "24")); return SUCCESS;
        case 75: *value = capability() / 10; return SUCCESS;
        case 76: *value = capability() % 10; return SUCCESS;
        case 97: *value = most_shared(); return SUCCESS;
        case 115: *value = static_cast<int>(number("POOLS", "1")); return SUCCESS;
        default: return INVALID_VALUE;
    }
}

DRIVER cuDevicePrimaryCtxRetain(void** to, int device) {
    UNSAFE;
    note("cuDevicePrimaryCtxRetain");
    *to = &context;
    return device == 0 ? SUCCESS : INVALID_DEVICE;
}
DRIVER cuDevicePrimaryCtxRelease_v2(int device) { return device == 0 ? SUCCESS : INVALID_DEVICE; }
DRIVER cuCtxGetCurrent(void** to) {
    *to = stack.empty() ? nullptr : stack.back();
    return SUCCESS;
}
DRIVER cuCtxSetCurrent(void* made) {
    if (made && made != &context) return INVALID_CONTEXT;
    if (stack.empty()) stack.push_back(nullptr);
    stack.back() = made;
    return SUCCESS;
}
DRIVER cuCtxPushCurrent_v2(void* made) {
    if (made != &context) return INVALID_CONTEXT;
    stack.push_back(made);
    return SUCCESS;
}
DRIVER cuCtxPopCurrent_v2(void** to) {
    if (stack.empty()) return INVALID_CONTEXT;
    if (to) *to = stack.back();
    stack.pop_back();
    return SUCCESS;
}
DRIVER cuCtxGetDevice(int* device) {
    *device = 0;
    return current() ? SUCCESS : INVALID_CONTEXT;
}
DRIVER cuCtxGetId(void* made, unsigned long long* number) {
    *number = 1;
    return (made ? made == &context : current()) ? SUCCESS : INVALID_CONTEXT;
}
DRIVER cuCtxSynchronize() {
    UNSAFE;
    note("cuCtxSynchronize");
    stub::arrive();
    return current() ? SUCCESS : INVALID_CONTEXT;
}

DRIVER cuStreamCreate(void** stream, unsigned flags) {
    if (!current()) return INVALID_CONTEXT;
    *stream = handle(streams);
    std::lock_guard<std::mutex> hold(lock);
    if (flags & 1) apart.insert(*stream);
    return SUCCESS;
}
DRIVER cuStreamDestroy_v2(void* stream) { return give_back(streams, stream) ? SUCCESS : INVALID_HANDLE; }
DRIVER cuStreamSynchronize(void* stream) {
    UNSAFE;
    note("cuStreamSynchronize");
    stub::reach(stream);
    return is_stream(stream) ? SUCCESS : INVALID_HANDLE;
}
DRIVER cuStreamGetCtx(void* stream, void** to) {
    if (!is_stream(stream)) return INVALID_HANDLE;
    if (!valid(streams, stream)) {
        *to = current() ? stack.back() : nullptr;
        return *to ? SUCCESS : INVALID_CONTEXT;
    }
    *to = &context;
    return SUCCESS;
}

DRIVER cuModuleLoadDataEx(void** module, const void* image, unsigned options, const int* names, void** values) {
    UNSAFE;
    if (!current()) return INVALID_CONTEXT;
    const char* text = static_cast<const char*>(image);
    const char* target = strstr(text, ".target sm_");
    int tier = target ? atoi(target + strlen(".target sm_")) : 0;
    CUresult result = SUCCESS;
    const char* problem = "";
    if (!target) {
        result = INVALID_PTX, problem = "the stub found no .target";
    } else if ((',' + setting("REFUSE", "") + ',').find(',' + std::to_string(tier) + ',') != std::string::npos) {
        result = UNSUPPORTED_PTX_VERSION, problem = "the stub was told to refuse this tier";
    } else if (tier > capability()) {
        result = NO_BINARY_FOR_GPU, problem = "the device is older than the .target";
    }
    char* log = nullptr;
    for (unsigned i = 0; i < options; ++i) {
        if (names[i] == 5) log = static_cast<char*>(values[i]);
    }
    for (unsigned i = 0; i < options; ++i) {
        if (names[i] != 6 || !log) continue;
        snprintf(log, reinterpret_cast<size_t>(values[i]), "%s", problem);
        values[i] = reinterpret_cast<void*>(strlen(log));
    }
    note("cuModuleLoadDataEx %d -> %d", tier, result);
    if (result != SUCCESS) return result;
    Module* made = new Module{tier, {}};
    for (const shim::Kernel& kernel : shim::kernels()) {
        if (kernel.tier == tier) made->functions[kernel.name].kernel = &kernel;
    }
    std::lock_guard<std::mutex> hold(lock);
    modules.insert(made);
    *module = made;
    return SUCCESS;
}
DRIVER cuModuleLoadData(void** module, const void* image) { return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr); }
DRIVER cuModuleUnload(void* module) {
    UNSAFE;
    note("cuModuleUnload");
    return give_back(modules, module) ? SUCCESS : INVALID_HANDLE;
}
DRIVER cuModuleGetFunction(void** function, void* module, const char* name) {
    UNSAFE;
    if (!valid(modules, module)) return INVALID_HANDLE;
    auto& all = static_cast<Module*>(module)->functions;
    auto found = all.find(name);
    note("cuModuleGetFunction %s%s", name, found == all.end() ? " -> not found" : "");
    if (found == all.end()) return NOT_FOUND;
    std::lock_guard<std::mutex> hold(lock);
    functions.insert(&found->second);
    *function = &found->second;
    return SUCCESS;
}
DRIVER cuFuncSetAttribute(void* function, int attribute, int value) {
    UNSAFE;
    if (!valid(functions, function)) return INVALID_HANDLE;
    Function* of = static_cast<Function*>(function);
    note("cuFuncSetAttribute %s %d %d", of->kernel->name, attribute, value);
    if (attribute == 8 && value >= 0 && value <= most_shared()) {
        of->shared = value;
    } else if (attribute == 14 && value == 1) {
        of->cluster = 16;
    } else {
        return INVALID_VALUE;
    }
    return SUCCESS;
}

DRIVER cuMemPoolCreate(void** pool, const void*) {
    UNSAFE;
    note("cuMemPoolCreate");
    if (number("POOLS", "1") == 0) return NOT_SUPPORTED;
    *pool = handle(pools);
    return SUCCESS;
}
DRIVER cuMemPoolDestroy(void* pool) {
    UNSAFE;
    note("cuMemPoolDestroy");
    return give_back(pools, pool) ? SUCCESS : INVALID_HANDLE;
}
DRIVER cuMemPoolSetAttribute(void* pool, int attribute, void*) {
    UNSAFE;
    note("cuMemPoolSetAttribute %d", attribute);
    return valid(pools, pool) ? SUCCESS : INVALID_HANDLE;
}
DRIVER cuMemAllocFromPoolAsync(uint64_t* address, size_t bytes, void* pool, void* stream) {
    if (!valid(pools, pool) || !is_stream(stream)) return INVALID_HANDLE;
    const CUresult result = allocate(address, bytes, "cuMemAllocFromPoolAsync stream " + text(stream));
    // Of a graph: there as long as it is, and with nothing in it whenever it is launched.
    void* memory = device(*address);
    if (result == SUCCESS) stub::captured(stream, [=] { return memset(memory, 0xff, bytes), SUCCESS; });
    return result;
}
DRIVER cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    UNSAFE;
    return allocate(address, bytes, "cuMemAlloc");
}
DRIVER cuMemFreeAsync(uint64_t address, void* stream) {
    note("cuMemFreeAsync stream %s %p", text(stream).c_str(), device(address));
    if (!is_stream(stream)) return INVALID_HANDLE;
    if (stub::captured(stream, [] { return SUCCESS; })) return SUCCESS;
    return stub::release(device(address)) ? SUCCESS : INVALID_VALUE;
}
DRIVER cuMemFree_v2(uint64_t address) {
    UNSAFE;
    note("cuMemFree %p", device(address));
    return address == 0 || stub::release(device(address)) ? SUCCESS : INVALID_VALUE;
}
DRIVER cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t bytes) {
    UNSAFE;
    if (!stub::known(device(to), bytes)) return INVALID_VALUE;
    stub::send(device(to), from, bytes);
    return SUCCESS;
}
DRIVER cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
    UNSAFE;
    if (!stub::known(device(from), bytes)) return INVALID_VALUE;
    stub::arrive();
    memcpy(to, device(from), bytes);
    return SUCCESS;
}
DRIVER cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
    if (!is_stream(stream)) return INVALID_HANDLE;
    if (!stub::known(device(to), bytes)) return INVALID_VALUE;
    return stub::put(stream, [=] { return memset(device(to), value, bytes), SUCCESS; });
}

namespace {

// The launch's sizes are what a GPU would take, and what the kernel was compiled for. One that may begin before the one before it is over, that
// `overlaps`, has to wait for that.
CUresult launch(const char* how, void* function, const unsigned (&blocks)[3], const unsigned (&threads)[3], unsigned cluster, unsigned shared,
                void* stream, void** arguments, bool overlaps) {
    if (!current()) return INVALID_CONTEXT;
    if (!valid(functions, function) || !is_stream(stream)) return INVALID_HANDLE;
    const Function& of = *static_cast<Function*>(function);
    const shim::Kernel& kernel = *of.kernel;
    const std::string clusters = cluster > 1 ? " clusters of " + std::to_string(cluster) : "";
    note("%s stream %s %s tier %d blocks %u%s threads %u shared %u", how, text(stream).c_str(), kernel.name, kernel.tier, blocks[0],
         clusters.c_str(), threads[0], shared);
    bool sound = blocks[0] > 0 && blocks[0] < 1u << 31 && blocks[1] == 1 && blocks[2] == 1;
    sound = sound && threads[0] > 0 && threads[0] <= kernel.threads && threads[1] == 1 && threads[2] == 1;
    sound = sound && cluster > 0 && cluster <= of.cluster && blocks[0] % cluster == 0;
    sound = sound && static_cast<int>(shared) <= of.shared && arguments && arguments[0];
    if (!sound) {
        fprintf(stderr, "stub: no launch of %s (up to %u threads, %d bytes, clusters of %u) with %u blocks of %u threads, %u bytes, clusters of %u\n",
                kernel.name, kernel.threads, of.shared, of.cluster, blocks[0], threads[0], shared, cluster);
        return INVALID_VALUE;
    }
    long most = number("LAUNCHES", "-1");
    if (launches++ >= most && most >= 0) return ILLEGAL_ADDRESS;
    const char* argument = static_cast<const char*>(arguments[0]);
    const auto work = [&kernel, count = blocks[0], cluster, threads = threads[0], shared, overlaps,
                       argument = std::vector<char>(argument, argument + kernel.bytes)] {
        const long before = shim::waits();
        shim::launch(kernel, count, cluster, threads, shared, argument.data());
        stub::check_guards(kernel.name);
        const long waits = shim::waits() - before, all = long(count) * threads;
        if (!overlaps || (waits > 0 && waits % all == 0)) return SUCCESS;
        fprintf(stderr, "stub: not every thread of a launch waits for the launch before it\n");
        return ILLEGAL_ADDRESS;
    };
    return stub::put(stream, work);
}

struct LaunchAttribute {
    int id;
    char pad[4];
    union {
        char pad[64];
        int allowed;
        unsigned cluster[3];
    } value;
};
struct LaunchConfig {
    unsigned blocks[3], threads[3], shared;
    void* stream;
    LaunchAttribute* attributes;
    unsigned count;
};

// The attributes that the stub knows: programmatic stream serialization, and a cluster's blocks along x.
bool read(const LaunchConfig& config, bool& overlaps, unsigned& cluster) {
    overlaps = false, cluster = 1;
    for (unsigned i = 0; i < config.count; ++i) {
        const LaunchAttribute& attribute = config.attributes[i];
        const unsigned(&along)[3] = attribute.value.cluster;
        if (attribute.id == 6 && attribute.value.allowed == 1) {
            overlaps = true;
        } else if (attribute.id == 4 && capability() >= 90 && along[1] == 1 && along[2] == 1) {
            cluster = along[0];
        } else {
            return false;
        }
    }
    return true;
}

}  // namespace

DRIVER cuLaunchKernel(void* function, unsigned bx, unsigned by, unsigned bz, unsigned tx, unsigned ty, unsigned tz, unsigned shared,
                      void* stream, void** arguments, void**) {
    return launch("cuLaunchKernel", function, {bx, by, bz}, {tx, ty, tz}, 1, shared, stream, arguments, false);
}

DRIVER cuLaunchKernelEx(const LaunchConfig* config, void* function, void** arguments, void**) {
    bool overlaps;
    unsigned cluster;
    if (!read(*config, overlaps, cluster)) return INVALID_VALUE;
    return launch("cuLaunchKernelEx", function, config->blocks, config->threads, cluster, config->shared, config->stream, arguments, overlaps);
}

// As many as the test says, and twice as many of blocks that leave room for a second one beside them.
DRIVER cuOccupancyMaxActiveClusters(int* count, void* function, const LaunchConfig* config) {
    UNSAFE;
    bool overlaps;
    unsigned cluster;
    if (!valid(functions, function)) return INVALID_HANDLE;
    const Function& of = *static_cast<Function*>(function);
    if (!read(*config, overlaps, cluster) || cluster > of.cluster || static_cast<int>(config->shared) > of.shared) return INVALID_VALUE;
    const int more = 2 * static_cast<int>(config->shared) < most_shared() - (32 << 10) ? 2 : 1;
    *count = more * static_cast<int>(number("CLUSTERS", "1"));
    return SUCCESS;
}
