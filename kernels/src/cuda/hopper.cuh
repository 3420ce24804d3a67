// What a GPU of compute capability 9.0 has beside `device.cuh`: matrix products by four warps, whose factors are in shared memory, and
// which are done while the warps go on. Only for `*_hopper.cu`. The simulator does a warp's share as late as the kernel allows; what
// it does not see is a warp that stays away, and a `publish` that is missing.
#pragma once
#include "device.cuh"

#ifdef __CUDACC__

// What this thread has written to shared memory, by copies that it has waited for too, is there for products after the next barrier.
DEVICE void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Products may add to the sums from here on.
DEVICE void products_begin(float (&sums)[64]) {
#pragma unroll
    for (u32 i = 0; i < 64; i++) asm volatile("" : "+f"(sums[i])::"memory");
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Those that were asked for are on their way; and they are done, so that the sums can be read.
DEVICE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
DEVICE void products_wait(float (&sums)[64]) {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (u32 i = 0; i < 64; i++) asm volatile("" : "+f"(sums[i])::"memory");
}

// sum[64 × 128] += a[64 × 16] · b[16 × 128] by a group of four warps, bf16 in, f32 sums. Of its 16 rows, in the order of the warps, a
// lane holds as in `multiply_add` the sums of columns 8j … 8j + 7 in sums[4j …]. ACROSS: the factor's descriptor is of that kind.
template <u32 LEFT_ACROSS, u32 RIGHT_ACROSS>
DEVICE void multiply_add_group(float (&sums)[64], u64 a, u64 b) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, p, 1, 1, %67, %68;\n}\n"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), "+f"(sums[4]), "+f"(sums[5]), "+f"(sums[6]), "+f"(sums[7]),
          "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]), "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]),
          "+f"(sums[16]), "+f"(sums[17]), "+f"(sums[18]), "+f"(sums[19]), "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]),
          "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), "+f"(sums[28]), "+f"(sums[29]), "+f"(sums[30]), "+f"(sums[31]),
          "+f"(sums[32]), "+f"(sums[33]), "+f"(sums[34]), "+f"(sums[35]), "+f"(sums[36]), "+f"(sums[37]), "+f"(sums[38]), "+f"(sums[39]),
          "+f"(sums[40]), "+f"(sums[41]), "+f"(sums[42]), "+f"(sums[43]), "+f"(sums[44]), "+f"(sums[45]), "+f"(sums[46]), "+f"(sums[47]),
          "+f"(sums[48]), "+f"(sums[49]), "+f"(sums[50]), "+f"(sums[51]), "+f"(sums[52]), "+f"(sums[53]), "+f"(sums[54]), "+f"(sums[55]),
          "+f"(sums[56]), "+f"(sums[57]), "+f"(sums[58]), "+f"(sums[59]), "+f"(sums[60]), "+f"(sums[61]), "+f"(sums[62]), "+f"(sums[63])
        : "l"(a), "l"(b), "r"(1), "n"(LEFT_ACROSS), "n"(RIGHT_ACROSS)
        : "memory");
}

#else
#include "hopper.hpp"
#endif

// A factor in shared memory for such a product, from `start` on, in tiles of 8 lines of 64 numbers, 128 bytes; chunk c of 16 bytes of
// line r of a tile lies at c ^ r. Tiles begin at multiples of 1024 bytes, `start` at a product of a first line.
//   Along: a line is a row (column) of the result, with 64 products; `lines` bytes further are the next 8 rows.
//   Across: a line is a product, with 64 rows; `lines` bytes further are the next 8 products, `rows` bytes further the next 64 rows.
DEVICE u64 descriptor(const bf16 *start, u32 rows, u32 lines) {
    const u64 SWIZZLED = 1;
    return (u64)((shared_address(start) & 0x3FFFF) >> 4) | (u64)(rows >> 4) << 16 | (u64)(lines >> 4) << 32 | SWIZZLED << 62;
}
