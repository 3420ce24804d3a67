// The simulator's side of `device.cuh`: the names that a kernel uses, in C++.
#pragma once
#include <cmath>
#include <cstring>
#include <utility>

#include "simulator.hpp"

#define threadIdx (sim::self().index)
#define blockIdx (sim::block_index())
#define blockDim (sim::launch().block)
#define gridDim (sim::launch().grid)

// The lambda's static variable is one for each variable of each instance of a function, like the memory it stands for.
#define SIM_KEY ([]() -> const void * { static const char key = 0; return &key; }())
#define SHARED(TYPE, NAME) \
    type_of<TYPE> &NAME = *static_cast<type_of<TYPE> *>(sim::shared(SIM_KEY, sizeof(type_of<TYPE>), sim::Site()))
#define SHARED_AT_LAUNCH(TYPE, NAME) TYPE *NAME = static_cast<TYPE *>(sim::shared_at_launch())

inline u32 __float_as_uint(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}

inline u32 __popc(u32 x) { return static_cast<u32>(__builtin_popcount(x)); }

inline void barrier(sim::Site site = sim::Site()) { sim::barrier(site); }
inline void warp_barrier(sim::Site site = sim::Site()) { sim::warp_barrier(site); }

template <class T>
struct Exchange {
    T value, got;
    u32 from;
};
template <class T>
T exchange(const char *what, T value, u32 from, sim::Site site) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    Exchange<T> mine = {value, value, from % 32};
    sim::collective(what, site, &mine, [](void *const (&lanes)[32]) {
        for (void *lane : lanes) {
            auto *to = static_cast<Exchange<T> *>(lane);
            to->got = static_cast<Exchange<T> *>(lanes[to->from])->value;
        }
    });
    return mine.got;
}
template <class T>
T shuffle(T value, u32 from, sim::Site site = sim::Site()) {
    return exchange("shuffle", value, from, site);
}
template <class T>
T shuffle_xor(T value, u32 mask, sim::Site site = sim::Site()) {
    return exchange("shuffle_xor", value, sim::self().number ^ mask, site);
}
inline u32 vote(bool value, sim::Site site = sim::Site()) {
    u32 mine = value;
    sim::collective("vote", site, &mine, [](void *const (&lanes)[32]) {
        u32 bits = 0;
        for (u32 i = 0; i < 32; i++) bits |= *static_cast<u32 *>(lanes[i]) << i;
        for (void *lane : lanes) *static_cast<u32 *>(lane) = bits;
    });
    return mine;
}

inline float exp2_fast(float x) {
    float y = std::exp2(x);
    return std::fabs(y) < 1.17549435e-38f ? 0.0f : y;
}
inline float rsqrt_fast(float x) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))); }

inline u16 narrow_bits(float x) {
    u32 bits = __float_as_uint(x);
    if (x != x) return 0x7fff;
    return static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline u32 narrow2(float low, float high) { return narrow_bits(low) | static_cast<u32>(narrow_bits(high)) << 16; }

inline void check_aligned(const void *pointer, u32 bytes) {
    if (reinterpret_cast<uintptr_t>(pointer) % bytes != 0)
        sim::fail(std::to_string(bytes) + " bytes at an address that is no multiple of it", sim::Site());
}

void load_matrices(u32 (&parts)[4], const void *row, sim::Site site = sim::Site());
void load_matrices_transposed(u32 (&parts)[4], const void *row, sim::Site site = sim::Site());
void multiply_add(float (&sum)[4], const u32 (&a)[4], const u32 (&b)[2], sim::Site site = sim::Site());
void copy_async(void *to, const void *from, bool there = true, sim::Site site = sim::Site());
void copy_commit();
void copy_wait_for(int groups, sim::Site site);
template <int GROUPS>
void copy_wait(sim::Site site = sim::Site()) {
    copy_wait_for(GROUPS, site);
}

// What a launch by name needs of a kernel.
template <class F>
struct Signature;
template <class... A>
struct Signature<void (*)(A...)> {
    template <void (*ENTRY)(A...), size_t... I>
    static void call(void *const *arguments, std::index_sequence<I...>) {
        ENTRY(*static_cast<A *>(arguments[I])...);
    }
    template <void (*ENTRY)(A...)>
    static void call(void *const *arguments) {
        call<ENTRY>(arguments, std::index_sequence_for<A...>());
    }
    static std::vector<size_t> sizes() { return {sizeof(A)...}; }
};
#define ENROLL(NAME)                                                                                         \
    static const bool enrolled_##NAME = (sim::enroll({#NAME, Signature<decltype(&NAME)>::sizes(),             \
                                                      &Signature<decltype(&NAME)>::call<&NAME>}),             \
                                         true);
