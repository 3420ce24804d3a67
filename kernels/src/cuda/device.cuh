// What every kernel is written with: number formats, loads and stores of several numbers at a time, sums over a warp and
// a block, tensor cores, asynchronous copies. No other header is needed. NVRTC and nvcc see instructions here; g++ sees the
// same names in the simulator's `primitives.hpp`.
//
// The compilers fuse no product with a sum (`--fmad=false`): write fmaf where that is meant. Sums have a fixed order. All 32
// lanes of a warp take part in whatever a warp does together, all threads of a block in whatever a block does, so neither
// may stand in a branch that some of them leave out.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __CUDACC__
#define DEVICE __device__ __forceinline__
#define KERNEL(...) extern "C" __global__ void __launch_bounds__(__VA_ARGS__)
#else
#define DEVICE inline
#define KERNEL(...) static void
#endif

// bfloat16, as bits.
struct bf16 {
    u16 bits;
};

template <class T>
struct type_of_ {
    typedef T type;
};
template <class T>
using type_of = typename type_of_<T>::type;

#ifdef __CUDACC__

// A block's own memory, aligned to 16 bytes: SHARED(float[8][32], tile); and then tile[i][j]. Undefined at first.
#define SHARED(TYPE, NAME) __shared__ __align__(16) type_of<TYPE> NAME
// The block's memory whose size is chosen at launch, in bytes: SHARED_AT_LAUNCH(float, NAME); gives a pointer.
#define SHARED_AT_LAUNCH(TYPE, NAME)                          \
    extern __shared__ __align__(128) u8 shared_at_launch_[];  \
    TYPE *NAME = reinterpret_cast<TYPE *>(shared_at_launch_)

// All threads of the block have come here, and see what the others have written.
DEVICE void barrier() { __syncthreads(); }
// The same for the lanes of a warp.
DEVICE void warp_barrier() { __syncwarp(); }

// The value of another lane: of lane `from`, or of the lane whose number differs in the bits of `mask`.
template <class T>
DEVICE T shuffle(T value, u32 from) {
    return __shfl_sync(~0u, value, from);
}
template <class T>
DEVICE T shuffle_xor(T value, u32 mask) {
    return __shfl_xor_sync(~0u, value, mask);
}
// A bit for each lane.
DEVICE u32 vote(bool value) { return __ballot_sync(~0u, value); }

// 2^x within 2 ulp (results below the normal numbers are 0); 1 / √x within 2 ulp.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float rsqrt_fast(float x) {
    float y;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two floats as bf16, rounded to nearest even, the first in the low half.
DEVICE u32 narrow2(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
DEVICE u16 narrow_bits(float x) {
    u16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

DEVICE u32 shared_address(const void *pointer) { return static_cast<u32>(__cvta_generic_to_shared(pointer)); }

// Loads four 8 × 8 matrices of bf16 from shared memory; lane 8i + j gives the address of row j of matrix i (16 bytes,
// aligned). Lane l gets of matrix i, in part i, the elements 2(l mod 4) and the next of row l / 4; transposed, of column l / 4.
DEVICE void load_matrices(u32 (&parts)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                 : "r"(shared_address(row)) : "memory");
}
DEVICE void load_matrices_transposed(u32 (&parts)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                 : "r"(shared_address(row)) : "memory");
}

// sum[16 × 8] += a[16 × 16] · b[16 × 8] by a warp, bf16 in, f32 sums. With g = lane / 4 and j = 2 (lane mod 4), a lane holds
//   of a: rows g, g + 8, g, g + 8 at columns j and j + 1, the last two 8 columns on;
//   of b: column g at rows j and j + 1, then 8 rows on;
//   of sum: row g at columns j and j + 1, then row g + 8.
DEVICE void multiply_add(float (&sum)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Begins to copy 16 bytes from global to shared memory, both aligned; zeros instead where `there` is false (`from` is not
// read then). A thread's copies since its last `copy_commit` are a group; `copy_wait<n>` waits for all but its latest n
// groups. Others see them after a barrier that follows the wait.
DEVICE void copy_async(void *to, const void *from, bool there = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0) : "memory");
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int GROUPS>
DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

// Loads and stores assume this; the simulator checks it.
DEVICE void check_aligned(const void *, u32) {}

#else
#include "primitives.hpp"
#endif

DEVICE u32 lane() { return threadIdx.x % 32; }
DEVICE u32 warp() { return threadIdx.x / 32; }

DEVICE float widen(float x) { return x; }
DEVICE float widen(bf16 x) { return __uint_as_float(static_cast<u32>(x.bits) << 16); }

// A float in a storage format: narrow<bf16>(x) rounds to nearest even.
template <class T>
DEVICE T narrow(float x);
template <>
DEVICE float narrow<float>(float x) {
    return x;
}
template <>
DEVICE bf16 narrow<bf16>(float x) {
    return bf16{narrow_bits(x)};
}

// Numbers in 16 bytes, the widest load there is.
template <class T>
struct Wide {
    static const u32 N = 16 / sizeof(T);
};

template <u32 BYTES>
struct Word;
template <>
struct Word<2> {
    typedef u16 type;
};
template <>
struct Word<4> {
    typedef u32 type;
};
template <>
struct Word<8> {
    typedef uint2 type;
};
template <>
struct Word<16> {
    typedef uint4 type;
};

// N numbers from memory that is aligned to their size, or to 16 bytes if they are more; and back.
template <u32 N, class T>
DEVICE void load(const T *from, float (&to)[N]) {
    const u32 PART = N * sizeof(T) > 16 ? Wide<T>::N : N;
    typedef typename Word<PART * sizeof(T)>::type Bits;
#pragma unroll
    for (u32 at = 0; at < N; at += PART) {
        union {
            Bits bits;
            T numbers[PART];
        } part;
        check_aligned(from + at, sizeof(Bits));
        part.bits = *reinterpret_cast<const Bits *>(from + at);
#pragma unroll
        for (u32 i = 0; i < PART; i++) to[at + i] = widen(part.numbers[i]);
    }
}
template <u32 N, class T>
DEVICE void store(T *to, const float (&from)[N]) {
    const u32 PART = N * sizeof(T) > 16 ? Wide<T>::N : N;
    typedef typename Word<PART * sizeof(T)>::type Bits;
#pragma unroll
    for (u32 at = 0; at < N; at += PART) {
        union {
            Bits bits;
            T numbers[PART];
        } part;
#pragma unroll
        for (u32 i = 0; i < PART; i++) part.numbers[i] = narrow<T>(from[at + i]);
        check_aligned(to + at, sizeof(Bits));
        *reinterpret_cast<Bits *>(to + at) = part.bits;
    }
}

// tanh x from 2^x, within a few ulp of 1.
DEVICE float tanh_fast(float x) {
    float e = exp2_fast(-2.885390082f * fabsf(x));
    return copysignf((1.0f - e) / (1.0f + e), x);
}

// Over the lanes of a warp; every lane gets the same bits.
DEVICE float warp_sum(float x) {
#pragma unroll
    for (u32 mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    return x;
}
DEVICE float warp_max(float x) {
#pragma unroll
    for (u32 mask = 16; mask > 0; mask /= 2) x = fmaxf(x, shuffle_xor(x, mask));
    return x;
}

// N sums over the threads of a block of whole warps; every thread gets the same bits.
template <u32 N>
DEVICE void block_sum(float (&x)[N]) {
    SHARED(float[N][32], sums);
#pragma unroll
    for (u32 i = 0; i < N; i++) {
        x[i] = warp_sum(x[i]);
        if (lane() == 0) sums[i][warp()] = x[i];
    }
    barrier();
#pragma unroll
    for (u32 i = 0; i < N; i++) x[i] = warp_sum(lane() < blockDim.x / 32 ? sums[i][lane()] : 0.0f);
    barrier(); // the next sum may come at once
}
