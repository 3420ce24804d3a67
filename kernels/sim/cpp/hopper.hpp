// The simulator's side of `hopper.cuh`.
#pragma once
#include "primitives.hpp"

// The lower bits of an address, as many as shared memory has.
inline u32 shared_address(const void *pointer) { return static_cast<u32>(reinterpret_cast<uintptr_t>(pointer)) & 0x3FFFF; }

inline void publish() {}
void products_begin(float (&sums)[64], sim::Site site = sim::Site());
void products_commit();
void products_wait(float (&sums)[64], sim::Site site = sim::Site());
void multiply_add_group(float (&sums)[64], u64 a, u64 b, bool left_across, bool right_across, sim::Site site);
template <u32 LEFT_ACROSS, u32 RIGHT_ACROSS>
void multiply_add_group(float (&sums)[64], u64 a, u64 b, sim::Site site = sim::Site()) {
    multiply_add_group(sums, a, b, LEFT_ACROSS, RIGHT_ACROSS, site);
}
