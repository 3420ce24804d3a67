// What a warp does together with matrices, and copies that take their time.
#include "checker.hpp"
#include "device.cuh"

static u16 half_of(u32 word, u32 i) { return static_cast<u16>(word >> 16 * i); }

struct Matrices {
    const void *row;
    u32 *parts;
    bool transposed;
};

static void carry_out_load(void *const (&lanes)[32]) {
    for (u32 l = 0; l < 32; l++) {
        auto *to = static_cast<Matrices *>(lanes[l]);
        for (u32 i = 0; i < 4; i++) {
            u32 part = 0;
            for (u32 k = 0; k < 2; k++) {
                u32 row = l / 4, column = 2 * (l % 4) + k;
                if (to->transposed) std::swap(row, column);
                u16 element;
                memcpy(&element, static_cast<const u16 *>(static_cast<Matrices *>(lanes[8 * i + row])->row) + column, 2);
                part |= static_cast<u32>(element) << 16 * k;
            }
            to->parts[i] = part;
        }
    }
}

void load_matrices(u32 (&parts)[4], const void *row, sim::Site site) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) sim::fail("a matrix row at no multiple of 16 bytes", site);
    sim::check_access(row, 16, sim::Access::Read, sim::self().number, site);
    Matrices mine = {row, parts, false};
    sim::collective("load_matrices", site, &mine, carry_out_load);
}

void load_matrices_transposed(u32 (&parts)[4], const void *row, sim::Site site) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) sim::fail("a matrix row at no multiple of 16 bytes", site);
    sim::check_access(row, 16, sim::Access::Read, sim::self().number, site);
    Matrices mine = {row, parts, true};
    sim::collective("load_matrices_transposed", site, &mine, carry_out_load);
}

struct Operands {
    float *sum;
    const u32 *a, *b;
};

// Products are exact, sums f32 in the order of k.
static void carry_out_product(void *const (&lanes)[32]) {
    float a[16][16], b[16][8], sum[16][8];
    for (u32 l = 0; l < 32; l++) {
        auto *lane = static_cast<const Operands *>(lanes[l]);
        u32 g = l / 4, j = 2 * (l % 4);
        for (u32 k = 0; k < 2; k++) {
            for (u32 i = 0; i < 4; i++)
                a[g + 8 * (i % 2)][j + k + 8 * (i / 2)] = widen(bf16{half_of(lane->a[i], k)});
            for (u32 i = 0; i < 2; i++) b[j + k + 8 * i][g] = widen(bf16{half_of(lane->b[i], k)});
            for (u32 i = 0; i < 2; i++) sum[g + 8 * i][j + k] = lane->sum[2 * i + k];
        }
    }
    for (u32 i = 0; i < 16; i++) {
        for (u32 k = 0; k < 16; k++) {
            for (u32 j = 0; j < 8; j++) sum[i][j] += a[i][k] * b[k][j];
        }
    }
    for (u32 l = 0; l < 32; l++) {
        auto *lane = static_cast<const Operands *>(lanes[l]);
        u32 g = l / 4, j = 2 * (l % 4);
        for (u32 k = 0; k < 2; k++) {
            for (u32 i = 0; i < 2; i++) lane->sum[2 * i + k] = sum[g + 8 * i][j + k];
        }
    }
}

void multiply_add(float (&sum)[4], const u32 (&a)[4], const u32 (&b)[2], sim::Site site) {
    Operands mine = {sum, a, b};
    sim::collective("multiply_add", site, &mine, carry_out_product);
}

static void carry_out(const sim::Copy &copy) {
    if (copy.from)
        memcpy(copy.to, copy.from, 16);
    else
        memset(copy.to, 0, 16);
    sim::check_done(copy.to, 16, sim::self().number, copy.site);
}

// The copies are done as late as the kernel allows, so that a wait that is missing shows; in some schedules at once, so that
// it shows where they go to memory that is still in use.
void copy_async(void *to, const void *from, bool there, sim::Site site) {
    if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || (there && reinterpret_cast<uintptr_t>(from) % 16 != 0))
        sim::fail("an asynchronous copy between addresses that are no multiples of 16 bytes", site);
    sim::Copy copy = {to, there ? from : nullptr, site};
    sim::Schedule schedule = sim::launch().schedule;
    if (schedule == sim::Schedule::Descending || schedule == sim::Schedule::WarpsDescending) return carry_out(copy);
    auto &groups = sim::self().copies;
    if (groups.empty()) groups.emplace_back();
    if (there) sim::check_access(from, 16, sim::Access::Read, sim::self().number, site);
    sim::check_begun(to, 16, site);
    groups.back().push_back(copy);
}

void copy_commit() {
    auto &groups = sim::self().copies;
    if (groups.empty()) groups.emplace_back();
    groups.emplace_back();
}

void copy_wait_for(int latest, sim::Site) {
    sim::self().unpublished = true;
    auto &groups = sim::self().copies;
    if (groups.empty()) return;
    // The open group is not waited for.
    size_t closed = groups.size() - 1;
    size_t due = closed > static_cast<size_t>(latest) ? closed - static_cast<size_t>(latest) : 0;
    for (size_t i = 0; i < due; i++) {
        for (const sim::Copy &copy : groups[i]) carry_out(copy);
    }
    groups.erase(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(due));
}
