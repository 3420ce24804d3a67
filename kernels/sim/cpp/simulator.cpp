// Blocks, their threads' schedule, their shared memory.
#include "simulator.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

#include "checker.hpp"
#include "fiber.hpp"

namespace sim {

const char *name(Schedule schedule) {
    switch (schedule) {
    case Schedule::Ascending: return "ascending";
    case Schedule::Descending: return "descending";
    case Schedule::Random: return "random";
    case Schedule::WarpsAscending: return "warps ascending";
    case Schedule::WarpsDescending: return "warps descending";
    }
    return "";
}

// Files that include the same header may each have its name.
bool Site::operator==(const Site &other) const {
    return line == other.line && (file == other.file || strcmp(file, other.file) == 0);
}

std::string Site::text() const {
    const char *slash = strrchr(file, '/');
    return std::string(slash ? slash + 1 : file) + ":" + std::to_string(line);
}

// The block's memory: variables in order of first use, each between red zones, then what was asked for at launch.
// NaN as f32 and as bf16, so that what is read from there shows.
static const unsigned char POISON = 0xFF;

class Shared {
  public:
    static const size_t ZONE = 128;

    void clear() {
        // A block reads nothing of the one before it.
        memset(bytes, POISON, used);
        if (CHECKED) check_block(bytes, SIZE);
        variables.clear();
        used = 0;
    }

    void *variable(const void *key, size_t size, Site site) {
        for (const Variable &v : variables)
            if (v.key == key) return bytes + v.at;
        size_t at = used + ZONE;
        at = (at + 127) / 128 * 128;
        used = at + size + ZONE;
        if (SIZE < used) fail("shared memory: more than a block can have", site);
        for (size_t i = 0; i < ZONE; i++) bytes[at - ZONE + i] = bytes[at + size + i] = guard(i);
        variables.push_back({key, at, size, site});
        check_variable(bytes + at, size);
        return bytes + at;
    }

    // What was written beside a variable.
    std::string overrun() const {
        for (const Variable &v : variables) {
            for (size_t i = 0; i < ZONE; i++) {
                if (bytes[v.at - ZONE + i] != guard(i))
                    return v.site.text() + ": written before the start of this shared memory";
                if (bytes[v.at + v.size + i] != guard(i))
                    return v.site.text() + ": written past the end of this shared memory of " + std::to_string(v.size) +
                           " bytes";
            }
        }
        return "";
    }

    size_t total() const {
        size_t sum = 0;
        for (const Variable &v : variables) sum += v.size;
        return sum;
    }

  private:
    struct Variable {
        const void *key;
        size_t at, size;
        Site site;
    };
    std::vector<Variable> variables;
    static const size_t SIZE = 2 * SHARED_MOST;
    // Never freed, as the block is kept.
    unsigned char *const bytes = static_cast<unsigned char *>(memset(aligned_alloc(1024, SIZE), POISON, SIZE));
    size_t used = 0;
};

// Lanes that wait for the others of their warp; the first said where and for what.
struct Warp {
    unsigned waiting = 0, barriers = 0;
    Site site;
    const char *what = nullptr;
};

struct Block {
    const Launch *launch = nullptr;
    uint3 index = {};
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    Thread *current = nullptr;
    unsigned at_barrier = 0, barriers = 0, done = 0;
    bool inside = false; // a thread of it runs
    Site barrier_site;
    Shared shared;
    void *at_launch = nullptr;
    std::vector<Box> boxes;
    std::string failure;
};

// One for each CPU thread that launches; it never moves to another, so no lock is needed.
static thread_local Block *block __attribute__((tls_model("initial-exec"))) = nullptr;

Thread &self() { return *block->current; }
const Launch &launch() { return *block->launch; }
uint3 block_index() { return block->index; }
void *shared(const void *key, size_t bytes, Site site) { return block->shared.variable(key, bytes, site); }
void *shared_at_launch() { return block->at_launch; }

static std::string place(const Thread &thread) {
    const uint3 &b = block->index;
    return "block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + ", " + std::to_string(b.z) + "), thread " +
           std::to_string(thread.number);
}

void fail(const std::string &what, Site site) {
    if (block->failure.empty()) block->failure = site.text() + ": " + place(self()) + ": " + what;
    leave(self().fiber); // and never comes back
    __builtin_unreachable();
}

static void wait(State state, const char *what, Site site) {
    Thread &thread = self();
    thread.state = state;
    thread.waits_for = what;
    thread.waits_at = site;
    leave(thread.fiber);
}

void barrier(Site site) {
    if (block->at_barrier == 0) block->barrier_site = site;
    if (!(block->barrier_site == site))
        fail("at a barrier, while others are at the barrier of " + block->barrier_site.text(), site);
    if (++block->at_barrier < block->threads.size()) return wait(State::AtBarrier, "barrier", site);
    block->at_barrier = 0;
    block->barriers++;
    for (Thread &thread : block->threads) thread.state = State::Ready;
}

std::vector<Box> &boxes() { return block->boxes; }

Box *await(const void *arrivals, Site site) {
    self().awaits = arrivals;
    self().due.arrivals = nullptr;
    wait(State::AwaitsBoxes, "arrivals_wait", site);
    return self().due.arrivals ? &self().due : nullptr;
}

void wake() {
    for (Thread &thread : block->threads)
        if (thread.state == State::AwaitsBoxes) thread.state = State::Ready;
}

bool published() {
    for (const Thread &thread : block->threads)
        if (thread.unpublished) return false;
    return true;
}

void warp_barrier(Site site) {
    static const Collective passed = [](void *const (&)[32]) { block->warps[self().number / 32].barriers++; };
    collective("warp_barrier", site, nullptr, passed);
}

bool in_kernel() { return block && block->inside; }

Moment moment(unsigned number) {
    const uint3 &at = block->index;
    const dim3 &grid = block->launch->grid;
    return {block->launch->seed, at.x + static_cast<uint64_t>(grid.x) * (at.y + static_cast<uint64_t>(grid.y) * at.z),
            block->barriers, block->warps[number / 32].barriers, block->threads[number].publishes};
}

void collective(const char *what, Site site, void *arguments, Collective work) {
    Thread &mine = self();
    Warp &warp = block->warps[mine.number / 32];
    if (warp.waiting == 0) {
        warp.site = site;
        warp.what = what;
    }
    if (warp.what != what || !(warp.site == site))
        fail(std::string(what) + ", while other lanes of the warp are in " + warp.what + " of " + warp.site.text(), site);
    mine.arguments = arguments;
    if (++warp.waiting < 32) return wait(State::InCollective, what, site);
    warp.waiting = 0;
    Thread *lanes = &block->threads[mine.number / 32 * 32];
    void *all[32];
    for (unsigned i = 0; i < 32; i++) all[i] = lanes[i].arguments;
    work(all);
    for (unsigned i = 0; i < 32; i++) lanes[i].state = State::Ready;
}

static void run_thread() {
    block->launch->kernel();
    Thread &thread = self();
    size_t pending = 0;
    for (const auto &group : thread.copies) pending += group.size();
    if (pending > 0) fail("ends before it has waited for its asynchronous copies", Site());
    if (!thread.products.empty()) fail("ends before it has waited for its products", Site());
    thread.state = State::Done;
    block->done++;
    leave(thread.fiber);
}

// Who waits for what, when nobody can go on.
static std::string deadlock() {
    std::map<std::string, std::vector<unsigned>> waiting;
    for (const Thread &thread : block->threads) {
        if (thread.state == State::Done)
            waiting["the end"].push_back(thread.number);
        else
            waiting[std::string(thread.waits_for) + " of " + thread.waits_at.text() +
                    (thread.state == State::AwaitsBoxes ? " " + lacking(thread.awaits) : "")]
                .push_back(thread.number);
    }
    std::string text = place(block->threads[0]) + " and its block: nobody can go on:";
    for (const auto &[where, who] : waiting)
        text += " " + std::to_string(who.size()) + " threads at " + where + " (" + std::to_string(who[0]) + " … " +
                std::to_string(who.back()) + ")";
    return text;
}

class Random {
  public:
    explicit Random(uint64_t seed) : state(seed * 0x9E3779B97F4A7C15u + 0x123456789ABCDEF1u) {}
    unsigned operator()(unsigned below) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return static_cast<unsigned>((state >> 33) % below);
    }

  private:
    uint64_t state;
};

static void shuffle_order(std::vector<unsigned> &order, Random &random) {
    for (unsigned i = static_cast<unsigned>(order.size()); i > 1; i--) std::swap(order[i - 1], order[random(i)]);
}

// Lets the threads of `order`, each that can, run until it waits. Whether one could.
static bool turn(const std::vector<unsigned> &order) {
    bool ran = false;
    for (unsigned i : order) {
        Thread &thread = block->threads[i];
        if (thread.state != State::Ready) continue;
        ran = true;
        block->current = &thread;
        block->inside = true;
        enter(thread.fiber);
        block->inside = false;
        if (!block->failure.empty()) return false;
    }
    return ran;
}

// Has the first of these threads that waits for a box do a copy of it. Whether there is one.
static bool deliver(const std::vector<unsigned> &order) {
    for (unsigned i : order) {
        Thread &thread = block->threads[i];
        if (thread.state != State::AwaitsBoxes) continue;
        for (auto box = block->boxes.begin(); box != block->boxes.end(); ++box) {
            if (box->arrivals != thread.awaits) continue;
            thread.due = *box;
            block->boxes.erase(box);
            thread.state = State::Ready;
            return true;
        }
    }
    return false;
}

static void run_block(Random &random) {
    const dim3 &size = block->launch->block;
    unsigned count = size.x * size.y * size.z;
    block->threads.resize(count);
    for (unsigned i = 0; i < count; i++) {
        Thread &thread = block->threads[i];
        thread.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
        thread.number = i;
        thread.state = State::Ready;
        thread.copies.clear();
        thread.products.clear();
        thread.asked = 0;
        thread.unpublished = false;
        thread.publishes = 0;
        thread.fiber = fiber(i);
        prepare(thread.fiber, run_thread);
    }
    block->warps.assign(count / 32, Warp());
    block->at_barrier = block->barriers = block->done = 0;
    block->boxes.clear();
    block->shared.clear();
    block->current = &block->threads[0];
    static const char at_launch_key = 0;
    if (block->launch->shared_bytes > 0)
        block->at_launch = block->shared.variable(&at_launch_key, block->launch->shared_bytes, Site("launch", 0));

    Schedule schedule = block->launch->schedule;
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0);
    if (schedule == Schedule::Descending || schedule == Schedule::WarpsDescending)
        std::reverse(order.begin(), order.end());
    bool by_warp = schedule == Schedule::WarpsAscending || schedule == Schedule::WarpsDescending;
    while (block->done < count && block->failure.empty()) {
        bool ran = false;
        if (by_warp) {
            for (unsigned from = 0; from < count; from += 32) {
                std::vector<unsigned> warp(order.begin() + from, order.begin() + from + 32);
                while (turn(warp)) ran = true;
            }
        } else {
            if (schedule == Schedule::Random) shuffle_order(order, random);
            ran = turn(order);
        }
        if (!ran && block->failure.empty() && block->done < count && !deliver(order)) block->failure = deadlock();
    }
    if (block->failure.empty() && !block->boxes.empty())
        block->failure = place(block->threads[0]) + " and its block: ends before it has waited for copies of boxes";
    for (unsigned i = 0; i + 127 < count && block->failure.empty(); i += 128) {
        for (unsigned warp = 1; warp < 4; warp++)
            if (block->threads[i].asked != block->threads[i + 32 * warp].asked)
                block->failure = place(block->threads[i]) + " and its group: a warp was not there for all of its products";
    }
    if (block->failure.empty() && block->shared.total() > block->launch->shared_limit)
        block->failure = "shared memory: " + std::to_string(block->shared.total()) + " bytes, more than a block can have";
    if (block->failure.empty()) {
        std::string overrun = block->shared.overrun();
        if (!overrun.empty()) block->failure = overrun + " by " + place(block->threads[0]) + " or its block";
    }
}

std::string run(const Launch &launch) {
    if (!block) block = new Block();
    block->launch = &launch;
    block->failure.clear();
    Random random(launch.seed);
    uint64_t count = static_cast<uint64_t>(launch.grid.x) * launch.grid.y * launch.grid.z;
    std::vector<unsigned> order;
    if (launch.schedule == Schedule::Random) {
        order.resize(count);
        std::iota(order.begin(), order.end(), 0);
        shuffle_order(order, random);
    }
    bool down = launch.schedule == Schedule::Descending || launch.schedule == Schedule::WarpsDescending;
    for (uint64_t i = 0; i < count && block->failure.empty(); i++) {
        uint64_t at = order.empty() ? (down ? count - 1 - i : i) : order[i];
        block->index = {static_cast<unsigned>(at % launch.grid.x),
                        static_cast<unsigned>(at / launch.grid.x % launch.grid.y),
                        static_cast<unsigned>(at / launch.grid.x / launch.grid.y)};
        run_block(random);
    }
    return block->failure;
}

static std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}
void enroll(Kernel kernel) { kernels()[kernel.name] = kernel; }
const Kernel *find(const std::string &name) {
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

} // namespace sim
