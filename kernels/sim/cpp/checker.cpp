#include "checker.hpp"

#ifdef SIM_CHECK

#include <dlfcn.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sim {

// Of two bytes of memory, the least that a kernel stores. Zero is where nothing is.
enum Grain : unsigned char { NOTHING, FRESH, WRITTEN, FREED, COPYING };
static const size_t GRAIN = 2;

// Who did something when, in 64 bits; zero is nobody. Numbers are kept modulo a power of two: what is compared is whether
// they are the same, and time only goes on.
struct Event {
    uint64_t launch : 15, someone : 1, block : 16, barriers : 11, warp_barriers : 11, thread : 10;
    bool is_now(const Event &now) const { return someone && launch == now.launch; }
    unsigned warp() const { return thread / 32; }
};
static_assert(sizeof(Event) == 8, "an event is a word");

// The last write, and of the reads since then the last one, and the last by another lane of its warp, by another warp of its
// block, by another block. Whichever thread writes next: if any read is not in order with it, one of these is not.
struct Cell {
    Event write, read, other_lane, other_warp, other_block;
    unsigned write_place, read_place; // code addresses from the start of the library
    unsigned publishes;               // of the writer, before
};

struct Area {
    char *at;
    size_t bytes;
    unsigned char *states;
    Cell *cells;
    bool holds(const void *p) const { return static_cast<size_t>(static_cast<const char *>(p) - at) < bytes; }
    size_t grain(const void *p) const { return static_cast<size_t>(static_cast<const char *>(p) - at) / GRAIN; }
};

// Addresses are never used again, and cost nothing until they are touched.
static const size_t GLOBAL = size_t(1) << 38, GAP = 1 << 16;

static void *addresses(size_t bytes) {
    void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        perror("simulated GPU: addresses for the checker");
        abort();
    }
    return at;
}

static Area area(char *at, size_t bytes) {
    size_t grains = bytes / GRAIN;
    return {at, bytes, static_cast<unsigned char *>(addresses(grains)), static_cast<Cell *>(addresses(grains * sizeof(Cell)))};
}

static Area &global() {
    static Area all = area(static_cast<char *>(addresses(GLOBAL)), GLOBAL);
    return all;
}
static thread_local Area shared_area __attribute__((tls_model("initial-exec")));

static void set(Area &in, const void *at, size_t bytes, Grain state) {
    if (bytes > 0) memset(in.states + in.grain(at), state, (bytes + GRAIN - 1) / GRAIN);
}

void *check_new(size_t bytes) {
    static std::atomic<size_t> used(GAP);
    size_t from = used.fetch_add((bytes + GAP + 255) / 256 * 256);
    if (from + bytes + GAP > GLOBAL) return nullptr;
    set(global(), global().at + from, bytes, FRESH);
    return global().at + from;
}

void check_free(void *at, size_t bytes) {
    Area &all = global();
    set(all, at, bytes, FREED);
    auto release = [](char *from, size_t size) {
        auto first = (reinterpret_cast<uintptr_t>(from) + 4095) / 4096 * 4096;
        auto last = (reinterpret_cast<uintptr_t>(from) + size) / 4096 * 4096;
        if (last > first) madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);
    };
    release(static_cast<char *>(at), bytes);
    release(reinterpret_cast<char *>(all.cells + all.grain(at)), bytes / GRAIN * sizeof(Cell));
}

void check_fresh(void *at, size_t bytes) { set(global(), at, bytes, FRESH); }

void check_written(void *at, size_t bytes) { set(global(), at, bytes, WRITTEN); }

void check_copied(void *to, const void *from, size_t bytes) {
    Area &all = global();
    memmove(all.states + all.grain(to), all.states + all.grain(from), (bytes + GRAIN - 1) / GRAIN);
}

bool check_readable(const void *at, size_t bytes) {
    Area &all = global();
    for (size_t i = 0; i < (bytes + GRAIN - 1) / GRAIN; i++)
        if (all.states[all.grain(at) + i] != WRITTEN) return false;
    return true;
}

void check_block(void *at, size_t bytes) {
    if (shared_area.at != at) shared_area = area(static_cast<char *>(at), bytes);
    memset(shared_area.states, NOTHING, bytes / GRAIN);
}

void check_variable(void *at, size_t bytes) { set(shared_area, at, bytes, FRESH); }

// ---- Places in the source.

static char *library() {
    static char *base = [] {
        Dl_info info;
        dladdr(reinterpret_cast<void *>(&library), &info);
        return static_cast<char *>(info.dli_fbase);
    }();
    return base;
}

// Where the instruction before this address comes from: where it was written, and where that was inlined.
static Site place_of(unsigned address) {
    Dl_info info;
    dladdr(reinterpret_cast<void *>(&library), &info);
    char command[1024], line[1024];
    snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%x", info.dli_fname, address - 1);
    Site found("?", 0);
    FILE *lines = popen(command, "r");
    if (!lines) return found;
    while (fgets(line, sizeof line, lines)) {
        char *colon = strrchr(line, ':');
        if (!colon) continue;
        *colon = 0;
        // The kernel's own line rather than that of the header's function in it.
        bool own = strstr(line, ".cu") && !strstr(line, "device.cuh");
        if (found.line == 0 || own) found = Site(strdup(line), atoi(colon + 1));
        if (own) break;
    }
    pclose(lines);
    return found;
}

static std::string who(const Event &event, unsigned place) {
    return "block " + std::to_string(event.block) + ", thread " + std::to_string(event.thread) +
           (place ? ", " + place_of(place).text() : std::string());
}

// ---- The check.

static Event now(unsigned number) {
    const Moment moment = sim::moment(number);
    Event event = {};
    event.launch = moment.launch;
    event.someone = 1;
    event.block = moment.block;
    event.barriers = moment.barriers;
    event.warp_barriers = moment.warp_barriers;
    event.thread = number;
    return event;
}

// Whether an earlier event is known to be over.
static bool in_order(const Event &before, const Event &now) {
    if (!before.is_now(now)) return true;
    if (before.block != now.block) return false;
    if (before.thread == now.thread || before.barriers != now.barriers) return true;
    return before.warp() == now.warp() && before.warp_barriers != now.warp_barriers;
}

struct Fault {
    std::string what;
    explicit operator bool() const { return !what.empty(); }
};

static std::string bytes_text(size_t bytes) { return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes"); }

static Fault outside(const Area &in, size_t grain, const char *verb, size_t bytes) {
    const char *kind = &in == &shared_area ? "shared" : "global";
    std::string text = std::string(verb) + bytes_text(bytes) + " out of bounds: ";
    for (size_t i = 1; i <= GAP / GRAIN; i++) {
        if (grain >= i && in.states[grain - i] != NOTHING)
            return {text + bytes_text((i - 1) * GRAIN) + " past the end of " + kind + " memory"};
        if (grain + i < in.bytes / GRAIN && in.states[grain + i] != NOTHING)
            return {text + bytes_text(i * GRAIN) + " before the start of " + kind + " memory"};
    }
    return {text + "far from any " + kind + " memory"};
}

static Fault race(const char *verb, size_t bytes, const char *how, const Event &other, unsigned place) {
    return {std::string("race: ") + verb + bytes_text(bytes) + how + who(other, place)};
}

static Fault check(Area &in, const void *at, size_t bytes, Access access, const Event &now, unsigned place) {
    const char *verb = access == Access::Write ? "writes " : "reads ";
    for (size_t grain = in.grain(at), last = in.grain(static_cast<const char *>(at) + bytes - 1); grain <= last; grain++) {
        unsigned char &state = in.states[grain];
        if (state == NOTHING) return outside(in, grain, verb, bytes);
        if (state == FREED) return {verb + bytes_text(bytes) + " that were freed"};
        if (state == COPYING) return {verb + bytes_text(bytes) + " of an asynchronous copy that was not waited for"};
        if (access != Access::Write && state == FRESH) return {"reads " + bytes_text(bytes) + " that nothing has written"};
        Cell &cell = in.cells[grain];
        // Another block's shared memory was here before.
        const Event &any = cell.write.someone ? cell.write : cell.read;
        if (&in == &shared_area && any.is_now(now) && any.block != now.block) cell = Cell{};
        if (!in_order(cell.write, now))
            return race(verb, bytes, " that may be written at the same time by ", cell.write, cell.write_place);
        if (access == Access::Multiply && cell.write.is_now(now) && cell.publishes == moment(cell.write.thread).publishes)
            return {"multiplies " + bytes_text(bytes) + " not published by " + who(cell.write, cell.write_place)};
        if (access != Access::Write) {
            Event &last_read = cell.read;
            if (last_read.is_now(now)) {
                if (last_read.block != now.block)
                    cell.other_block = last_read;
                else if (last_read.warp() != now.warp())
                    cell.other_warp = last_read;
                else if (last_read.thread != now.thread)
                    cell.other_lane = last_read;
            }
            last_read = now;
            cell.read_place = place;
            continue;
        }
        for (const Event *read : {&cell.read, &cell.other_lane, &cell.other_warp, &cell.other_block}) {
            unsigned where = read == &cell.read ? cell.read_place : 0;
            if (!in_order(*read, now)) return race(verb, bytes, " that may be read at the same time by ", *read, where);
        }
        cell = Cell{};
        cell.write = now;
        cell.write_place = place;
        cell.publishes = moment(now.thread).publishes;
        state = WRITTEN;
    }
    return {};
}

static Area *area_of(const void *at) {
    if (shared_area.at && shared_area.holds(at)) return &shared_area;
    return global().holds(at) ? &global() : nullptr;
}

void check_access(const void *at, size_t bytes, Access access, unsigned number, Site site) {
    Area *in = area_of(at);
    if (!in) fail("an address that is no memory of the GPU's", site);
    if (Fault fault = check(*in, at, bytes, access, now(number), 0)) fail(fault.what, site);
}

void check_begun(const void *at, size_t bytes, Site site) {
    check_access(at, bytes, Access::Write, self().number, site);
    set(*area_of(at), at, bytes, COPYING);
}

void check_done(const void *at, size_t bytes, unsigned number, Site site) {
    set(*area_of(at), at, bytes, FRESH);
    check_access(at, bytes, Access::Write, number, site);
}

void check_arrived(const void *at, size_t bytes) {
    Area *in = area_of(at);
    set(*in, at, bytes, WRITTEN);
    for (size_t i = 0; i < bytes / GRAIN; i++) in->cells[in->grain(at) + i] = Cell{};
}

static void hook(const void *at, size_t bytes, Access access, const void *code, bool aligned) {
    if (!in_kernel()) return;
    Area *in = area_of(at);
    if (!in) return; // the thread's own stack, or a constant
    auto place = static_cast<unsigned>(static_cast<const char *>(code) - library());
    Fault fault;
    if (aligned && reinterpret_cast<uintptr_t>(at) % bytes != 0)
        fault.what = "misaligned: " + bytes_text(bytes) + " at an address that is no multiple of it";
    else
        fault = check(*in, at, bytes, access, now(self().number), place);
    if (fault) fail(fault.what, place_of(place));
}

} // namespace sim

// What the compiler calls before each access (`-fsanitize=thread`), here instead of in its own library.
#define HOOK extern "C" __attribute__((visibility("hidden"))) void
#define HOOKS(BYTES)                                                                                                      \
    HOOK __tsan_read##BYTES(void *at) { sim::hook(at, BYTES, sim::Access::Read, __builtin_return_address(0), true); }     \
    HOOK __tsan_write##BYTES(void *at) { sim::hook(at, BYTES, sim::Access::Write, __builtin_return_address(0), true); }   \
    HOOK __tsan_unaligned_read##BYTES(void *at) {                                                                         \
        sim::hook(at, BYTES, sim::Access::Read, __builtin_return_address(0), false);                                      \
    }                                                                                                                     \
    HOOK __tsan_unaligned_write##BYTES(void *at) {                                                                        \
        sim::hook(at, BYTES, sim::Access::Write, __builtin_return_address(0), false);                                     \
    }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
HOOK __tsan_read_range(void *at, size_t bytes) {
    sim::hook(at, bytes, sim::Access::Read, __builtin_return_address(0), false);
}
HOOK __tsan_write_range(void *at, size_t bytes) {
    sim::hook(at, bytes, sim::Access::Write, __builtin_return_address(0), false);
}
HOOK __tsan_vptr_update(void **, void *) {}
HOOK __tsan_init() {}
HOOK __tsan_func_entry(void *) {}
HOOK __tsan_func_exit() {}

#else

namespace sim {

void *check_new(size_t) { return nullptr; }
void check_free(void *, size_t) {}
void check_fresh(void *, size_t) {}
void check_written(void *, size_t) {}
void check_copied(void *, const void *, size_t) {}
bool check_readable(const void *, size_t) { return true; }
void check_block(void *, size_t) {}
void check_variable(void *, size_t) {}
void check_access(const void *, size_t, Access, unsigned, Site) {}
void check_begun(const void *, size_t, Site) {}
void check_done(const void *, size_t, unsigned, Site) {}
void check_arrived(const void *, size_t) {}

} // namespace sim

#endif
