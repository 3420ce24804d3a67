// What a GPU of compute capability 9.0 has beside `device.cuh`: matrix products by four warps, whose factors are in shared memory (the
// left one in registers, if wanted), and which are done while the warps go on; and copies of boxes of a matrix to there (TMA). Only for
// `*_hopper.cu`. The simulator does a warp's share and a copy as late as the kernel allows.
#pragma once
#include "device.cuh"

#ifdef __CUDACC__

// What this thread has written to shared memory, by copies that it has waited for too, is there for products after the next barrier; and
// the arrivals that it has made are there for copies of boxes.
DEVICE void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// What products read or write stays where it is until here, and changes only after it.
template <u32 COUNT>
DEVICE void hold(float (&numbers)[COUNT]) {
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) asm volatile("" : "+f"(numbers[i])::"memory");
}
template <u32 COUNT>
DEVICE void hold(u32 (&parts)[COUNT][4]) {
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) asm volatile("" : "+r"(parts[i][0]), "+r"(parts[i][1]), "+r"(parts[i][2]), "+r"(parts[i][3])::"memory");
}

// Products may add to these sums, and read these parts of left factors, from here on.
template <class... REGISTERS>
DEVICE void products_begin(REGISTERS &...registers) {
    (hold(registers), ...);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Those that were asked for are on their way; and they are done, so that the sums can be read and the parts changed.
DEVICE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <class... REGISTERS>
DEVICE void products_wait(REGISTERS &...registers) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    (hold(registers), ...);
}

// sum[64 × N] += a[64 × 16] · b[16 × N] by a group of four warps, bf16 in, f32 sums; N = 64 or 128. Of its 16 rows, in the order of the
// warps, a lane holds as in `multiply_add` the sums of columns 8j … 8j + 7 in sums[4j …], and of a, where that is in registers, what it
// holds there. ACROSS: the factor's descriptor is of that kind.
#define SUMS_8(I)                                                                                                          \
    "+f"(sums[I]), "+f"(sums[I + 1]), "+f"(sums[I + 2]), "+f"(sums[I + 3]), "+f"(sums[I + 4]), "+f"(sums[I + 5]),         \
        "+f"(sums[I + 6]), "+f"(sums[I + 7])
#define SUMS_32(I) SUMS_8(I), SUMS_8(I + 8), SUMS_8(I + 16), SUMS_8(I + 24)
#define NAMES_32                                                                                                           \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                              \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_64                                                                                                           \
    NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                         \
             "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PRODUCT_OF(N, NAMES, OPERANDS)                                                                                     \
    "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned.m64n" N "k16.f32.bf16.bf16 {" NAMES "}, " OPERANDS ";\n}\n"

template <u32 LEFT_ACROSS, u32 RIGHT_ACROSS>
DEVICE void multiply_add_group(float (&sums)[32], u64 a, u64 b) {
    asm volatile(PRODUCT_OF("64", NAMES_32, "%32, %33, p, 1, 1, %34, %35")
                 : SUMS_32(0)
                 : "l"(a), "l"(b), "n"(LEFT_ACROSS), "n"(RIGHT_ACROSS)
                 : "memory");
}
template <u32 LEFT_ACROSS, u32 RIGHT_ACROSS>
DEVICE void multiply_add_group(float (&sums)[64], u64 a, u64 b) {
    asm volatile(PRODUCT_OF("128", NAMES_64, "%64, %65, p, 1, 1, %66, %67")
                 : SUMS_32(0), SUMS_32(32)
                 : "l"(a), "l"(b), "n"(LEFT_ACROSS), "n"(RIGHT_ACROSS)
                 : "memory");
}
template <u32 RIGHT_ACROSS>
DEVICE void multiply_add_group(float (&sums)[32], const u32 (&a)[4], u64 b) {
    asm volatile(PRODUCT_OF("64", NAMES_32, "{%32, %33, %34, %35}, %36, p, 1, 1, %37")
                 : SUMS_32(0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(RIGHT_ACROSS)
                 : "memory");
}
template <u32 RIGHT_ACROSS>
DEVICE void multiply_add_group(float (&sums)[64], const u32 (&a)[4], u64 b) {
    asm volatile(PRODUCT_OF("128", NAMES_64, "{%64, %65, %66, %67}, %68, p, 1, 1, %69")
                 : SUMS_32(0), SUMS_32(32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(RIGHT_ACROSS)
                 : "memory");
}
#undef PRODUCT_OF
#undef NAMES_64
#undef NAMES_32
#undef SUMS_32
#undef SUMS_8

// A matrix of bf16 in global memory, as the driver describes it to what copies boxes of it: 64 lines of 64 numbers. It is a kernel's
// parameter, GIVEN Map name.
struct alignas(64) Map {
    u64 words[16];
};
#define GIVEN const __grid_constant__

// Counts what arrives, SHARED(u64, arrivals). One thread makes it and publishes, a barrier follows. Of a phase, numbered from 0 on, one
// thread first says how many bytes are expected, and then begins the copies; who has waited for the phase sees what they brought.
DEVICE void arrivals_make(u64 *arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(arrivals)) : "memory");
}
DEVICE void arrivals_expect(u64 *arrivals, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(arrivals)), "r"(bytes) : "memory");
}
DEVICE void arrivals_wait(u64 *arrivals, u32 phase) {
    u32 done;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
                     : "=r"(done)
                     : "r"(shared_address(arrivals)), "r"(phase % 2)
                     : "memory");
    } while (!done);
}

// Begins to copy the box at a line and a column to shared memory, as a part of a factor: see `descriptor`. It begins at a multiple of
// 1024 bytes. What is beyond the matrix is zero, and arrives too. One thread does it.
DEVICE void copy_box(bf16 *to, const Map &map, u32 line, u32 column, u64 *arrivals) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
                 ::"r"(shared_address(to)), "l"(&map), "r"(column), "r"(line), "r"(shared_address(arrivals))
                 : "memory");
}

#else
#include "hopper.hpp"
#endif

// Bytes of a box.
const u32 BOX = 64 * 64 * sizeof(bf16);

// A factor in shared memory for such a product, from `start` on, in tiles of 8 lines of 64 numbers, 128 bytes; chunk c of 16 bytes of
// line r of a tile lies at c ^ r. Tiles begin at multiples of 1024 bytes, `start` at a product of a first line.
//   Along: a line is a row (column) of the result, with 64 products; `lines` bytes further are the next 8 rows.
//   Across: a line is a product, with 64 rows; `lines` bytes further are the next 8 products, `rows` bytes further the next 64 rows.
DEVICE u64 descriptor(const bf16 *start, u32 rows, u32 lines) {
    const u64 SWIZZLED = 1;
    return (u64)((shared_address(start) & 0x3FFFF) >> 4) | (u64)(rows >> 4) << 16 | (u64)(lines >> 4) << 32 | SWIZZLED << 62;
}

// The block's memory for tiles: 1024 bytes less than what is asked for at launch.
#define TILES_AT_LAUNCH(NAME)                                    \
    SHARED_AT_LAUNCH(u8, NAME##_given_);                         \
    bf16 *const NAME = reinterpret_cast<bf16 *>(NAME##_given_ + (1024 - shared_address(NAME##_given_) % 1024) % 1024)
