// Capture of a stream into a graph, and its launch, as in NVIDIA's CUDA driver API.
#include <atomic>
#include <memory>

#include "driver.hpp"

struct Graph {
    Device *device;
    std::vector<std::function<int()>> nodes;
    std::vector<Pointer> memory; // of the nodes that allocate
    std::set<Pointer> unfreed;   // of them, without a node that frees it
    bool instantiated = false;

    ~Graph() {
        for (Pointer pointer : memory) device->memory.leave(pointer);
    }
};

struct Executable {
    std::shared_ptr<Graph> graph;
    unsigned long long flags;
};
static const unsigned long long AUTO_FREE_ON_LAUNCH = 1;

// What this thread captures; other threads may do what they like.
static thread_local Stream *capturing = nullptr;

static int invalidate(Stream *stream, const std::string &what) {
    stream->invalid = true;
    return complain(CAPTURE_UNSUPPORTED, what + " while a stream is captured");
}

int must_happen_now(const char *what) { return capturing ? invalidate(capturing, what) : SUCCESS; }

int put(Stream *stream, std::function<int()> work) {
    if (!stream || !stream->captured) return work();
    if (stream->invalid) return CAPTURE_INVALIDATED;
    stream->captured->nodes.push_back(std::move(work));
    return SUCCESS;
}

int allocate(Stream *stream, Pointer *pointer, size_t bytes) {
    Device *device = stream->device;
    Graph *graph = stream->captured;
    if (!graph) return device->memory.allocate(pointer, bytes);
    if (stream->invalid) return CAPTURE_INVALIDATED;
    if (int bad = device->memory.reserve(pointer, bytes)) return bad;
    graph->memory.push_back(*pointer);
    graph->unfreed.insert(*pointer);
    return put(stream, [device, at = *pointer] { return device->memory.begin(at); });
}

int release(Stream *stream, Pointer pointer) {
    Device *device = stream->device;
    if (stream->captured && !stream->invalid && stream->captured->unfreed.erase(pointer) == 0) {
        stream->invalid = true;
        return complain(INVALID_VALUE, "a captured stream frees memory that it has not allocated");
    }
    return put(stream, [=] { return device->memory.release(pointer); });
}

API cuStreamBeginCapture_v2(Stream *stream, int) {
    if (capturing || stream->captured) return ILLEGAL_STATE;
    stream->captured = new Graph();
    stream->captured->device = stream->device;
    stream->invalid = false;
    capturing = stream;
    return SUCCESS;
}
API cuStreamEndCapture(Stream *stream, std::shared_ptr<Graph> **graph) {
    *graph = nullptr;
    if (capturing != stream) return ILLEGAL_STATE;
    std::shared_ptr<Graph> made(stream->captured);
    stream->captured = nullptr;
    capturing = nullptr;
    if (stream->invalid) return CAPTURE_INVALIDATED;
    *graph = new std::shared_ptr<Graph>(made);
    return SUCCESS;
}
API cuStreamIsCapturing(Stream *stream, int *status) {
    *status = !stream->captured ? 0 : stream->invalid ? 2 : 1;
    return SUCCESS;
}

// Not the driver's: whether the graphs of this thread are refused, as a test of what becomes of that wants.
static thread_local bool refused;
extern "C" __attribute__((visibility("default"))) void simulator_refuse_graphs(bool refuse) { refused = refuse; }

// A graph that allocates can be instantiated once at a time.
API cuGraphInstantiateWithFlags(Executable **executable, std::shared_ptr<Graph> *graph, unsigned long long flags) {
    if (refused) return complain(NOT_SUPPORTED, "graphs are refused");
    if (flags & ~AUTO_FREE_ON_LAUNCH) return NOT_SUPPORTED;
    if ((*graph)->instantiated) return complain(NOT_SUPPORTED, "a graph with memory of its own is instantiated twice");
    (*graph)->instantiated = true;
    *executable = new Executable{*graph, flags};
    return SUCCESS;
}
// Not the driver's: graphs launched so far.
static std::atomic<uint64_t> launched;
extern "C" __attribute__((visibility("default"))) uint64_t simulator_graphs_launched() { return launched; }

API cuGraphLaunch(Executable *executable, Stream *stream) {
    Graph &graph = *executable->graph;
    if (stream->captured) return invalidate(stream, "launch a graph");
    if (stream->device != graph.device) return INVALID_VALUE;
    launched++;
    for (Pointer pointer : graph.unfreed)
        if (executable->flags & AUTO_FREE_ON_LAUNCH && graph.device->memory.holds(pointer, 0))
            if (int bad = graph.device->memory.release(pointer)) return bad;
    for (const auto &node : graph.nodes)
        if (int bad = node()) return bad;
    return SUCCESS;
}
API cuGraphExecDestroy(Executable *executable) {
    executable->graph->instantiated = false;
    delete executable;
    return SUCCESS;
}
API cuGraphDestroy(std::shared_ptr<Graph> *graph) {
    delete graph;
    return SUCCESS;
}
