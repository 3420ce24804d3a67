// What the parts of the driver share: errors, memory, devices, streams.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>

#include "checker.hpp"
#include "simulator.hpp"

#define API extern "C" __attribute__((visibility("default"))) int

typedef unsigned long long Pointer;

enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_PTX = 218,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

// Says what is wrong, and gives the result back.
int complain(Result result, const std::string &what);

// ---- Memory: poisoned with NaN, between guards that only a fault writes to.

const size_t MEMORY = size_t(16) << 30, GUARD = 256;
using sim::guard;

// A graph's memory has its address from the capture on, and is there from the node that allocates it to the one that frees it.
class Memory {
  public:
    int allocate(Pointer *pointer, size_t bytes) { return allocate(pointer, bytes, Block{bytes, false, true}); }
    int reserve(Pointer *pointer, size_t bytes) { return allocate(pointer, bytes, Block{bytes, true, false}); }

    int release(Pointer pointer) {
        std::lock_guard<std::mutex> lock(mutex);
        auto found = blocks.find(pointer);
        if (found == blocks.end() || !found->second.there)
            return complain(INVALID_VALUE, "memory is freed that was not allocated");
        std::string fault = broken(pointer, found->second.bytes);
        poison(pointer, found->second.bytes);
        found->second.there = false;
        if (!found->second.of_graph) remove(found);
        return fault.empty() ? SUCCESS : complain(ILLEGAL_ADDRESS, fault);
    }

    // For a graph's memory: it is allocated at a launch; and its graph is gone, which leaves it to whoever has it now.
    int begin(Pointer pointer) {
        std::lock_guard<std::mutex> lock(mutex);
        Block &block = blocks.at(pointer);
        if (block.there) return complain(INVALID_VALUE, "a graph is launched again, and its memory was not freed");
        sim::check_fresh(reinterpret_cast<void *>(pointer), block.bytes);
        block.there = true;
        return SUCCESS;
    }
    void leave(Pointer pointer) {
        std::lock_guard<std::mutex> lock(mutex);
        auto found = blocks.find(pointer);
        found->second.of_graph = false;
        if (!found->second.there) remove(found);
    }

    // Whether these bytes lie within one allocation.
    bool holds(Pointer pointer, size_t bytes) {
        std::lock_guard<std::mutex> lock(mutex);
        auto next = blocks.upper_bound(pointer);
        if (next == blocks.begin()) return false;
        auto [at, block] = *std::prev(next);
        return block.there && pointer - at <= block.bytes && bytes <= block.bytes - (pointer - at);
    }

    // What was written beside an allocation; it is mended, so that it is told once.
    std::string fault() {
        std::lock_guard<std::mutex> lock(mutex);
        for (const auto &[pointer, block] : blocks) {
            std::string found = broken(pointer, block.bytes);
            if (!found.empty()) return found;
        }
        return "";
    }

    size_t free_bytes() {
        std::lock_guard<std::mutex> lock(mutex);
        return MEMORY - used;
    }

  private:
    struct Block {
        size_t bytes;
        bool of_graph, there;
    };

    int allocate(Pointer *pointer, size_t bytes, Block block) {
        if (bytes == 0) return INVALID_VALUE;
        std::lock_guard<std::mutex> lock(mutex);
        if (used + bytes > MEMORY) return OUT_OF_MEMORY;
        void *at;
        if (sim::CHECKED) {
            at = sim::check_new(bytes);
            if (!at) return OUT_OF_MEMORY;
        } else {
            auto *whole = static_cast<unsigned char *>(aligned_alloc(256, (bytes + 2 * GUARD + 255) / 256 * 256));
            if (!whole) return OUT_OF_MEMORY;
            for (size_t i = 0; i < GUARD; i++) whole[i] = whole[GUARD + bytes + i] = guard(i);
            at = whole + GUARD;
        }
        *pointer = reinterpret_cast<Pointer>(at);
        memset(at, 0xFF, bytes);
        if (!block.there) poison(*pointer, bytes);
        blocks[*pointer] = block;
        used += bytes;
        return SUCCESS;
    }

    static void poison(Pointer pointer, size_t bytes) {
        memset(reinterpret_cast<void *>(pointer), 0xFF, bytes);
        if (sim::CHECKED) sim::check_free(reinterpret_cast<void *>(pointer), bytes);
    }

    void remove(std::map<Pointer, Block>::iterator found) {
        if (!sim::CHECKED) {
            auto *whole = reinterpret_cast<unsigned char *>(found->first) - GUARD;
            memset(whole, 0xFF, found->second.bytes + 2 * GUARD);
            free(whole);
        }
        used -= found->second.bytes;
        blocks.erase(found);
    }

    static std::string broken(Pointer pointer, size_t size) {
        if (sim::CHECKED) return "";
        auto *at = reinterpret_cast<unsigned char *>(pointer);
        for (size_t i = 0; i < GUARD; i++) {
            bool before = at[i - GUARD] != guard(i), after = at[size + i] != guard(i);
            if (!before && !after) continue;
            std::string where = before ? std::to_string(GUARD - i) + " bytes before the start"
                                       : std::to_string(i) + " bytes past the end";
            for (size_t j = 0; j < GUARD; j++) at[j - GUARD] = at[size + j] = guard(j);
            return "written " + where + " of global memory of " + std::to_string(size) + " bytes";
        }
        return "";
    }

    std::mutex mutex;
    std::map<Pointer, Block> blocks;
    size_t used = 0;
};

struct Device {
    Memory memory;
    uint64_t launches = 0;
};
// The checker finds the same under every schedule.
const int DEVICES = sim::CHECKED ? 1 : sim::SCHEDULES + 3;
extern Device devices[DEVICES];
extern thread_local Device *current;

// A stream does what it is asked at once, or its graph keeps it.
struct Stream {
    Device *device;
    struct Graph *captured;
    bool invalid; // what was asked cannot be captured
};

// Does it now, or at each launch of the graph that the stream is captured into.
int put(Stream *stream, std::function<int()> work);
int allocate(Stream *stream, Pointer *pointer, size_t bytes);
int release(Stream *stream, Pointer pointer);
// An error where this thread captures a stream, since what would have to happen now cannot be put off.
int must_happen_now(const char *what);
