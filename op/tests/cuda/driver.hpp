// What the stub's functions have in common: how they are exported, and what they return, in the numbers of CUDA's cuda.h.
#pragma once

#define DRIVER extern "C" __attribute__((visibility("default"))) CUresult

enum CUresult : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    STUB_LIBRARY = 34,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_PTX = 218,
    UNSUPPORTED_PTX_VERSION = 222,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

namespace stub {

// Whether it is a stream's handle, a default one's too.
bool is_stream(void* stream);

// Before work for a stream: it follows copies, unless the stream does not wait for the default one.
void reach(void* stream);

}  // namespace stub
