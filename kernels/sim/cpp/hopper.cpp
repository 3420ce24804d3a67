// Products of matrices by a warp of a group of four, each warp its own rows. They are done when the kernel waits for them, in some
// schedules at once.
//
// A warp that stays away from its group's products, and copies that were waited for and not published, are told where no schedule
// shows them.
#include "device.cuh"
#include "hopper.hpp"

#include "checker.hpp"

struct Lane {
    sim::Thread *thread;
    Asked asked;
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
    sim::check_access(at, 2, sim::Access::Multiply, thread.number, site);
    return widen(bf16{*at});
}

static u16 half_of(u32 word, u32 i) { return static_cast<u16>(word >> 16 * i); }

// Products are exact, sums f32 in the order of k.
static void carry_out(const std::vector<Lane> &lanes) {
    const auto &[thread, first, site] = lanes[0];
    const u32 warp = thread->number / 32 % 4;
    float a[16][16], b[128][16];
    for (u32 k = 0; k < 16; k++) {
        for (u32 i = 0; i < 16; i++) {
            if (first.parts)
                a[i][k] = widen(bf16{half_of(lanes[i % 8 * 4 + k % 8 / 2].asked.parts[k / 8 * 2 + i / 8], k % 2)});
            else
                a[i][k] = number(first.a, first.left_across, 16 * warp + i, k, *thread, site);
        }
        for (u32 j = 0; j < first.columns; j++) b[j][k] = number(first.b, first.right_across, j, k, *thread, site);
    }
    for (u32 l = 0; l < 32; l++) {
        for (u32 i = 0; i < first.columns / 2; i++) {
            const u32 row = l / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + l % 4 * 2 + i % 2;
            float sum = lanes[l].asked.sums[i];
            for (u32 k = 0; k < 16; k++) sum += a[row][k] * b[column][k];
            lanes[l].asked.sums[i] = sum;
        }
    }
}

static void ask(void *const (&arguments)[32]) {
    std::vector<Lane> lanes;
    for (void *lane : arguments) lanes.push_back(*static_cast<Lane *>(lane));
    const Lane &first = lanes[0];
    for (const Lane &lane : lanes)
        if (lane.asked.a != first.asked.a || lane.asked.b != first.asked.b)
            sim::fail("lanes with descriptors that differ", first.site);
    for (u64 descriptor : {first.asked.parts ? first.asked.b : first.asked.a, first.asked.b})
        if (descriptor >> 62 != 1) sim::fail("a descriptor without the order of chunks that is simulated", first.site);
    if (!sim::published()) sim::fail("a product, while copies were waited for and not published", first.site);
    first.thread->asked++;
    sim::Schedule schedule = sim::launch().schedule;
    if (schedule == sim::Schedule::Descending || schedule == sim::Schedule::WarpsDescending) return carry_out(lanes);
    first.thread->products.push_back({[lanes] { carry_out(lanes); }, false});
}

static void wait(void *const (&arguments)[32]) {
    auto &products = static_cast<Lane *>(arguments[0])->thread->products;
    while (!products.empty() && products.front().committed) {
        products.front().work();
        products.erase(products.begin());
    }
}

static void together(const char *what, sim::Site site, sim::Collective work, const Asked &asked) {
    Lane mine = {&sim::self(), asked, site};
    sim::collective(what, site, &mine, work);
}

void publish() {
    sim::self().unpublished = false;
    sim::self().publishes++;
}
void multiply_add_group_here(const Asked &asked, sim::Site site) { together("multiply_add_group", site, ask, asked); }
void products_begin_here(sim::Site site) {
    together("products_begin", site, [](void *const (&)[32]) {}, Asked());
}
// Lane 0 keeps a warp's products.
void products_commit() {
    for (auto &product : sim::self().products) product.committed = true;
}
void products_wait_here(sim::Site site) { together("products_wait", site, wait, Asked()); }
