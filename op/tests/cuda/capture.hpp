// Streams that are captured.
#pragma once

#include <functional>

#include "driver.hpp"

namespace stub {

using Work = std::function<CUresult()>;

// Whether `stream` is captured: then `work` is the graph's, and done when that is launched.
bool captured(void* stream, Work work);

// Puts work on a stream: it is done now, or by the graph.
CUresult put(void* stream, Work work);

// Whether the calling thread may make a call that is unsafe while something is captured. Where it may not, the captures that forbid it are spoiled.
bool permitted();

}  // namespace stub
