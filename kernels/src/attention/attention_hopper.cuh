// Attention as in `tensor.cuh`, for compute capability 9.0: a block has two groups of four warps, and a group takes 64 rows of the
// block's tile. What is multiplied comes to shared memory in the order that the hardware wants; weights are left factors in registers.
//
// Whatever is read comes in two stages: while one is worked on, the next one is copied.
#pragma once
#include "attention.cuh"
#include "hopper.cuh"

const u32 GROUP_ROWS = 64, THREADS = 256, ROWS = GROUP_ROWS * THREADS / 128, LINE = 64;
const u32 LINES = 8 * LINE * sizeof(bf16);

// A matrix of N rows and D columns in shared memory is D / 64 parts of 64 columns, one after the other. Begins to copy its rows,
// `stride` apart; zeros from row `count` on.
template <u32 D, u32 N>
DEVICE void copy_rows(bf16 *to, const bf16 *from, u32 stride, u32 count) {
#pragma unroll 1 // which saves registers
    for (u32 i = threadIdx.x; i < N * D / 8; i += THREADS) {
        const u32 row = i / (D / 8), chunk = i % (D / 8);
        bf16 *at = to + chunk / 8 * N * LINE + row * LINE + (chunk % 8 ^ row % 8) * 8;
        copy_async(at, from + (u64)row * stride + 8 * chunk, row < count);
    }
}

// products [64, N] = left [64, D] · rightᵀ [N, D], asked for; both are within matrices of so many rows.
template <u32 D, u32 LEFT_ROWS, u32 RIGHT_ROWS, u32 COUNT>
DEVICE void multiply_rows(float (&products)[COUNT], const bf16 *left, const bf16 *right) {
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) products[i] = 0.0f;
    products_begin(products);
#pragma unroll
    for (u32 k = 0; k < D; k += 16) {
        const u64 a = descriptor(left + k / LINE * LEFT_ROWS * LINE + k % LINE, 16, LINES);
        const u64 b = descriptor(right + k / LINE * RIGHT_ROWS * LINE + k % LINE, 16, LINES);
        multiply_add_group<0, 0>(products, a, b);
    }
    products_commit();
}

// Columns 8n … 8n + 7 of weights [64, N], rounded to bf16, as a part of left factors; and all of them.
template <u32 STEPS, u32 COUNT>
DEVICE void narrow_part(u32 (&to)[STEPS][4], const float (&weights)[COUNT], u32 n) {
    to[n / 2][n % 2 * 2] = narrow2(weights[4 * n], weights[4 * n + 1]);
    to[n / 2][n % 2 * 2 + 1] = narrow2(weights[4 * n + 2], weights[4 * n + 3]);
}
template <u32 STEPS, u32 COUNT>
DEVICE void narrow_weights(u32 (&to)[STEPS][4], const float (&weights)[COUNT]) {
#pragma unroll
    for (u32 n = 0; n < 2 * STEPS; n++) narrow_part(to, weights, n);
}

// sums [64, D] += weights [64, N] · rows [N, D], asked for.
template <u32 D, u32 N>
DEVICE void add_weighted(float (&sums)[D / 2], u32 (&weights)[N / 16][4], const bf16 *rows) {
    products_begin(sums, weights);
#pragma unroll
    for (u32 k = 0; k < N / 16; k++)
        multiply_add_group<1>(sums, weights[k], descriptor(rows + 16 * k * LINE, N * LINE * sizeof(bf16), LINES));
    products_commit();
}

// What number i of a lane's part of products [64, N] is of: the row within the group's, and the column.
DEVICE u32 row_of(u32 i) { return warp() % 4 * 16 + lane() / 4 + i / 2 % 2 * 8; }
DEVICE u32 column_of(u32 i) { return 8 * (i / 4) + lane() % 4 * 2 + i % 2; }

// Rows of sums [64, D] times `factors`, from row `first` of a tile to memory; those before `count`.
template <u32 D>
DEVICE void write_rows(bf16 *to, u32 stride, const float (&sums)[D / 2], const float (&factors)[2], u32 first, u32 count) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 row = first + row_of(2 * half);
        if (row >= count) continue;
        bf16 *at = to + (u64)row * stride + lane() % 4 * 2;
#pragma unroll
        for (u32 n = 0; n < D / 8; n++) {
            const float low = sums[4 * n + 2 * half], high = sums[4 * n + 2 * half + 1];
            *reinterpret_cast<u32 *>(at + 8 * n) = narrow2(low * factors[half], high * factors[half]);
        }
    }
}

// out [t, h, D], and of each row and head the largest score and Σ 2^(s − largest), [t, h, 2].
template <u32 D, u32 STEP>
DEVICE void attend(bf16 *out, float *stats, const bf16 *qkv, const Tile *tiles, const u64 *caches, u32 heads, float scale) {
    const u32 STAGE = 2 * STEP * D;
    TILES_AT_LAUNCH(queries); // [ROWS][D], then [2 stages][keys, values][STEP][D]
    bf16 *const stages = queries + ROWS * D;
    const u32 head = blockIdx.x % heads;
    const Tile tile = tiles[blockIdx.x / heads];
    const float slope = slope_of(tiles, head, heads);
    const Keys<bf16> keys = keys_of(tile, qkv, caches, head, heads, D);
    const u32 rows = min(ROWS, tile.end - tile.row), seen = tile.position + rows;
    const u32 first = warp() / 4 * GROUP_ROWS, position = tile.position + first;
    auto copy_step = [&](bf16 *to, u32 from) {
        const bf16 *key = keys.first + (u64)from * keys.stride;
        copy_rows<D, STEP>(to, key, keys.stride, seen - from);
        copy_rows<D, STEP>(to + STEP * D, key + D, keys.stride, seen - from);
    };
    copy_step(stages, 0);
    copy_rows<D, ROWS>(queries, qkv + query_at(tile.row, head, heads, D), heads * 3 * D, rows);
    copy_commit();
    float sums[D / 2], largest[2], total[2];
#pragma unroll
    for (u32 i = 0; i < D / 2; i++) sums[i] = 0.0f;
    largest[0] = largest[1] = minus_infinity();
    total[0] = total[1] = 0.0f;
#pragma unroll 1
    for (u32 from = 0, stage = 0; from < seen; from += STEP, stage ^= 1) {
        const bf16 *step = stages + stage * STAGE;
        // Then this stage is there for all, and nobody reads the other one any more.
        copy_wait<0>();
        publish();
        barrier();
        if (from + STEP < seen) copy_step(stages + (stage ^ 1) * STAGE, from + STEP);
        copy_commit();
        if (first >= rows || from >= position + GROUP_ROWS) continue;
        float s[STEP / 2];
        multiply_rows<D, ROWS, STEP>(s, queries + first * LINE, step);
        products_wait(s);
        const bool all_seen = from + STEP <= position + warp() % 4 * 16 + 1;
        float top[2] = {largest[0], largest[1]};
#pragma unroll
        for (u32 i = 0; i < STEP / 2; i++) {
            const float to_first = static_cast<float>(static_cast<int>(from + column_of(0) - position - row_of(i)));
            const float distance = to_first + static_cast<float>(8 * (i / 4) + i % 2);
            s[i] = score(s[i], distance, scale, slope);
            if (!all_seen && distance > 0.0f) s[i] = minus_infinity();
            top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[i]);
        }
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            top[half] = row_max(top[half]);
            const float shrink = exp2_fast(largest[half] - top[half]);
            largest[half] = top[half];
            if (vote(shrink != 1.0f) == 0) continue;
            total[half] *= shrink;
#pragma unroll
            for (u32 i = 2 * half; i < D / 2; i += 4) {
                sums[i] *= shrink;
                sums[i + 1] *= shrink;
            }
        }
#pragma unroll
        for (u32 i = 0; i < STEP / 2; i++) {
            s[i] = exp2_fast(s[i] - top[i / 2 % 2]);
            total[i / 2 % 2] += s[i];
        }
        u32 weights[STEP / 16][4];
        narrow_weights(weights, s);
        add_weighted<D, STEP>(sums, weights, step + STEP * D);
        products_wait(sums, weights);
    }
    float shares[2];
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        total[half] = row_sum(total[half]);
        shares[half] = 1.0f / total[half];
        const u32 row = first + row_of(2 * half);
        if (lane() % 4 == 0 && row < rows) {
            const float both[2] = {largest[half], total[half]};
            store(stats + ((u64)(tile.row + row) * heads + head) * 2, both);
        }
    }
    write_rows<D>(out + ((u64)tile.row * heads + head) * D, heads * D, sums, shares, first, rows);
}

// dq into dqkv, and what the next pass wants of each row, [t, h, 4]. With P the softmax and dP = dout · vᵀ:
// dS = P ∘ (dP − Σ dout ∘ out), dq = dS · k / √d.
template <u32 D, u32 STEP>
DEVICE void differentiate_queries(bf16 *dqkv, float *of_rows, const bf16 *dout, const bf16 *qkv, const bf16 *out,
                                  const float *stats, const Tile *tiles, u32 heads, float scale, float root) {
    const u32 STAGE = 2 * STEP * D;
    TILES_AT_LAUNCH(queries); // [queries, gradients][ROWS][D], then as in `attend`; at first outputs are in the second stage
    bf16 *const gradients = queries + ROWS * D, *const stages = gradients + ROWS * D;
    const u32 head = blockIdx.x % heads;
    const Tile tile = tiles[blockIdx.x / heads];
    const float slope = slope_of(tiles, head, heads);
    const Keys<bf16> keys = keys_of(tile, qkv, static_cast<const u64 *>(nullptr), head, heads, D);
    const u32 rows = min(ROWS, tile.end - tile.row), seen = tile.position + rows;
    const u32 first = warp() / 4 * GROUP_ROWS, position = tile.position + first;
    const u64 at = ((u64)tile.row * heads + head) * D;
    auto copy_step = [&](bf16 *to, u32 from) {
        const bf16 *key = keys.first + (u64)from * keys.stride;
        copy_rows<D, STEP>(to, key, keys.stride, seen - from);
        copy_rows<D, STEP>(to + STEP * D, key + D, keys.stride, seen - from);
    };
    copy_step(stages, 0);
    copy_rows<D, ROWS>(queries, qkv + query_at(tile.row, head, heads, D), heads * 3 * D, rows);
    copy_rows<D, ROWS>(gradients, dout + at, heads * D, rows);
    copy_rows<D, ROWS>(stages + STAGE, out + at, heads * D, rows);
    copy_commit();
    copy_wait<0>();
    publish();
    barrier();
    float largest[2], share[2], product[2] = {0.0f, 0.0f};
    {
        // The diagonal of dout · outᵀ, in the order of dP, so that a softmax of one weight gives a dS of exactly zero.
        float products[GROUP_ROWS / 2];
        multiply_rows<D, ROWS, ROWS>(products, gradients + first * LINE, stages + STAGE + first * LINE);
        products_wait(products);
        const u32 row = lane() / 4, holder = 4 * row + row / 2;
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            // A warp's rows are columns of its own.
#pragma unroll
            for (u32 w = 0; w < 4; w++) {
                const float *x = products + 4 * (2 * w + half) + 2 * half;
                const float mine = shuffle(row % 2 == 0 ? x[0] : x[1], holder);
                if (w == warp() % 4) product[half] = mine;
            }
        }
    }
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 row = first + row_of(2 * half);
        float both[2] = {0.0f, 1.0f};
        if (row < rows) load(stats + ((u64)(tile.row + row) * heads + head) * 2, both);
        largest[half] = both[0];
        share[half] = 1.0f / both[1];
        if (lane() % 4 == 0 && row < rows) {
            const float all[OF_ROW] = {largest[half], share[half], product[half], 0.0f};
            store(of_rows + ((u64)(tile.row + row) * heads + head) * OF_ROW, all);
        }
    }
    float sums[D / 2];
#pragma unroll
    for (u32 i = 0; i < D / 2; i++) sums[i] = 0.0f;
#pragma unroll 1
    for (u32 from = 0, stage = 0; from < seen; from += STEP, stage ^= 1) {
        const bf16 *step = stages + stage * STAGE;
        copy_wait<0>();
        publish();
        barrier();
        if (from + STEP < seen) copy_step(stages + (stage ^ 1) * STAGE, from + STEP);
        copy_commit();
        if (first >= rows || from >= position + GROUP_ROWS) continue;
        float s[STEP / 2], dweights[STEP / 2];
        multiply_rows<D, ROWS, STEP>(s, queries + first * LINE, step);
        multiply_rows<D, ROWS, STEP>(dweights, gradients + first * LINE, step + STEP * D);
        products_wait(s, dweights);
#pragma unroll
        for (u32 i = 0; i < STEP / 2; i++) {
            const float to_first = static_cast<float>(static_cast<int>(from + column_of(0) - position - row_of(i)));
            const float distance = to_first + static_cast<float>(8 * (i / 4) + i % 2);
            const float above = score(s[i], distance, scale, slope) - largest[i / 2 % 2];
            const float weight = distance > 0.0f ? 0.0f : exp2_fast(above) * share[i / 2 % 2];
            s[i] = weight * (dweights[i] - product[i / 2 % 2]);
        }
        u32 dscores[STEP / 16][4];
        narrow_weights(dscores, s);
        add_weighted<D, STEP>(sums, dscores, step);
        products_wait(sums, dscores);
    }
    const float roots[2] = {root, root};
    write_rows<D>(dqkv + query_at(tile.row, head, heads, D), heads * 3 * D, sums, roots, first, rows);
}

// dk and dv into dqkv, of keys that are the rows of the tile; their queries are the document's rows from there on.
// dv = Pᵀ · dout, dk = dSᵀ · q / √d.
template <u32 D, u32 STEP>
DEVICE void differentiate_keys(bf16 *dqkv, const bf16 *dout, const bf16 *qkv, const float *of_rows, const Tile *tiles,
                               u32 heads, float scale, float root) {
    const u32 STAGE = 2 * STEP * D;
    TILES_AT_LAUNCH(keys); // [keys, values][ROWS][D], [2 stages][queries, gradients][STEP][D], and
    bf16 *const values = keys + ROWS * D, *const stages = values + ROWS * D;
    float *const rows_of_stages = reinterpret_cast<float *>(stages + 2 * STAGE); // [2 stages][STEP][4]
    const u32 head = blockIdx.x % heads;
    const Tile tile = tiles[blockIdx.x / heads];
    const float slope = slope_of(tiles, head, heads);
    const u32 count = tile.end - tile.row, rows = min(ROWS, count), first = warp() / 4 * GROUP_ROWS;
    const bf16 *query = qkv + query_at(tile.row, head, heads, D);
    auto copy_step = [&](u32 stage, u32 from) {
        bf16 *to = stages + stage * STAGE;
        const u64 row = tile.row + from;
        copy_rows<D, STEP>(to, query + (u64)from * heads * 3 * D, heads * 3 * D, count - from);
        copy_rows<D, STEP>(to + STEP * D, dout + (row * heads + head) * D, heads * D, count - from);
        // Zeros past the end: no share of any weight.
        if (threadIdx.x < STEP)
            copy_async(rows_of_stages + (stage * STEP + threadIdx.x) * OF_ROW,
                       of_rows + ((row + threadIdx.x) * heads + head) * OF_ROW, threadIdx.x < count - from);
    };
    copy_step(0, 0);
    copy_rows<D, ROWS>(keys, query + D, heads * 3 * D, rows);
    copy_rows<D, ROWS>(values, query + 2 * D, heads * 3 * D, rows);
    copy_commit();
    float dkeys[D / 2], dvalues[D / 2];
#pragma unroll
    for (u32 i = 0; i < D / 2; i++) dkeys[i] = dvalues[i] = 0.0f;
#pragma unroll 1
    for (u32 from = 0, stage = 0; from < count; from += STEP, stage ^= 1) {
        const bf16 *queries = stages + stage * STAGE, *gradients = queries + STEP * D;
        const float *of_queries = rows_of_stages + stage * STEP * OF_ROW;
        copy_wait<0>();
        publish();
        barrier();
        if (from + STEP < count) copy_step(stage ^ 1, from + STEP);
        copy_commit();
        if (first >= rows || from + STEP <= first) continue;
        float s[STEP / 2], ds[STEP / 2];
        multiply_rows<D, ROWS, STEP>(s, keys + first * LINE, queries);
        products_wait(s);
        u32 weights[STEP / 16][4], dscores[STEP / 16][4];
#pragma unroll
        for (u32 n = 0; n < STEP / 8; n++) {
            float of_query[2][OF_ROW];
            load(of_queries + column_of(4 * n) * OF_ROW, of_query[0]);
            load(of_queries + column_of(4 * n + 1) * OF_ROW, of_query[1]);
#pragma unroll
            for (u32 i = 4 * n; i < 4 * n + 4; i++) {
                const float to_first = static_cast<float>(static_cast<int>(first + row_of(i) - from - column_of(0)));
                const float distance = to_first - static_cast<float>(8 * n + i % 2);
                const float(&of)[OF_ROW] = of_query[i % 2];
                const float above = score(s[i], distance, scale, slope) - of[0];
                s[i] = distance > 0.0f ? 0.0f : exp2_fast(above) * of[1];
            }
            narrow_part(weights, s, n);
        }
        // One after the other, as there are no registers for all at a time.
        add_weighted<D, STEP>(dvalues, weights, gradients);
        products_wait(dvalues, weights);
        multiply_rows<D, ROWS, STEP>(ds, values + first * LINE, gradients);
        products_wait(ds);
#pragma unroll
        for (u32 n = 0; n < STEP / 8; n++) {
#pragma unroll
            for (u32 i = 4 * n; i < 4 * n + 4; i++)
                ds[i] = s[i] * (ds[i] - of_queries[column_of(i) * OF_ROW + 2]);
            narrow_part(dscores, ds, n);
        }
        add_weighted<D, STEP>(dkeys, dscores, queries);
        products_wait(dkeys, dscores);
    }
    const float roots[2] = {root, root}, ones[2] = {1.0f, 1.0f};
    bf16 *to = dqkv + query_at(tile.row, head, heads, D);
    write_rows<D>(to + D, heads * 3 * D, dkeys, roots, first, rows);
    write_rows<D>(to + 2 * D, heads * 3 * D, dvalues, ones, first, rows);
}

// For each pass the rows of a step, and the blocks that a multiprocessor is to hold at least; as `HOPPER` of `cuda.rs`.
#define FORWARD(D, STEP, BLOCKS)                                                                                         \
    KERNEL(256, BLOCKS)                                                                                                  \
    attention_forward_##D##_hopper(bf16 *out, float *stats, const bf16 *qkv, const Tile *tiles, const u64 *caches,       \
                                   u32 heads, float scale) {                                                             \
        attend<D, STEP>(out, stats, qkv, tiles, caches, heads, scale);                                                   \
    }
#define QUERIES(D, STEP, BLOCKS)                                                                                         \
    KERNEL(256, BLOCKS)                                                                                                  \
    attention_backward_queries_##D##_hopper(bf16 *dqkv, float *of_rows, const bf16 *dout, const bf16 *qkv,               \
                                            const bf16 *out, const float *stats, const Tile *tiles, u32 heads,           \
                                            float scale, float root) {                                                   \
        differentiate_queries<D, STEP>(dqkv, of_rows, dout, qkv, out, stats, tiles, heads, scale, root);                 \
    }
#define KEYS(D, STEP, BLOCKS)                                                                                            \
    KERNEL(256, BLOCKS)                                                                                                  \
    attention_backward_keys_##D##_hopper(bf16 *dqkv, const bf16 *dout, const bf16 *qkv, const float *of_rows,            \
                                         const Tile *tiles, u32 heads, float scale, float root) {                        \
        differentiate_keys<D, STEP>(dqkv, dout, qkv, of_rows, tiles, heads, scale, root);                                \
    }
