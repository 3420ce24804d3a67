// Products of matrices by a warp of a group of four, each warp its own rows. They are done when the kernel waits for them, in some
// schedules at once.
#include "device.cuh"
#include "hopper.hpp"

#include "checker.hpp"

struct Group {
    sim::Thread *thread;
    float *sums;
    u64 a, b;
    bool across[2];
    sim::Site site;
};

// Where number `row` of product `k` lies, as the hardware finds it.
static const u16 *find(u64 descriptor, bool across, u32 row, u32 k) {
    const auto base = reinterpret_cast<uintptr_t>(sim::shared_at_launch());
    const u32 start = static_cast<u32>(descriptor & 0x3FFF) << 4;
    const u32 rows = static_cast<u32>(descriptor >> 16 & 0x3FFF) << 4, lines = static_cast<u32>(descriptor >> 32 & 0x3FFF) << 4;
    uintptr_t at = base + ((start - base) & 0x3FFFF);
    at += across ? row / 64 * rows + k / 8 * lines + k % 8 * 128 + row % 64 * 2 : row / 8 * lines + row % 8 * 128 + k * 2;
    at ^= (at >> 7 & 7) << 4;
    return reinterpret_cast<const u16 *>(at);
}

static float number(u64 descriptor, bool across, u32 row, u32 k, const sim::Thread &thread, sim::Site site) {
    const u16 *at = find(descriptor, across, row, k);
    sim::check_access(at, 2, sim::Access::Read, thread.number, site);
    return widen(bf16{*at});
}

// Products are exact, sums f32 in the order of k.
static void carry_out(const std::vector<Group> &lanes) {
    const Group &first = lanes[0];
    const u32 warp = first.thread->number / 32 % 4;
    float a[16][16], b[128][16];
    for (u32 k = 0; k < 16; k++) {
        for (u32 i = 0; i < 16; i++)
            a[i][k] = number(first.a, first.across[0], 16 * warp + i, k, *first.thread, first.site);
        for (u32 j = 0; j < 128; j++) b[j][k] = number(first.b, first.across[1], j, k, *first.thread, first.site);
    }
    for (u32 l = 0; l < 32; l++) {
        for (u32 i = 0; i < 64; i++) {
            const u32 row = l / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + l % 4 * 2 + i % 2;
            float sum = lanes[l].sums[i];
            for (u32 k = 0; k < 16; k++) sum += a[row][k] * b[column][k];
            lanes[l].sums[i] = sum;
        }
    }
}

static void ask(void *const (&arguments)[32]) {
    std::vector<Group> lanes;
    for (void *lane : arguments) lanes.push_back(*static_cast<Group *>(lane));
    const Group &first = lanes[0];
    for (const Group &lane : lanes)
        if (lane.a != first.a || lane.b != first.b) sim::fail("lanes with descriptors that differ", first.site);
    for (u64 descriptor : {first.a, first.b})
        if (descriptor >> 62 != 1) sim::fail("a descriptor without the order of chunks that is simulated", first.site);
    sim::Schedule schedule = sim::launch().schedule;
    if (schedule == sim::Schedule::Descending || schedule == sim::Schedule::WarpsDescending) return carry_out(lanes);
    first.thread->products.push_back({[lanes] { carry_out(lanes); }, false});
}

static void wait(void *const (&arguments)[32]) {
    auto &products = static_cast<Group *>(arguments[0])->thread->products;
    while (!products.empty() && products.front().committed) {
        products.front().work();
        products.erase(products.begin());
    }
}

static void together(const char *what, sim::Site site, sim::Collective work, float *sums, u64 a, u64 b, bool left, bool right) {
    Group mine = {&sim::self(), sums, a, b, {left, right}, site};
    sim::collective(what, site, &mine, work);
}

void multiply_add_group(float (&sums)[64], u64 a, u64 b, bool left, bool right, sim::Site site) {
    together("multiply_add_group", site, ask, sums, a, b, left, right);
}
void products_begin(float (&sums)[64], sim::Site site) {
    together("products_begin", site, [](void *const (&)[32]) {}, sums, 0, 0, false, false);
}
// Lane 0 keeps a warp's products.
void products_commit() {
    for (auto &product : sim::self().products) product.committed = true;
}
void products_wait(float (&sums)[64], sim::Site site) {
    together("products_wait", site, wait, sums, 0, 0, false, false);
}
