// Kernels with one thing wrong each, which the simulator must find. All should give out[i] = x[63 - i mod 64 + 64 (i / 64)]
// for i < n, in blocks of 64 threads: each block turns its part around.
#include "device.cuh"
#include "hopper.cuh"

DEVICE u32 me() { return blockIdx.x * 64 + threadIdx.x; }
DEVICE u32 other() { return blockIdx.x * 64 + 63 - threadIdx.x; }
DEVICE float read(const float *x, u32 i, u32 n) { return i < n ? x[i] : 0.0f; }

// Begins to copy the block's part.
DEVICE void begin(float *tile, const float *x, u32 n) {
    const u32 i = 4 * threadIdx.x;
    if (i < 64) copy_async(tile + i, x + blockIdx.x * 64 + i, blockIdx.x * 64 + i < n);
    copy_commit();
}

KERNEL(64) right(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    tile[threadIdx.x] = read(x, me(), n);
    barrier();
    if (me() < n) out[me()] = tile[63 - threadIdx.x];
}

KERNEL(64) right_in_rounds(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    for (u32 round = 0; round < 3; round++) {
        tile[threadIdx.x] = read(x, me(), n) + round;
        barrier();
        if (round == 0 && me() < n) out[me()] = tile[63 - threadIdx.x];
        barrier();
    }
}

KERNEL(64) right_asynchronous(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    begin(&tile[0], x, n);
    copy_wait<0>();
    barrier();
    if (me() < n) out[me()] = tile[63 - threadIdx.x];
}

// Barriers.

KERNEL(64) no_barrier(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    tile[threadIdx.x] = read(x, me(), n);
    if (me() < n) out[me()] = tile[63 - threadIdx.x];
}

KERNEL(64) no_barrier_at_the_end_of_a_loop(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    for (u32 round = 0; round < 3; round++) {
        tile[threadIdx.x] = read(x, me(), n) + round;
        barrier();
        if (round == 0 && me() < n) out[me()] = tile[63 - threadIdx.x];
    }
}

KERNEL(64) warp_barrier_for_a_block(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    tile[threadIdx.x] = read(x, me(), n);
    warp_barrier();
    if (me() < n) out[me()] = tile[63 - threadIdx.x];
}

KERNEL(64) barrier_in_a_branch(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    tile[threadIdx.x] = read(x, me(), n);
    if (me() >= n) return;
    barrier();
    out[me()] = tile[63 - threadIdx.x];
}

KERNEL(64) two_barriers(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    tile[threadIdx.x] = read(x, me(), n);
    if (warp() == 0)
        barrier();
    else
        barrier();
    if (me() < n) out[me()] = tile[63 - threadIdx.x];
}

KERNEL(64) half_a_shuffle(float *out, const float *x, u32 n) {
    float mine = read(x, other(), n);
    if (lane() < 16) mine = shuffle(mine, lane());
    if (me() < n) out[me()] = mine;
}

// Bounds, alignment, memory that was never written.

KERNEL(64) stores_past_the_end(float *out, const float *x, u32 n) {
    const float mine = read(x, other(), n);
    if (me() < n + 1) out[me()] = mine;
}

KERNEL(64) loads_past_the_end(float *out, const float *x, u32 n) {
    float mine = read(x, other(), n);
    if (me() == 0 && x[n] == -1.0f) mine = 0.0f;
    if (me() < n) out[me()] = mine;
}

KERNEL(64) shared_past_the_end(float *out, const float *x, u32 n) {
    SHARED(float[63], tile);
    (&tile[0])[threadIdx.x] = read(x, me(), n);
    barrier();
    if (me() < n) out[me()] = (&tile[0])[63 - threadIdx.x];
}

KERNEL(64) misaligned(float *out, const float *x, u32 n) {
    if (me() == 1) *reinterpret_cast<u64 *>(out + 1) = 0;
    const float mine = read(x, other(), n);
    barrier();
    if (me() < n) out[me()] = mine;
}

KERNEL(64) reads_what_it_should_write(float *out, const float *x, u32 n) {
    if (me() < n) out[me()] += read(x, other(), n);
}

KERNEL(64) reads_shared_memory_first(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    float rest = 0.0f;
    if (threadIdx.x == 5) rest = fminf(tile[5], 0.0f) * 0.0f;
    barrier();
    tile[threadIdx.x] = read(x, me(), n) + rest;
    barrier();
    if (me() < n) out[me()] = tile[63 - threadIdx.x];
}

// Waits.

KERNEL(64) no_wait(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    begin(&tile[0], x, n);
    barrier();
    if (me() < n) out[me()] = tile[63 - threadIdx.x];
    copy_wait<0>();
}

KERNEL(64) waits_for_too_few(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    begin(&tile[0], x, n);
    copy_wait<1>();
    barrier();
    if (me() < n) out[me()] = tile[63 - threadIdx.x];
    copy_wait<0>();
}

KERNEL(64) never_waits(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    begin(&tile[0], x, n);
    if (me() < n) out[me()] = read(x, other(), n);
}

KERNEL(64) waits_without_a_barrier(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    begin(&tile[0], x, n);
    copy_wait<0>();
    if (me() < n) out[me()] = tile[63 - threadIdx.x];
}

// Races that no schedule shows.

KERNEL(64) a_shuffle_for_a_barrier(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    tile[threadIdx.x] = read(x, me(), n);
    const u32 same = shuffle(lane(), lane());
    const float near = tile[warp() * 32 + 31 - same];
    barrier();
    tile[threadIdx.x] = near;
    barrier();
    if (me() < n) out[me()] = tile[(threadIdx.x + 32) % 64];
}

KERNEL(64) all_write_the_same(float *out, const float *x, u32 n) {
    SHARED(float[64], tile);
    SHARED(u32[1], count);
    count[0] = 63;
    tile[threadIdx.x] = read(x, me(), n);
    barrier();
    if (me() < n) out[me()] = tile[count[0] - threadIdx.x];
}

KERNEL(64) blocks_write_the_same(float *out, const float *x, u32 n) {
    if (threadIdx.x == 0) out[0] = read(x, 63, n);
    barrier();
    if (me() < n) out[me()] = read(x, other(), n);
}

KERNEL(64) blocks_read_each_other(float *out, const float *x, u32 n) {
    float rest = 0.0f;
    if (me() < n) out[me()] = read(x, other(), n);
    if (blockIdx.x > 0 && threadIdx.x < 32) rest = fminf(fabsf(out[threadIdx.x]), 0.0f);
    barrier();
    if (rest > 1.0f) out[me()] = rest;
}

// Boxes. x is a matrix of two lines of 32 floats, 128 bytes, so that a box is both and zeros; the block's part is two lines.

DEVICE void make(u64 *arrivals) {
    if (threadIdx.x == 63) {
        arrivals_make(arrivals);
        publish();
    }
    barrier();
}
DEVICE void begin(float *tile, const Map &map, u64 *arrivals, u32 bytes, u32 line) {
    if (threadIdx.x < 63) return;
    arrivals_expect(arrivals, bytes);
    copy_box(reinterpret_cast<bf16 *>(tile), map, line, 0, arrivals);
}
// What is read is where the hardware has put it.
DEVICE float boxed(const float *tile, u32 i) {
    const u32 at = shared_address(tile + i);
    return tile[((at ^ (at >> 7 & 7) << 4) - shared_address(tile)) / 4];
}

KERNEL(64) boxes_right(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    // The second of them is all zeros.
    begin(tile, x, &arrivals, BOX, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 0);
    const float mine = boxed(tile, 63 - threadIdx.x);
    barrier();
    begin(tile, x, &arrivals, BOX, 100);
    arrivals_wait(&arrivals, 1);
    if (me() < n) out[me()] = mine + boxed(tile, threadIdx.x);
}

KERNEL(64) boxes_no_wait(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    begin(tile, x, &arrivals, BOX, 2 * blockIdx.x);
    barrier();
    if (me() < n) out[me()] = boxed(tile, 63 - threadIdx.x);
    arrivals_wait(&arrivals, 0);
}

KERNEL(64) boxes_never_waited_for(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    begin(tile, x, &arrivals, BOX, 2 * blockIdx.x);
    if (me() < n) out[me()] = 0.0f;
}

KERNEL(64) boxes_of_the_phase_before(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    begin(tile, x, &arrivals, BOX, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 1);
    if (me() < n) out[me()] = boxed(tile, 63 - threadIdx.x);
    arrivals_wait(&arrivals, 0);
}

KERNEL(64) boxes_of_fewer_bytes(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    begin(tile, x, &arrivals, 2 * BOX, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 0);
    if (me() < n) out[me()] = boxed(tile, 63 - threadIdx.x);
}

KERNEL(64) boxes_of_more_bytes(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    begin(tile, x, &arrivals, BOX / 2, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 0);
    if (me() < n) out[me()] = boxed(tile, 63 - threadIdx.x);
}

// The driver's map has boxes of 32 lines.
KERNEL(64) boxes_of_another_size(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    begin(tile, x, &arrivals, BOX, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 0);
    if (me() < n) out[me()] = boxed(tile, 63 - threadIdx.x);
}

KERNEL(64) boxes_nobody_expects(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    if (threadIdx.x == 63) copy_box(reinterpret_cast<bf16 *>(&tile[0]), x, 2 * blockIdx.x, 0, &arrivals);
    arrivals_wait(&arrivals, 0);
    if (me() < n) out[me()] = boxed(tile, 63 - threadIdx.x);
}

KERNEL(64) boxes_twice_at_a_time(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    begin(tile, x, &arrivals, 2 * BOX, 2 * blockIdx.x);
    begin(tile, x, &arrivals, 2 * BOX, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 0);
    if (me() < n) out[me()] = boxed(tile, 63 - threadIdx.x);
}

KERNEL(64) boxes_of_arrivals_not_published(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    if (threadIdx.x == 63) arrivals_make(&arrivals);
    barrier();
    begin(tile, x, &arrivals, BOX, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 0);
    if (me() < n) out[me()] = boxed(tile, 63 - threadIdx.x);
}

KERNEL(64) boxes_of_arrivals_not_made(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    begin(tile, x, &arrivals, BOX, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 0);
    if (me() < n) out[me()] = boxed(tile, 63 - threadIdx.x);
}

KERNEL(64) boxes_of_arrivals_without_a_barrier(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    if (threadIdx.x == 63) {
        arrivals_make(&arrivals);
        publish();
    }
    begin(tile, x, &arrivals, BOX, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 0);
    if (me() < n) out[me()] = boxed(tile, 63 - threadIdx.x);
}

KERNEL(64) boxes_while_others_read(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    begin(tile, x, &arrivals, BOX, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 0);
    const float mine = boxed(tile, 63 - threadIdx.x);
    begin(tile, x, &arrivals, BOX, 100);
    arrivals_wait(&arrivals, 1);
    if (me() < n) out[me()] = mine;
}

KERNEL(64) boxes_misaligned(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 4 + 4], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    begin(tile + 4, x, &arrivals, BOX, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 0);
    if (me() < n) out[me()] = boxed(tile + 4, 63 - threadIdx.x);
}

KERNEL(64) boxes_past_the_end(float *out, GIVEN Map x, u32 n) {
    SHARED(float[BOX / 8], tile);
    SHARED(u64, arrivals);
    make(&arrivals);
    begin(tile, x, &arrivals, BOX, 2 * blockIdx.x);
    arrivals_wait(&arrivals, 0);
    if (me() < n) out[me()] = boxed(tile, 63 - threadIdx.x);
}
