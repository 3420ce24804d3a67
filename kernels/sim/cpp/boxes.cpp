// Copies of boxes of a matrix to shared memory, what counts their bytes, and the driver's description of a matrix.
//
// A copy is done when nobody can go on without it, in some schedules at once.
#include "device.cuh"
#include "driver.hpp"
#include "hopper.hpp"

static std::string bytes_text(u64 bytes) { return std::to_string(bytes) + " bytes"; }

// ---- Matrices, as the driver puts them into a map.

struct Matrix {
    u64 mark, address, columns, lines, pitch;
    u32 box_columns, box_lines;
};
static const u64 MAP = 0x70616D2073696874;

static Matrix matrix(const Map &map, sim::Site site) {
    Matrix matrix;
    memcpy(&matrix, map.words, sizeof matrix);
    if (matrix.mark != MAP) sim::fail("a map that the driver has not made", site);
    return matrix;
}

// The limits are those of NVIDIA's driver; its memory is looked at only here.
API cuTensorMapEncodeTiled(Map *map, int type, u32 rank, void *address, const u64 *sizes, const u64 *pitches, const u32 *box,
                           const u32 *steps, int interleave, int swizzle, int promotion, int fill) {
    const int BFLOAT16 = 9, SWIZZLE_128B = 3;
    auto refuse = [](const std::string &what) { return complain(INVALID_VALUE, "a map of a matrix with " + what); };
    if (reinterpret_cast<uintptr_t>(map) % 64 != 0) return refuse("a place that is no multiple of 64 bytes");
    if (rank == 0 || rank > 5) return refuse(std::to_string(rank) + " dimensions");
    if (reinterpret_cast<uintptr_t>(address) % 16 != 0) return refuse("an address that is no multiple of 16 bytes");
    if (type != BFLOAT16 || rank != 2 || interleave != 0 || swizzle != SWIZZLE_128B || promotion > 3 || fill != 0)
        return complain(NOT_SUPPORTED, "a map of a kind that is not simulated");
    for (u32 i = 0; i < rank; i++) {
        if (sizes[i] == 0 || sizes[i] > u64(1) << 32) return refuse("a size of " + std::to_string(sizes[i]));
        if (box[i] == 0 || box[i] > 256) return refuse("a box of " + std::to_string(box[i]));
        if (steps[i] != 1) return complain(NOT_SUPPORTED, "a map with steps, which are not simulated");
    }
    const u64 line = sizes[0] * sizeof(bf16), pitch = pitches[0];
    if (pitch % 16 != 0 || pitch >= u64(1) << 40) return refuse("lines that are " + bytes_text(pitch) + " apart, no multiple of 16");
    if (pitch < line) return refuse("lines that are less than one apart");
    if (box[0] * sizeof(bf16) % 16 != 0) return refuse("lines of a box of no multiple of 16 bytes");
    if (box[0] * sizeof(bf16) > 128) return refuse("lines of a box longer than what is permuted, 128 bytes");
    if (box[0] * sizeof(bf16) < 128) return complain(NOT_SUPPORTED, "a map with shorter lines of a box than are simulated");
    const auto at = reinterpret_cast<Pointer>(address);
    if (!current || !current->memory.holds(at, (sizes[1] - 1) * pitch + line)) return refuse("what is beyond an allocation");
    const Matrix made = {MAP, at, sizes[0], sizes[1], pitch, box[0], box[1]};
    *map = {};
    memcpy(map->words, &made, sizeof made);
    return SUCCESS;
}

// ---- What counts, in the eight bytes that a kernel has for it.

struct Counter {
    u32 mark : 24, phase : 1, missing : 1; // missing: nobody has said yet what to expect in this phase
    int bytes;                             // that have not come
};
static_assert(sizeof(Counter) == sizeof(u64), "it has the size of the hardware's");
static const u32 COUNTER = 0xC0C0C0;

static Counter &counter(u64 *arrivals, sim::Site site) {
    if (reinterpret_cast<uintptr_t>(arrivals) % 8 != 0) sim::fail("arrivals at an address that is no multiple of 8", site);
    sim::check_access(arrivals, 8, sim::Access::Read, sim::self().number, site);
    auto *counter = reinterpret_cast<Counter *>(arrivals);
    if (counter->mark != COUNTER) sim::fail("arrivals that nothing has written, or something else", site);
    return *counter;
}

static void settle(Counter &counter) {
    if (counter.missing || counter.bytes > 0) return;
    counter.phase ^= 1;
    counter.missing = 1;
    sim::wake();
}

void arrivals_make(u64 *arrivals, sim::Site site) {
    sim::check_access(arrivals, 8, sim::Access::Write, sim::self().number, site);
    const Counter made = {COUNTER, 0, 1, 0};
    memcpy(arrivals, &made, sizeof made);
    sim::self().unpublished = true;
}

void arrivals_expect(u64 *arrivals, u32 bytes, sim::Site site) {
    Counter &mine = counter(arrivals, site);
    if (!mine.missing)
        sim::fail("arrivals are expected again, when " + bytes_text(mine.bytes) + " of the phase before have not come", site);
    if (bytes >= 1 << 20) sim::fail("more bytes than arrivals can count", site);
    mine.missing = 0;
    mine.bytes = static_cast<int>(bytes);
    settle(mine);
}

void arrivals_wait(u64 *arrivals, u32 phase, sim::Site site) {
    const Counter &mine = counter(arrivals, site);
    while (mine.phase == phase % 2) {
        sim::Box *box = sim::await(arrivals, site);
        if (box) box->work();
    }
}

std::string sim::lacking(const void *arrivals) {
    Counter counter;
    memcpy(&counter, arrivals, sizeof counter);
    if (counter.missing) return "for which nobody has said what to expect";
    return "where " + bytes_text(counter.bytes) + " of those expected do not come";
}

// ---- Copies.

static const u32 LINE_BYTES = 128;

// The address's bits 4 to 6 are changed by its bits 7 to 9.
static void *permuted(const void *at) {
    const auto address = reinterpret_cast<uintptr_t>(at);
    return reinterpret_cast<void *>(address ^ (address >> 7 & 7) << 4);
}

static void carry_out(const Matrix &from, u8 *to, u32 line, u32 column) {
    for (u32 i = 0; i < from.box_lines; i++) {
        for (u32 j = 0; j < from.box_columns; j++) {
            u16 number = 0;
            if (line + i < from.lines && column + j < from.columns)
                memcpy(&number, reinterpret_cast<const u8 *>(from.address + (line + i) * from.pitch) + 2 * (column + j), 2);
            memcpy(permuted(to + i * LINE_BYTES + 2 * j), &number, 2);
        }
    }
    sim::check_arrived(to, from.box_lines * LINE_BYTES);
}

void copy_box(bf16 *to, const Map &map, u32 line, u32 column, u64 *arrivals, sim::Site site) {
    const Matrix from = matrix(map, site);
    auto *at = reinterpret_cast<u8 *>(to);
    if (reinterpret_cast<uintptr_t>(to) % LINE_BYTES != 0) sim::fail("a box at an address that is no multiple of 128 bytes", site);
    if (!sim::published()) sim::fail("a copy of a box, while arrivals were made or copies waited for, and not published", site);
    Counter &mine = counter(arrivals, site);
    const u32 bytes = from.box_lines * LINE_BYTES;
    int left = mine.missing ? 0 : mine.bytes;
    for (const sim::Box &box : sim::boxes())
        if (box.arrivals == arrivals) left -= static_cast<int>(box.bytes);
    if (static_cast<int>(bytes) > left)
        sim::fail("a copy of " + bytes_text(bytes) + ", where " + std::to_string(left) + " more are expected to arrive", site);
    for (u32 i = 0; i < from.box_lines && line + i < from.lines && column < from.columns; i++) {
        const u64 columns = std::min<u64>(from.box_columns, from.columns - column);
        const auto *source = reinterpret_cast<const u8 *>(from.address + (line + i) * from.pitch) + 2 * column;
        sim::check_access(source, 2 * columns, sim::Access::Read, sim::self().number, site);
    }
    const auto work = [=, &mine] {
        carry_out(from, at, line, column);
        mine.bytes -= static_cast<int>(bytes);
        settle(mine);
    };
    const sim::Schedule schedule = sim::launch().schedule;
    if (schedule == sim::Schedule::Descending || schedule == sim::Schedule::WarpsDescending) return work();
    sim::check_begun(at, bytes, site);
    sim::boxes().push_back({arrivals, bytes, work});
}
