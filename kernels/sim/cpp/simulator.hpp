// A GPU in C++: runs a kernel's blocks one after another, a block's threads as fibers on one CPU thread.
//
// A thread runs until it waits: at a barrier for all of its block, or at a collective (shuffle, vote, tensor core …) for
// all of its warp. The last to arrive carries the collective out for everyone. Which of the threads that can run runs next
// is the schedule's choice, and a right kernel gives the same bits under every schedule.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

struct alignas(8) uint2 {
    unsigned x, y;
};
struct uint3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
typedef uint3 dim3;

namespace sim {

// Blocks go up with the threads or warps, down with them, or at random.
enum class Schedule { Ascending, Descending, Random, WarpsAscending, WarpsDescending };
const int SCHEDULES = 5;
const char *name(Schedule schedule);

// A place in the source: the caller's, where it is a default argument.
struct Site {
    const char *file;
    int line;
    Site(const char *file = __builtin_FILE(), int line = __builtin_LINE()) : file(file), line(line) {}
    bool operator==(const Site &other) const;
    std::string text() const;
};

// A 16-byte copy that was asked for and not waited for yet.
struct Copy {
    void *to;
    const void *from; // null for zeros
    Site site;
};

// A product that was asked for and not waited for yet.
struct Product {
    std::function<void()> work;
    bool committed;
};

// A copy of a box that was asked for and has not been done yet, and what counts its bytes.
struct Box {
    const void *arrivals;
    size_t bytes;
    std::function<void()> work;
};

enum class State { Ready, AtBarrier, InCollective, AwaitsBoxes, Done };

struct Thread {
    uint3 index;
    unsigned number;
    State state;
    Site waits_at;
    const char *waits_for;
    void *arguments;                         // of the collective it waits in
    std::vector<std::vector<Copy>> copies;   // groups, the last one open
    std::vector<Product> products;           // of its warp, if it is the first of it
    unsigned asked;                          // how many there were
    bool unpublished;                        // it has waited for copies that products do not see yet
    unsigned publishes;                      // how many there were
    const void *awaits;                      // what counts the boxes that it waits for
    Box due;                                 // which it is to do, as nobody can go on without
    struct Fiber *fiber;
};

struct Launch {
    dim3 grid, block;
    unsigned shared_bytes; // chosen at launch
    size_t shared_limit;   // the most that a block can have, with what is declared in the kernel
    Schedule schedule;
    uint64_t seed;
    std::function<void()> kernel;
};

// The most shared memory that a block of any simulated GPU can have: compute capability 9.0.
const size_t SHARED_MOST = 227 * 1024;

// Runs it. Empty, or what went wrong: where, and which thread.
std::string run(const Launch &launch);

// Byte i of what stands beside memory, and changes when it is written to: signalling NaNs as f32 and as bf16, which turn into
// other NaNs even where a sum is added to them.
inline unsigned char guard(size_t i) { return i % 2 == 0 ? 0xA1 : 0x7F; }

// For `primitives.hpp`, called by a kernel's threads:
Thread &self();
const Launch &launch();
uint3 block_index();
void barrier(Site site);
typedef void (*Collective)(void *const (&arguments)[32]);
void warp_barrier(Site site);
void collective(const char *what, Site site, void *arguments, Collective work);
// Memory of the block for the variable that `key` stands for; poisoned with NaN, between red zones.
void *shared(const void *key, size_t bytes, Site site);
void *shared_at_launch();
// Whether products see all copies that threads of the block have waited for.
bool published();
// Of the block, in the order in which they were asked for.
std::vector<Box> &boxes();
// Waits until something has arrived, or there is a copy to be done by the thread, as nobody can go on without: null or that.
Box *await(const void *arrivals, Site site);
// Something has arrived.
void wake();
// What they wait for.
std::string lacking(const void *arrivals);
[[noreturn]] void fail(const std::string &what, Site site);

// For `checker.cpp`: whether a kernel's thread runs now, and where thread `number` of its block is, in space and time.
bool in_kernel();
struct Moment {
    uint64_t launch, block;
    unsigned barriers, warp_barriers, publishes; // so far
};
Moment moment(unsigned number);

// A kernel by name, with the bytes of its parameters; `call` runs it in the current thread.
struct Kernel {
    std::string name;
    std::vector<size_t> parameters;
    void (*call)(void *const *arguments);
};
void enroll(Kernel kernel);
const Kernel *find(const std::string &name);

} // namespace sim
