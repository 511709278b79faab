// What the stub of the driver is told, what it tells, and its memory.
#pragma once

#include <stddef.h>

#include <string>

namespace stub {

// What the calling thread has set, or the environment's ISQRT_STUB_`name`, or `otherwise`:
//     DEVICES          how many there are: 0 or 1
//     CAPABILITY       the device's compute capability
//     POOLS            whether it has memory pools: 0 or 1
//     DRIVER           the driver's version, as in 12040
//     REFUSE           tiers whose modules the driver cannot load, as in 80,75
//     ALLOCATIONS      after how many allocations of the process the memory is full
//     LAUNCHES         after how many launches of the process they fail
//     CLUSTERS         how many clusters there is room for, of blocks that take most of the shared memory
//     LOG              a file that the log goes to as well
std::string setting(const char* name, const char* otherwise);
long number(const char* name, const char* otherwise);

// One line of the log.
void note(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Device memory is the host's heap: NaN at first, of exactly the size asked for, and NaN around it.
void* allocate(size_t bytes);
// A copy from the host's memory, which may return before the bytes are there: they are once `arrive` is called.
void send(void* to, const void* from, size_t bytes);
void arrive();
// False if nothing was allocated there.
bool release(void* memory);
// Whether all these bytes lie within one allocation.
bool known(const void* memory, size_t bytes);
// Ends the program if something was written beside an allocation; `after` says what ran last.
void check_guards(const char* after);

}  // namespace stub
