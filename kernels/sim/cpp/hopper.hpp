// The simulator's side of `hopper.cuh`.
#pragma once
#include "primitives.hpp"

// The lower bits of an address, as many as shared memory has.
inline u32 shared_address(const void *pointer) { return static_cast<u32>(reinterpret_cast<uintptr_t>(pointer)) & 0x3FFFF; }

// A matrix, as the driver describes it.
struct alignas(64) Map {
    u64 words[16];
};
#define GIVEN const

void arrivals_make(u64 *arrivals, sim::Site site = sim::Site());
void arrivals_expect(u64 *arrivals, u32 bytes, sim::Site site = sim::Site());
void arrivals_wait(u64 *arrivals, u32 phase, sim::Site site = sim::Site());
void copy_box(bf16 *to, const Map &map, u32 line, u32 column, u64 *arrivals, sim::Site site = sim::Site());

// A warp's product, as a lane asks for it: 64 × `columns` sums of the group; the left factor's descriptor, or the lane's part of it.
struct Asked {
    float *sums;
    u32 columns;
    const u32 *parts; // null with a descriptor
    u64 a, b;
    bool left_across, right_across;
};

void publish();
void products_begin_here(sim::Site site);
void products_commit();
void products_wait_here(sim::Site site);
void multiply_add_group_here(const Asked &asked, sim::Site site);

// What registers a product uses is seen by what it gives.
template <class A>
void products_begin(A &, sim::Site site = sim::Site()) {
    products_begin_here(site);
}
template <class A, class B>
void products_begin(A &, B &, sim::Site site = sim::Site()) {
    products_begin_here(site);
}
template <class A>
void products_wait(A &, sim::Site site = sim::Site()) {
    products_wait_here(site);
}
template <class A, class B>
void products_wait(A &, B &, sim::Site site = sim::Site()) {
    products_wait_here(site);
}
template <u32 LEFT_ACROSS, u32 RIGHT_ACROSS, u32 COUNT>
void multiply_add_group(float (&sums)[COUNT], u64 a, u64 b, sim::Site site = sim::Site()) {
    multiply_add_group_here({sums, 2 * COUNT, nullptr, a, b, LEFT_ACROSS, RIGHT_ACROSS}, site);
}
template <u32 RIGHT_ACROSS, u32 COUNT>
void multiply_add_group(float (&sums)[COUNT], const u32 (&a)[4], u64 b, sim::Site site = sim::Site()) {
    multiply_add_group_here({sums, 2 * COUNT, a, 0, b, false, RIGHT_ACROSS}, site);
}
