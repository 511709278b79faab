// How a test talks to the stub: settings in, the log out.
#include "stub.hpp"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <mutex>

#include "machine.hpp"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace stub {
namespace {

thread_local std::map<std::string, std::string> own;
thread_local std::string log;

}  // namespace

std::string setting(const char* name, const char* otherwise) {
    auto found = own.find(name);
    if (found != own.end()) return found->second;
    const char* value = getenv((std::string("ISQRT_STUB_") + name).c_str());
    return value ? value : otherwise;
}

long number(const char* name, const char* otherwise) { return atol(setting(name, otherwise).c_str()); }

void note(const char* format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    strcat(line, "\n");
    log += line;
    std::string path = setting("LOG", "");
    if (path.empty()) return;
    if (FILE* file = fopen(path.c_str(), "a")) {
        fputs(line, file);
        fclose(file);
    }
}

}  // namespace stub

// Sets what the calling thread sees of the device; null takes it back.
EXPORTED void isqrt_stub_set(const char* name, const char* value) {
    if (value) {
        stub::own[name] = value;
    } else {
        stub::own.erase(name);
    }
}

// The order in which the calling thread's launches run: see `shim::set_order`.
EXPORTED void isqrt_stub_order(int order) { shim::set_order(order); }

// Moves the calling thread's log into `buffer`, ended by a zero, as far as it fits. Returns its length; with null it stays.
EXPORTED size_t isqrt_stub_log(char* buffer, size_t size) {
    size_t length = stub::log.size();
    if (buffer && size > 0) {
        snprintf(buffer, size, "%s", stub::log.c_str());
        stub::log.clear();
    }
    return length;
}
