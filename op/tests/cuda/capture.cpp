// Captures and graphs, as far as the tests need them: a graph is a list of what was put on the stream, done in order.
//
// A capture forbids calls that are unsafe to its own thread, unless its mode is RELAXED, and, where that is GLOBAL, to all other threads. A thread
// may let itself make them (`cuThreadExchangeStreamCaptureMode`). What is forbidden fails and spoils the capture, which its owner learns at the end.
#include "capture.hpp"

#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>


namespace {

enum Mode : int { GLOBAL, THREAD_LOCAL, RELAXED };
using Graph = std::vector<stub::Work>;

struct Capture {
    Mode mode;
    std::thread::id thread;
    bool spoiled;
    Graph graph;
};

std::mutex lock;
std::map<void*, Capture> captures;
thread_local Mode own = GLOBAL;

}  // namespace

bool stub::captured(void* stream, Work work) {
    std::lock_guard<std::mutex> hold(lock);
    auto found = captures.find(stream);
    if (found == captures.end()) return false;
    found->second.graph.push_back(std::move(work));
    return true;
}

CUresult stub::put(void* stream, Work work) {
    if (captured(stream, work)) return SUCCESS;
    reach(stream);
    return work();
}

bool stub::permitted() {
    std::lock_guard<std::mutex> hold(lock);
    bool allowed = true;
    for (auto& [stream, capture] : captures) {
        const bool mine = capture.thread == std::this_thread::get_id();
        const bool forbids = mine ? capture.mode != RELAXED : capture.mode == GLOBAL && own == GLOBAL;
        if (own == RELAXED || !forbids) continue;
        capture.spoiled = true;
        allowed = false;
    }
    return allowed;
}

DRIVER cuThreadExchangeStreamCaptureMode(int* mode) {
    if (*mode < GLOBAL || *mode > RELAXED) return INVALID_VALUE;
    *mode = std::exchange(own, static_cast<Mode>(*mode));
    return SUCCESS;
}
DRIVER cuStreamBeginCapture_v2(void* stream, int mode) {
    if (!stub::is_stream(stream)) return INVALID_HANDLE;
    std::lock_guard<std::mutex> hold(lock);
    return captures.insert({stream, {static_cast<Mode>(mode), std::this_thread::get_id(), false, {}}}).second ? SUCCESS : ILLEGAL_STATE;
}
DRIVER cuStreamEndCapture(void* stream, void** graph) {
    std::lock_guard<std::mutex> hold(lock);
    auto ended = captures.extract(stream);
    if (!ended) return ILLEGAL_STATE;
    *graph = ended.mapped().spoiled ? nullptr : new Graph(std::move(ended.mapped().graph));
    return *graph ? SUCCESS : CAPTURE_INVALIDATED;
}
// Graphs are never freed, and ready as they are.
DRIVER cuGraphInstantiateWithFlags(void** ready, void* graph, unsigned long long) {
    *ready = graph;
    return graph ? SUCCESS : INVALID_VALUE;
}
DRIVER cuGraphLaunch(void* ready, void* stream) {
    if (!ready || !stub::is_stream(stream)) return INVALID_HANDLE;
    stub::reach(stream);
    for (const stub::Work& work : *static_cast<Graph*>(ready)) {
        const CUresult result = work();
        if (result != SUCCESS) return result;
    }
    return SUCCESS;
}
