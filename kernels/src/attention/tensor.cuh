// Attention on tensor cores (FlashAttention-2, Dao, arXiv:2307.08691), bf16 in and out, sums and softmax f32, for heads of D
// elements, D a multiple of 16. A block has four warps; a warp takes M times 16 rows of the block's tile. Rows in shared memory
// are D + 8 apart, an odd number of 16 bytes, so that eight rows of a matrix are in different banks.
//
// Whatever is read comes in two stages: while one is worked on, the next one is copied.
#pragma once
#include "attention.cuh"

const u32 WARPS = 4, THREADS = 32 * WARPS;

// Begins to copy ROWS rows, `stride` apart; zeros from row `count` on.
template <u32 D, u32 ROWS>
DEVICE void copy_rows(bf16 *to, const bf16 *from, u32 stride, u32 count) {
#pragma unroll 1 // which saves registers
    for (u32 i = threadIdx.x; i < ROWS * D / 8; i += THREADS) {
        const u32 row = i / (D / 8), column = i % (D / 8) * 8;
        copy_async(to + row * (D + 8) + column, from + (u64)row * stride + column, row < count);
    }
}

// Rows 16 and columns 16 from `rows` on, as the left side of a product.
template <u32 D>
DEVICE void load_left(u32 (&to)[4], const bf16 *rows) {
    load_matrices(to, rows + lane() % 16 * (D + 8) + lane() / 16 * 8);
}

// products[N / 8] += left [16 M, 16] · the first 16 columns of `rows` [N, D], transposed.
template <u32 D, u32 M, u32 N>
DEVICE void multiply_columns(float (&products)[M][N / 8][4], const u32 (&left)[M][4], const bf16 *rows) {
#pragma unroll
    for (u32 n = 0; n < N / 16; n++) {
        u32 b[4];
        load_matrices(b, rows + (16 * n + lane() / 16 * 8 + lane() % 8) * (D + 8) + lane() / 8 % 2 * 8);
        const u32 low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
        for (u32 m = 0; m < M; m++) {
            multiply_add(products[m][2 * n], left[m], low);
            multiply_add(products[m][2 * n + 1], left[m], high);
        }
    }
}

// products = left [16 M, D] · rightᵀ [N, D], both in shared memory.
template <u32 D, u32 M, u32 N>
DEVICE void multiply_rows(float (&products)[M][N / 8][4], const bf16 *left, const bf16 *right) {
#pragma unroll
    for (u32 m = 0; m < M; m++) {
#pragma unroll
        for (u32 n = 0; n < N / 8; n++) products[m][n][0] = products[m][n][1] = products[m][n][2] = products[m][n][3] = 0.0f;
    }
#pragma unroll
    for (u32 k = 0; k < D; k += 16) {
        u32 a[M][4];
#pragma unroll
        for (u32 m = 0; m < M; m++) load_left<D>(a[m], left + 16 * m * (D + 8) + k);
        multiply_columns<D, M, N>(products, a, right + k);
    }
}

// sums [16 M, D] += weights [16 M, N], rounded to bf16, · rows [N, D].
template <u32 D, u32 M, u32 N>
DEVICE void add_weighted(float (&sums)[M][D / 8][4], const float (&weights)[M][N / 8][4], const bf16 *rows) {
#pragma unroll
    for (u32 k = 0; k < N / 16; k++) {
        u32 a[M][4];
#pragma unroll
        for (u32 m = 0; m < M; m++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const float(&pair)[4] = weights[m][2 * k + i / 2];
                a[m][i] = narrow2(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
            }
        }
#pragma unroll
        for (u32 n = 0; n < D / 16; n++) {
            u32 b[4];
            load_matrices_transposed(b, rows + (16 * k + lane() % 16) * (D + 8) + 16 * n + lane() / 16 * 8);
            const u32 low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
            for (u32 m = 0; m < M; m++) {
                multiply_add(sums[m][2 * n], a[m], low);
                multiply_add(sums[m][2 * n + 1], a[m], high);
            }
        }
    }
}

// Rows 16 m + lane / 4 + 8 half of sums [16 M, D] times `factors`, from row `first` of a tile to memory; those before `count`.
template <u32 D, u32 M>
DEVICE void write_rows(bf16 *to, u32 stride, const float (&sums)[M][D / 8][4], const float (&factors)[M][2], u32 first,
                       u32 count) {
#pragma unroll
    for (u32 m = 0; m < M; m++) {
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 row = first + 16 * m + lane() / 4 + 8 * half;
            if (row >= count) continue;
            bf16 *at = to + (u64)row * stride + lane() % 4 * 2;
#pragma unroll
            for (u32 n = 0; n < D / 8; n++) {
                const float(&x)[4] = sums[m][n];
                *reinterpret_cast<u32 *>(at + 8 * n) =
                    narrow2(x[2 * half] * factors[m][half], x[2 * half + 1] * factors[m][half]);
            }
        }
    }
}

// A row's number within the warp's rows, and a column's within a step's; both of the lane's parts of products.
DEVICE u32 row_of(u32 m, u32 i) { return 16 * m + lane() / 4 + 8 * (i / 2); }
DEVICE u32 column_of(u32 n, u32 i) { return 8 * n + lane() % 4 * 2 + i % 2; }

// out [t, h, D], and of each row and head the largest score and Σ 2^(s − largest), [t, h, 2].
template <u32 D, u32 M, u32 STEP>
DEVICE void attend(bf16 *out, float *stats, const bf16 *qkv, const Tile *tiles, const u64 *caches, u32 heads, float scale) {
    const u32 ROWS = 16 * M * WARPS, STAGE = 2 * STEP * (D + 8);
    SHARED_AT_LAUNCH(bf16, shared); // [2 stages][keys, values][STEP][D + 8]; at first queries are in the second stage
    const u32 head = blockIdx.x % heads;
    const Tile tile = tiles[blockIdx.x / heads];
    const float slope = slope_of(tiles, head, heads);
    const Keys<bf16> keys = keys_of(tile, qkv, caches, head, heads, D);
    const u32 rows = min(ROWS, tile.end - tile.row), seen = tile.position + rows;
    const u32 first = 16 * M * warp(), position = tile.position + first;
    auto copy_step = [&](bf16 *to, u32 from) {
        const bf16 *key = keys.first + (u64)from * keys.stride;
        copy_rows<D, STEP>(to, key, keys.stride, seen - from);
        copy_rows<D, STEP>(to + STEP * (D + 8), key + D, keys.stride, seen - from);
    };
    copy_step(shared, 0);
    copy_rows<D, ROWS>(shared + STAGE, qkv + query_at(tile.row, head, heads, D), heads * 3 * D, rows);
    copy_commit();
    copy_wait<0>();
    barrier();
    u32 queries[D / 16][M][4];
#pragma unroll
    for (u32 k = 0; k < D / 16; k++) {
#pragma unroll
        for (u32 m = 0; m < M; m++) load_left<D>(queries[k][m], shared + STAGE + (first + 16 * m) * (D + 8) + 16 * k);
    }
    float sums[M][D / 8][4] = {}, largest[M][2], total[M][2];
#pragma unroll
    for (u32 m = 0; m < M; m++) {
        largest[m][0] = largest[m][1] = minus_infinity();
        total[m][0] = total[m][1] = 0.0f;
    }
#pragma unroll 1
    for (u32 from = 0, stage = 0; from < seen; from += STEP, stage ^= 1) {
        const bf16 *step = shared + stage * STAGE;
        // Then this stage is there for all, and nobody reads the other one any more.
        copy_wait<0>();
        barrier();
        if (from + STEP < seen) copy_step(shared + (stage ^ 1) * STAGE, from + STEP);
        copy_commit();
        if (first >= rows || from >= position + 16 * M) continue;
        float s[M][STEP / 8][4] = {};
#pragma unroll
        for (u32 k = 0; k < D / 16; k++) multiply_columns<D, M, STEP>(s, queries[k], step + 16 * k);
        const bool all_seen = from + STEP <= position + 1;
#pragma unroll
        for (u32 m = 0; m < M; m++) {
            float top[2] = {largest[m][0], largest[m][1]};
#pragma unroll
            for (u32 n = 0; n < STEP / 8; n++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const float to_first = static_cast<float>(static_cast<int>(from + column_of(0, 0) - position - row_of(m, i)));
                    const float distance = to_first + static_cast<float>(8 * n + i % 2);
                    s[m][n][i] = score(s[m][n][i], distance, scale, slope);
                    if (!all_seen && distance > 0.0f) s[m][n][i] = minus_infinity();
                    top[i / 2] = fmaxf(top[i / 2], s[m][n][i]);
                }
            }
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                top[half] = row_max(top[half]);
                const float shrink = exp2_fast(largest[m][half] - top[half]);
                largest[m][half] = top[half];
                if (vote(shrink != 1.0f) == 0) continue;
                total[m][half] *= shrink;
#pragma unroll
                for (u32 n = 0; n < D / 8; n++) {
                    sums[m][n][2 * half] *= shrink;
                    sums[m][n][2 * half + 1] *= shrink;
                }
            }
#pragma unroll
            for (u32 n = 0; n < STEP / 8; n++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    s[m][n][i] = exp2_fast(s[m][n][i] - top[i / 2]);
                    total[m][i / 2] += s[m][n][i];
                }
            }
        }
        add_weighted<D, M, STEP>(sums, s, step + STEP * (D + 8));
    }
    float shares[M][2];
#pragma unroll
    for (u32 m = 0; m < M; m++) {
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            total[m][half] = row_sum(total[m][half]);
            shares[m][half] = 1.0f / total[m][half];
            const u32 row = first + row_of(m, 2 * half);
            if (lane() % 4 == 0 && row < rows) {
                const float both[2] = {largest[m][half], total[m][half]};
                store(stats + ((u64)(tile.row + row) * heads + head) * 2, both);
            }
        }
    }
    write_rows<D, M>(out + ((u64)tile.row * heads + head) * D, heads * D, sums, shares, first, rows);
}

// dq into dqkv, and what the next pass wants of each row, [t, h, 4]. With P the softmax and dP = dout · vᵀ:
// dS = P ∘ (dP − Σ dout ∘ out), dq = dS · k / √d.
template <u32 D, u32 M, u32 STEP>
DEVICE void differentiate_queries(bf16 *dqkv, float *of_rows, const bf16 *dout, const bf16 *qkv, const bf16 *out,
                                  const float *stats, const Tile *tiles, u32 heads, float scale, float root) {
    const u32 ROWS = 16 * M * WARPS, STAGE = 2 * STEP * (D + 8);
    SHARED_AT_LAUNCH(bf16, shared); // [queries, gradients][ROWS][D + 8], then as in `attend`, but outputs
    bf16 *queries = shared, *gradients = queries + ROWS * (D + 8), *stages = gradients + ROWS * (D + 8);
    const u32 head = blockIdx.x % heads;
    const Tile tile = tiles[blockIdx.x / heads];
    const float slope = slope_of(tiles, head, heads);
    const Keys<bf16> keys = keys_of(tile, qkv, static_cast<const u64 *>(nullptr), head, heads, D);
    const u32 rows = min(ROWS, tile.end - tile.row), seen = tile.position + rows;
    const u32 first = 16 * M * warp(), position = tile.position + first;
    const u64 at = ((u64)tile.row * heads + head) * D;
    auto copy_step = [&](bf16 *to, u32 from) {
        const bf16 *key = keys.first + (u64)from * keys.stride;
        copy_rows<D, STEP>(to, key, keys.stride, seen - from);
        copy_rows<D, STEP>(to + STEP * (D + 8), key + D, keys.stride, seen - from);
    };
    copy_step(stages, 0);
    copy_rows<D, ROWS>(queries, qkv + query_at(tile.row, head, heads, D), heads * 3 * D, rows);
    copy_rows<D, ROWS>(gradients, dout + at, heads * D, rows);
    copy_rows<D, ROWS>(stages + STAGE, out + at, heads * D, rows);
    copy_commit();
    copy_wait<0>();
    barrier();
    queries += first * (D + 8);
    gradients += first * (D + 8);
    float largest[M][2], share[M][2], product[M][2];
#pragma unroll
    for (u32 m = 0; m < M; m++) {
        // The diagonal of dout · outᵀ, in the order of dP, so that a softmax of one weight gives a dS of exactly zero.
        float products[1][2][4];
        multiply_rows<D, 1, 16>(products, gradients + 16 * m * (D + 8), stages + STAGE + (first + 16 * m) * (D + 8));
        const u32 row = lane() / 4, holder = 4 * row + row / 2;
        const float(&x)[2][4] = products[0];
        product[m][0] = shuffle(row % 2 == 0 ? x[0][0] : x[0][1], holder);
        product[m][1] = shuffle(row % 2 == 0 ? x[1][2] : x[1][3], holder);
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 row = first + row_of(m, 2 * half);
            float both[2] = {0.0f, 1.0f};
            if (row < rows) load(stats + ((u64)(tile.row + row) * heads + head) * 2, both);
            largest[m][half] = both[0];
            share[m][half] = 1.0f / both[1];
            if (lane() % 4 == 0 && row < rows) {
                const float all[OF_ROW] = {largest[m][half], share[m][half], product[m][half], 0.0f};
                store(of_rows + ((u64)(tile.row + row) * heads + head) * OF_ROW, all);
            }
        }
    }
    float sums[M][D / 8][4] = {};
#pragma unroll 1
    for (u32 from = 0, stage = 0; from < seen; from += STEP, stage ^= 1) {
        const bf16 *step = stages + stage * STAGE;
        copy_wait<0>();
        barrier();
        if (from + STEP < seen) copy_step(stages + (stage ^ 1) * STAGE, from + STEP);
        copy_commit();
        if (first >= rows || from >= position + 16 * M) continue;
        float s[M][STEP / 8][4], dweights[M][STEP / 8][4];
        multiply_rows<D, M, STEP>(s, queries, step);
        multiply_rows<D, M, STEP>(dweights, gradients, step + STEP * (D + 8));
#pragma unroll
        for (u32 m = 0; m < M; m++) {
#pragma unroll
            for (u32 n = 0; n < STEP / 8; n++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const float to_first = static_cast<float>(static_cast<int>(from + column_of(0, 0) - position - row_of(m, i)));
                    const float distance = to_first + static_cast<float>(8 * n + i % 2);
                    const float above = score(s[m][n][i], distance, scale, slope) - largest[m][i / 2];
                    const float weight = distance > 0.0f ? 0.0f : exp2_fast(above) * share[m][i / 2];
                    s[m][n][i] = weight * (dweights[m][n][i] - product[m][i / 2]);
                }
            }
        }
        add_weighted<D, M, STEP>(sums, s, step);
    }
    float factors[M][2];
#pragma unroll
    for (u32 m = 0; m < M; m++) factors[m][0] = factors[m][1] = root;
    write_rows<D, M>(dqkv + query_at(tile.row, head, heads, D), heads * 3 * D, sums, factors, first, rows);
}

// dk and dv into dqkv, of keys that are the rows of the tile; their queries are the document's rows from there on.
// dv = Pᵀ · dout, dk = dSᵀ · q / √d.
template <u32 D, u32 M, u32 STEP>
DEVICE void differentiate_keys(bf16 *dqkv, const bf16 *dout, const bf16 *qkv, const float *of_rows, const Tile *tiles,
                               u32 heads, float scale, float root) {
    const u32 ROWS = 16 * M * WARPS, STAGE = 2 * STEP * (D + 8);
    SHARED_AT_LAUNCH(bf16, shared); // [keys, values][ROWS][D + 8], [2 stages][queries, gradients][STEP][D + 8], and
    bf16 *keys = shared, *values = keys + ROWS * (D + 8), *stages = values + ROWS * (D + 8);
    float *rows_of_stages = reinterpret_cast<float *>(stages + 2 * STAGE); // [2 stages][STEP][4]
    const u32 head = blockIdx.x % heads;
    const Tile tile = tiles[blockIdx.x / heads];
    const float slope = slope_of(tiles, head, heads);
    const u32 count = tile.end - tile.row, rows = min(ROWS, count), first = 16 * M * warp();
    const bf16 *query = qkv + query_at(tile.row, head, heads, D);
    auto copy_step = [&](u32 stage, u32 from) {
        bf16 *to = stages + stage * STAGE;
        const u64 row = tile.row + from;
        copy_rows<D, STEP>(to, query + (u64)from * heads * 3 * D, heads * 3 * D, count - from);
        copy_rows<D, STEP>(to + STEP * (D + 8), dout + (row * heads + head) * D, heads * D, count - from);
        // Zeros past the end: no share of any weight.
        if (threadIdx.x < STEP)
            copy_async(rows_of_stages + (stage * STEP + threadIdx.x) * OF_ROW,
                       of_rows + ((row + threadIdx.x) * heads + head) * OF_ROW, threadIdx.x < count - from);
    };
    copy_step(0, 0);
    copy_rows<D, ROWS>(keys, query + D, heads * 3 * D, rows);
    copy_rows<D, ROWS>(values, query + 2 * D, heads * 3 * D, rows);
    copy_commit();
    keys += first * (D + 8);
    values += first * (D + 8);
    float dkeys[M][D / 8][4] = {}, dvalues[M][D / 8][4] = {};
#pragma unroll 1
    for (u32 from = 0, stage = 0; from < count; from += STEP, stage ^= 1) {
        const bf16 *queries = stages + stage * STAGE, *gradients = queries + STEP * (D + 8);
        const float *of_queries = rows_of_stages + stage * STEP * OF_ROW;
        copy_wait<0>();
        barrier();
        if (from + STEP < count) copy_step(stage ^ 1, from + STEP);
        copy_commit();
        if (first >= rows || from + STEP <= first) continue;
        float weights[M][STEP / 8][4], dscores[M][STEP / 8][4];
        multiply_rows<D, M, STEP>(weights, keys, queries);
        multiply_rows<D, M, STEP>(dscores, values, gradients);
#pragma unroll
        for (u32 n = 0; n < STEP / 8; n++) {
            float of_query[2][OF_ROW];
            load(of_queries + column_of(n, 0) * OF_ROW, of_query[0]);
            load(of_queries + column_of(n, 1) * OF_ROW, of_query[1]);
#pragma unroll
            for (u32 m = 0; m < M; m++) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const float to_first = static_cast<float>(static_cast<int>(first + row_of(m, i) - from - column_of(0, 0)));
                    const float distance = to_first - static_cast<float>(8 * n + i % 2);
                    const float(&of)[OF_ROW] = of_query[i % 2];
                    const float above = score(weights[m][n][i], distance, scale, slope) - of[0];
                    weights[m][n][i] = distance > 0.0f ? 0.0f : exp2_fast(above) * of[1];
                    dscores[m][n][i] = weights[m][n][i] * (dscores[m][n][i] - of[2]);
                }
            }
        }
        add_weighted<D, M, STEP>(dvalues, weights, gradients);
        add_weighted<D, M, STEP>(dkeys, dscores, queries);
    }
    float roots[M][2], ones[M][2];
#pragma unroll
    for (u32 m = 0; m < M; m++) {
        roots[m][0] = roots[m][1] = root;
        ones[m][0] = ones[m][1] = 1.0f;
    }
    bf16 *to = dqkv + query_at(tile.row, head, heads, D);
    write_rows<D, M>(to + D, heads * 3 * D, dkeys, roots, first, rows);
    write_rows<D, M>(to + 2 * D, heads * 3 * D, dvalues, ones, first, rows);
}

// For each pass M, the rows of a step, and the blocks that a multiprocessor is to hold at least; as `SIZES` of `cuda.rs`.
#define FORWARD(D, M, STEP, BLOCKS)                                                                                      \
    KERNEL(128, BLOCKS)                                                                                                  \
    attention_forward_##D(bf16 *out, float *stats, const bf16 *qkv, const Tile *tiles, const u64 *caches, u32 heads,     \
                          float scale) {                                                                                 \
        attend<D, M, STEP>(out, stats, qkv, tiles, caches, heads, scale);                                                \
    }
#define QUERIES(D, M, STEP, BLOCKS)                                                                                      \
    KERNEL(128, BLOCKS)                                                                                                  \
    attention_backward_queries_##D(bf16 *dqkv, float *of_rows, const bf16 *dout, const bf16 *qkv, const bf16 *out,       \
                                   const float *stats, const Tile *tiles, u32 heads, float scale, float root) {          \
        differentiate_queries<D, M, STEP>(dqkv, of_rows, dout, qkv, out, stats, tiles, heads, scale, root);              \
    }
#define KEYS(D, M, STEP, BLOCKS)                                                                                         \
    KERNEL(128, BLOCKS)                                                                                                  \
    attention_backward_keys_##D(bf16 *dqkv, const bf16 *dout, const bf16 *qkv, const float *of_rows, const Tile *tiles,  \
                                u32 heads, float scale, float root) {                                                    \
        differentiate_keys<D, M, STEP>(dqkv, dout, qkv, of_rows, tiles, heads, scale, root);                             \
    }
