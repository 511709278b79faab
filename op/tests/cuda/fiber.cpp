// This file is compiled without the sanitizers' instrumentation: it says itself what they are to know.
#include "fiber.hpp"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef __x86_64__
#include <ucontext.h>
#endif

#ifdef ISQRT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef ISQRT_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace shim {
namespace {

// Room for a kernel's local arrays, many times over; only what is touched becomes memory.
constexpr size_t STACK = 256 << 10;
// Tops at different distances from the stacks' ends: equal ones would all fall into the same few sets of the cache.
constexpr size_t SPREAD = 64, STEP = 9 * 64;

size_t page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

#ifdef __x86_64__

// What the calling convention keeps across a call goes onto the stack; a jump instead of a return, which the processor would
// always predict wrong.
extern "C" void shim_change(void** from, void* to);
asm(R"(
    .text
    .type shim_change, @function
    .hidden shim_change
    .globl shim_change
shim_change:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmpq *%rcx
    .size shim_change, . - shim_change
)");

static void place(Fiber& fiber, void (*entry)(), char* top) {
    void** words = reinterpret_cast<void**>(top) - 8;  // six registers, where to go, and nowhere to return to
    for (int i = 0; i < 8; ++i) words[i] = nullptr;
    words[6] = reinterpret_cast<void*>(entry);
    fiber.place = words;
}
static void jump(Fiber& from, Fiber& to) { shim_change(&from.place, to.place); }
static void forget(Fiber&) {}

#else

static ucontext_t* context(Fiber& fiber) {
    if (!fiber.place) fiber.place = new ucontext_t;
    return static_cast<ucontext_t*>(fiber.place);
}
static void place(Fiber& fiber, void (*entry)(), char* top) {
    getcontext(context(fiber));
    context(fiber)->uc_stack.ss_sp = fiber.stack.base;
    context(fiber)->uc_stack.ss_size = static_cast<size_t>(top - fiber.stack.base);
    context(fiber)->uc_link = nullptr;
    makecontext(context(fiber), entry, 0);
}
static void jump(Fiber& from, Fiber& to) { swapcontext(context(from), context(to)); }
static void forget(Fiber& fiber) {
    delete static_cast<ucontext_t*>(fiber.place);
    fiber.place = nullptr;
}

#endif

void create(Fiber& fiber) {
    void* memory = mmap(nullptr, page() + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page(), PROT_NONE) != 0) {
        perror("shim: a stack");
        abort();
    }
    fiber.stack = {static_cast<char*>(memory) + page(), STACK};
#ifdef ISQRT_TSAN
    fiber.tsan = __tsan_create_fiber(0);
#endif
}

void destroy(Fiber& fiber) {
    forget(fiber);
#ifdef ISQRT_TSAN
    __tsan_destroy_fiber(fiber.tsan);
#endif
    munmap(fiber.stack.base - page(), page() + fiber.stack.size);
}

void prepare(Fiber& fiber, void (*entry)(), unsigned number) {
    place(fiber, entry, fiber.stack.base + fiber.stack.size - (number % SPREAD) * STEP);
}

static void change_to(Fiber& from, Fiber& to, bool last) {
    (void)last;
#ifdef ISQRT_ASAN
    __sanitizer_start_switch_fiber(last ? nullptr : &from.fake, to.stack.base, to.stack.size);
#endif
#ifdef ISQRT_TSAN
    __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
#endif
    jump(from, to);
#ifdef ISQRT_ASAN
    __sanitizer_finish_switch_fiber(from.fake, nullptr, nullptr);
#endif
}

void change(Fiber& from, Fiber& to) { change_to(from, to, false); }

void leave(Fiber& from, Fiber& to) {
    change_to(from, to, true);
    abort();
}

void started() {
#ifdef ISQRT_ASAN
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void adopt(Fiber& fiber) {
    (void)fiber;
#ifdef ISQRT_ASAN
    pthread_attr_t attributes;
    void* base = nullptr;
    size_t size = 0;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &base, &size);
    pthread_attr_destroy(&attributes);
    fiber.stack = {static_cast<char*>(base), size};
#endif
#ifdef ISQRT_TSAN
    fiber.tsan = __tsan_get_current_fiber();
#endif
}

void release(void* address) {
    (void)address;
#ifdef ISQRT_TSAN
    __tsan_release(address);
#endif
}
void acquire(void* address) {
    (void)address;
#ifdef ISQRT_TSAN
    __tsan_acquire(address);
#endif
}

}  // namespace shim
