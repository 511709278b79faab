// Stacks of their own for the threads of a block, and the switch from one to another.
//
// The sanitizers are told of every switch: to AddressSanitizer a fiber is a stack, to ThreadSanitizer a thread that
// no switch orders.
#pragma once

#include <stddef.h>

namespace shim {

// A stack above a guard page, so that an overflow is a fault and no other thread's numbers.
struct Stack {
    char* base = nullptr;
    size_t size = 0;
};

// Where a thread of control stands while another runs. To ThreadSanitizer all that runs on it is one thread.
struct Fiber {
    void* place = nullptr;  // its stack pointer, or its context
    Stack stack;            // none for the one that the host called with
    void* fake = nullptr;   // AddressSanitizer's
    void* tsan = nullptr;   // ThreadSanitizer's
};

// A fiber with a stack.
void create(Fiber& fiber);
void destroy(Fiber& fiber);
// Makes the host thread's own thread of control the one that `fiber` stands for.
void adopt(Fiber& fiber);
// Lets `fiber` begin with `entry`, which calls `started` first and never returns: it leaves by `leave`. `number` spreads the
// stacks' tops over the cache's sets.
void prepare(Fiber& fiber, void (*entry)(), unsigned number);
void started();
// Goes on with `to`. Returns when something goes on with `from`.
void change(Fiber& from, Fiber& to);
// The same for the last time.
void leave(Fiber& from, Fiber& to);

#ifdef ISQRT_TSAN
constexpr bool RACES_SHOW = true;
#else
constexpr bool RACES_SHOW = false;
#endif
// What ThreadSanitizer is told of the order of accesses; nothing otherwise. What came before `release` in any thread comes
// before what follows `acquire` with the same address.
void release(void* address);
void acquire(void* address);

}  // namespace shim
