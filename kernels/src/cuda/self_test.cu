// What `device.cuh` promises of instructions, one kernel each, so that a GPU's answers can be held against the simulator's.
#include "device.cuh"

// product[16 × 16] = a[16 × 16] · b[16 × 16], row-major, by one warp: asynchronous copies to shared memory, matrices from
// there, tensor cores. `rows` of a are there, the others are zeros.
KERNEL(32) self_test_product(float *product, const bf16 *a, const bf16 *b, u32 rows) {
    SHARED(bf16[16][16], left);
    SHARED(bf16[16][16], right);
    const u32 row = lane() / 2, half = lane() % 2 * 8;
    copy_async(&left[row][half], a + row * 16 + half, row < rows);
    copy_commit();
    copy_async(&right[row][half], b + row * 16 + half);
    copy_commit();
    u32 x[4], y[4];
    copy_wait<1>();
    warp_barrier();
    // Four matrices of 8 × 8: the upper left, the lower left, the upper right, the lower right.
    load_matrices(x, &left[lane() % 16][lane() / 16 * 8]);
    copy_wait<0>();
    warp_barrier();
    load_matrices_transposed(y, &right[lane() % 16][lane() / 16 * 8]);
    for (u32 n = 0; n < 2; n++) {
        float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        const u32 columns[2] = {y[2 * n], y[2 * n + 1]};
        multiply_add(sum, x, columns);
        for (u32 i = 0; i < 4; i++)
            product[(lane() / 4 + i / 2 * 8) * 16 + 8 * n + lane() % 4 * 2 + i % 2] = sum[i];
    }
}

// Each thread: what other lanes hold, in whole numbers. out [5, 32].
KERNEL(32) self_test_lanes(float *out, const float *x) {
    const float mine = x[lane()];
    out[lane()] = shuffle(mine, (lane() + 5) % 32);
    out[32 + lane()] = shuffle_xor(mine, 6);
    out[64 + lane()] = warp_sum(mine);
    out[96 + lane()] = warp_max(mine);
    out[128 + lane()] = static_cast<float>(__popc(vote(mine > 0.0f)));
}

// out [5, n]: 2^x, 1 / √|x|, tanh x, x as bf16, and the upper half of (0, x) as bf16.
KERNEL(32) self_test_numbers(float *out, const float *x, u32 n) {
    for (u32 i = lane(); i < n; i += 32) {
        out[i] = exp2_fast(x[i]);
        out[n + i] = rsqrt_fast(fabsf(x[i]));
        out[2 * n + i] = tanh_fast(x[i]);
        out[3 * n + i] = widen(narrow<bf16>(x[i]));
        out[4 * n + i] = __uint_as_float(narrow2(0.0f, x[i]) & 0xFFFF0000u);
    }
}
