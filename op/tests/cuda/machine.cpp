// The machine that runs a launch: clusters of blocks one after the other, their threads as fibers between one barrier and the next.
// Compiled without the sanitizers' instrumentation, as `fiber.cpp`: its own memory is no kernel's.
#include "machine.hpp"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "fiber.hpp"
#include "shim.hpp"

namespace shim {

__thread const Place* here;

std::vector<Kernel>& kernels() {
    static std::vector<Kernel> all;
    return all;
}

namespace {

enum State { READY, AT_BARRIER, AT_CLUSTER_BARRIER, AT_WARP_BARRIER, IN_EXCHANGE, IN_LOAD, IN_MULTIPLY, ENDED };
const char* const STATES[] = {"is ready",       "waits at __syncthreads", "waits at cluster_sync",
                              "waits at warp_sync", "waits in exchange", "waits in load_transposed", "waits in multiply_f16", "has ended"};

struct Block;
struct Warp;

struct Thread : Place {
    Fiber* fiber;
    State state;
    Block* in;
    Warp* warp;
    int lane;
    uint64_t value;  // what it passes to a collective, and what it gets
    float* c;
    const unsigned* a;
    const unsigned* b;
    std::vector<Copy> copies;    // under way, the oldest first
    std::vector<size_t> groups;  // how many of them each group has that is complete and not yet done
    size_t open;                 // copies behind the last group
};

struct Warp {
    Thread* lanes[32];
    int size, arrived, mask;
    unsigned met;
    char addresses[2];  // as a Barrier's
    const void* passed[32];
};

// Those who meet at one place again and again. The two addresses stand for every other meeting: a thread that leaves late
// must not learn, in ThreadSanitizer's eyes, of what the others did before they came to the next.
struct Barrier {
    std::vector<Thread*> members;
    unsigned arrived = 0, met = 0;
    char addresses[2];
};

struct Block {
    Barrier barrier;
    std::vector<Warp> warps;
};

struct Pool {
    std::vector<Fiber> fibers;
    ~Pool() {
        for (Fiber& fiber : fibers) destroy(fiber);
    }
};

// The fewest fibers that ThreadSanitizer is given (each takes it 800 KB), so that neighboring blocks' threads are different ones to it.
constexpr size_t FEWEST = RACES_SHOW ? 1024 : 0;

struct Machine {
    Pool pool;
    const Kernel* kernel;
    const void* argument;
    int order;
    uint64_t random;
    std::vector<Thread> threads;  // of the cluster that runs,
    std::vector<Block> cluster;   // its blocks,
    Barrier barrier;              // and where all of them meet
    std::vector<Thread*> queue;  // a ring of those that are ready
    size_t first, ready, ended;
    Fiber host;
    char begin, end;  // their addresses stand for those of a launch
    std::vector<void*> used;
};

thread_local Machine own;
// The address of `own`, at a place that is found without a call.
__thread Machine* machine __attribute__((tls_model("initial-exec")));

thread_local int wanted = [] {
    const char* text = getenv("ISQRT_SHIM_ORDER");
    return text ? atoi(text) : 0;
}();

Thread& self() { return *static_cast<Thread*>(const_cast<Place*>(here)); }

unsigned chance(unsigned below) {
    uint64_t& x = machine->random;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return static_cast<unsigned>((x >> 32) * below >> 32);
}

template <class T>
void put_in_order(std::vector<T>& list) {
    if (machine->order < 0) {
        for (size_t i = 0, j = list.size(); i + 1 < j; ++i) std::swap(list[i], list[--j]);
    } else if (machine->order > 0) {
        for (size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[chance(static_cast<unsigned>(i))]);
    }
}

void append(Thread* thread) {
    thread->state = READY;
    size_t at = machine->first + machine->ready++;
    machine->queue[at < machine->queue.size() ? at : at - machine->queue.size()] = thread;
}
// Ahead of the others: a warp that has met runs on to the next barrier before another does.
void prepend(Thread* thread) {
    thread->state = READY;
    machine->first = (machine->first ? machine->first : machine->queue.size()) - 1;
    machine->queue[machine->first] = thread;
    ++machine->ready;
}

[[noreturn]] void fail(const char* what) {
    fprintf(stderr, "shim: kernel %s (tier %d): %s\n", machine->kernel->name, machine->kernel->tier, what);
    for (int state = AT_BARRIER; state <= ENDED; ++state) {
        int count = 0;
        const Thread* one = nullptr;
        for (const Thread* thread : machine->barrier.members) {
            if (thread->state == state && count++ == 0) one = thread;
        }
        if (one) {
            fprintf(stderr, "    block %u: thread %u %s", one->block.x, one->thread.x, STATES[state]);
            fprintf(stderr, count > 1 ? ", and %d others\n" : "\n", count - 1);
        }
    }
    if (here) fprintf(stderr, "    found by thread %u of block %u\n", here->thread.x, here->block.x);
    fflush(stderr);
    abort();
}

Thread* next() {
    if (machine->ready == 0) fail("threads wait for each other for ever");
    Thread* thread = machine->queue[machine->first];
    if (++machine->first == machine->queue.size()) machine->first = 0;
    --machine->ready;
    return thread;
}

// The running thread waits until something has made it ready.
void wait() {
    Thread& from = self();
    Thread* to = next();
    if (to == &from) return;
    here = to;
    change(*from.fiber, *to->fiber);
}

void meet(Barrier& barrier, State state) {
    Thread& thread = self();
    char* address = &barrier.addresses[barrier.met & 1];
    release(address);
    thread.state = state;
    if (++barrier.arrived == barrier.members.size()) {
        barrier.arrived = 0;
        ++barrier.met;
        if (machine->order > 0) put_in_order(barrier.members);
        for (Thread* member : barrier.members) append(member);
    }
    wait();
    acquire(address);
}

// True for the last lane of the warp, which then does what there is to do before it calls `go_on`.
bool gather(State state) {
    Thread& thread = self();
    Warp& warp = *thread.warp;
    if (warp.size != 32) fail("a collective of a warp of less than 32 threads");
    thread.state = state;
    if (++warp.arrived < 32) return false;
    for (Thread* lane : warp.lanes) {
        if (lane->state != state) fail("lanes of a warp are in different collectives");
    }
    return true;
}
void go_on() {
    Warp& warp = *self().warp;
    warp.arrived = 0;
    bool ahead = machine->order <= 0 || chance(2) == 0;
    for (int i = 0; i < 32; ++i) {
        bool down = ahead != (machine->order < 0);
        Thread* lane = warp.lanes[down ? 31 - i : i];
        ahead ? prepend(lane) : append(lane);
    }
}

void run() {
    started();
    acquire(&machine->begin);
    machine->kernel->call(machine->argument);
    release(&machine->end);
    Thread& thread = self();
    thread.state = ENDED;
    if (++machine->ended == machine->threads.size()) {
        here = nullptr;
        leave(*thread.fiber, machine->host);
    }
    Thread* to = next();
    here = to;
    leave(*thread.fiber, *to->fiber);
}

void* shared_memory_of(size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 128, bytes) != 0) fail("no memory");
    memset(memory, 0xff, bytes);
    return memory;
}

void free_used() {
    for (void* memory : machine->used) free(memory);
    machine->used.clear();
}

void run_cluster(unsigned first, unsigned blocks, unsigned threads, size_t shared) {
    // Not those of the block before, and not the same for a thread of the same number: to ThreadSanitizer a fiber is one thread,
    // which never races with itself.
    size_t fiber = static_cast<size_t>(first) * (threads + 37);
    machine->first = machine->ready = machine->ended = 0;
    machine->barrier.members.clear();
    Thread* thread = machine->threads.data();
    for (Block& block : machine->cluster) {
        unsigned number = first + static_cast<unsigned>(&block - machine->cluster.data());
        block.barrier.members.clear();
        block.warps.assign((threads + 31) / 32, Warp{});
        void* memory = shared_memory_of(shared);
        machine->used.push_back(memory);
        for (unsigned i = 0; i < threads; ++i, ++thread) {
            static_cast<Place&>(*thread) = {{i}, {number}, {threads}, {blocks}, memory};
            thread->in = &block;
            thread->warp = &block.warps[i / 32];
            thread->lane = static_cast<int>(i % 32);
            thread->warp->lanes[thread->warp->size++] = thread;
            thread->copies.clear();
            thread->groups.clear();
            thread->open = 0;
            thread->fiber = &machine->pool.fibers[fiber++ % machine->pool.fibers.size()];
            prepare(*thread->fiber, run, i);
            block.barrier.members.push_back(thread);
            machine->barrier.members.push_back(thread);
        }
        put_in_order(block.barrier.members);
    }
    put_in_order(machine->barrier.members);
    for (Thread* member : machine->barrier.members) append(member);
    release(&machine->begin);
    Thread* to = next();
    here = to;
    change(machine->host, *to->fiber);
}

}  // namespace

void set_order(int order) { wanted = order; }

void launch(const Kernel& kernel, unsigned blocks, unsigned cluster, unsigned threads, size_t shared, const void* argument) {
    machine = &own;
    machine->kernel = &kernel;
    machine->argument = argument;
    machine->order = wanted;
    machine->random = 0x9e3779b97f4a7c15u * (static_cast<uint64_t>(wanted) + 1);
    machine->threads.resize(static_cast<size_t>(cluster) * threads);
    machine->queue.resize(machine->threads.size());
    machine->cluster.assign(cluster, Block{});
    machine->barrier = Barrier{};
    adopt(machine->host);
    size_t fibers = std::max(machine->threads.size(), FEWEST);
    while (machine->pool.fibers.size() < fibers) create(machine->pool.fibers.emplace_back());
    std::vector<unsigned> numbers(blocks / cluster);
    std::iota(numbers.begin(), numbers.end(), 0u);
    put_in_order(numbers);
    for (unsigned number : numbers) {
        run_cluster(number * cluster, blocks, threads, shared);
        // To ThreadSanitizer no block has come before another, and nothing may be freed before the launch's end.
        if (!RACES_SHOW) free_used();
    }
    acquire(&machine->end);
    free_used();
}

void block_barrier() { meet(self().in->barrier, AT_BARRIER); }
void cluster_barrier() { meet(machine->barrier, AT_CLUSTER_BARRIER); }

void warp_barrier() {
    Warp& warp = *self().warp;
    char* address = &warp.addresses[warp.met & 1];
    release(address);
    if (gather(AT_WARP_BARRIER)) {
        ++warp.met;
        go_on();
    }
    wait();
    acquire(address);
}

// Orders nothing but the values that are passed, as on a GPU; the same for `warp_multiply`.
uint64_t warp_exchange(uint64_t value, int mask) {
    Thread& thread = self();
    Warp& warp = *thread.warp;
    if (mask < 1 || mask > 31) fail("exchange with a mask that is not one of 1 to 31");
    if (warp.arrived == 0) warp.mask = mask;
    if (warp.mask != mask) fail("lanes of a warp exchange with different masks");
    thread.value = value;
    if (gather(IN_EXCHANGE)) {
        uint64_t values[32];
        for (int i = 0; i < 32; ++i) values[i] = warp.lanes[i ^ mask]->value;
        for (int i = 0; i < 32; ++i) warp.lanes[i]->value = values[i];
        go_on();
    }
    wait();
    return thread.value;
}

void warp_addresses(const void* own, const void* (&all)[32]) {
    Thread& thread = self();
    thread.value = reinterpret_cast<uintptr_t>(own);
    if (reinterpret_cast<uintptr_t>(own) % 16) fail("load_transposed of an address that is no multiple of 16");
    if (gather(IN_LOAD)) {
        for (int i = 0; i < 32; ++i) thread.warp->passed[i] = reinterpret_cast<const void*>(thread.warp->lanes[i]->value);
        go_on();
    }
    wait();
    std::copy_n(thread.warp->passed, 32, all);
}

void warp_multiply(float* c, const unsigned* a, const unsigned* b) {
    Thread& thread = self();
    thread.c = c, thread.a = a, thread.b = b;
    if (gather(IN_MULTIPLY)) {
        double left[16][16], right[16][8], sums[16][8];
        for (int lane = 0; lane < 32; ++lane) {
            const Thread& of = *thread.warp->lanes[lane];
            int g = lane / 4, t = lane % 4;
            for (int i = 0; i < 4; ++i) {
                left[2 * t + i / 2 * 8][g + i % 2 * 8] = lower_half(of.a[i]);
                left[2 * t + 1 + i / 2 * 8][g + i % 2 * 8] = upper_half(of.a[i]);
                sums[g + i / 2 * 8][2 * t + i % 2] = of.c[i];
            }
            for (int i = 0; i < 2; ++i) {
                right[2 * t + i * 8][g] = lower_half(of.b[i]);
                right[2 * t + 1 + i * 8][g] = upper_half(of.b[i]);
            }
        }
        for (int row = 0; row < 16; ++row) {
            for (int k = 0; k < 16; ++k) {
                for (int column = 0; column < 8; ++column) sums[row][column] += left[k][row] * right[k][column];
            }
        }
        float rounded[16][8];
        for (int i = 0; i < 16 * 8; ++i) rounded[i / 8][i % 8] = toward_zero(sums[i / 8][i % 8]);
        for (int lane = 0; lane < 32; ++lane) {
            const Thread& of = *thread.warp->lanes[lane];
            int g = lane / 4, t = lane % 4;
            for (int i = 0; i < 4; ++i) of.c[i] = rounded[g + i / 2 * 8][2 * t + i % 2];
        }
        go_on();
    }
    wait();
}

void add_copy(Copy copy) {
    if (reinterpret_cast<uintptr_t>(copy.shared) % 16 || reinterpret_cast<uintptr_t>(copy.global) % 16) fail("copy_16 of an address that is no multiple of 16");
    if (copy.valid < 0 || copy.valid > 16 || copy.valid % 4) fail("copy_16 of a number of bytes that is not 0, 4, 8, 12 or 16");
    self().copies.push_back(copy);
    ++self().open;
}
void end_group() {
    self().groups.push_back(self().open);
    self().open = 0;
}
bool first_copy(int pending, Copy& copy) {
    Thread& thread = self();
    while (thread.groups.size() > static_cast<size_t>(pending)) {
        if (thread.groups.front() > 0) {
            --thread.groups.front();
            copy = thread.copies.front();
            thread.copies.erase(thread.copies.begin());
            return true;
        }
        thread.groups.erase(thread.groups.begin());
    }
    return false;
}

namespace {
__thread long all_waits;
}
void wait_for_previous() { ++all_waits; }
long waits() { return all_waits; }

}  // namespace shim
