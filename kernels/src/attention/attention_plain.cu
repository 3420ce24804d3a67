// Attention without tensor cores, f32 or bf16 in memory and f32 in all arithmetic, for heads of d elements, at most 128. A
// block takes tiles of 32 rows and steps of 32; four lanes share a row, lane `part` its columns part, part + 4 … Rows in
// shared memory are filled up with zeros to a multiple of 32 columns, and one apart.
#include "attention.cuh"

const u32 SIDE = 32, THREADS = 4 * SIDE, MOST = 32;

DEVICE u32 row_of_lane() { return threadIdx.x / 4; }
DEVICE u32 part() { return threadIdx.x % 4; }
DEVICE u32 width_of(u32 d) { return (d + 31) / 32 * 32 + 1; }

// SIDE rows of d elements, zeros from row `count` on.
template <class T>
DEVICE void load_rows(float *to, const T *from, u32 stride, u32 count, u32 d) {
#pragma unroll 1
    for (u32 i = threadIdx.x; i < SIDE * width_of(d); i += THREADS) {
        const u32 row = i / width_of(d), column = i % width_of(d);
        to[i] = row < count && column < d ? widen(from[(u64)row * stride + column]) : 0.0f;
    }
}

// Products of the lane's row with its eight of SIDE rows.
DEVICE void multiply_rows(float (&products)[8], const float *row, const float *rows, u32 d) {
#pragma unroll
    for (u32 k = 0; k < 8; k++) products[k] = 0.0f;
#pragma unroll 1
    for (u32 e = 0; e < d; e++) {
#pragma unroll
        for (u32 k = 0; k < 8; k++) products[k] = fmaf(row[e], rows[(part() + 4 * k) * width_of(d) + e], products[k]);
    }
}

// sums += weights [SIDE] · rows, the lane's columns.
DEVICE void add_weighted(float (&sums)[MOST], const float *weights, const float *rows, u32 d) {
#pragma unroll 1
    for (u32 j = 0; j < SIDE; j++) {
#pragma unroll
        for (u32 from = 0; from < MOST; from += 8) {
            if (4 * from >= d) break;
#pragma unroll
            for (u32 k = from; k < from + 8; k++) sums[k] = fmaf(weights[j], rows[j * width_of(d) + part() + 4 * k], sums[k]);
        }
    }
}

template <class T>
DEVICE void write_row(T *to, const float (&sums)[MOST], float factor, u32 d) {
#pragma unroll
    for (u32 k = 0; k < MOST; k++) {
        if (part() + 4 * k < d) to[part() + 4 * k] = narrow<T>(sums[k] * factor);
    }
}

template <class T>
DEVICE void attend(T *out, float *stats, const T *qkv, const Tile *tiles, const u64 *caches, u32 heads, u32 d,
                   float scale) {
    SHARED_AT_LAUNCH(float, shared); // [queries, keys, values][SIDE][width]
    SHARED(float[SIDE][SIDE + 1], weights);
    float *queries = shared, *keys = queries + SIDE * width_of(d), *values = keys + SIDE * width_of(d);
    const u32 head = blockIdx.x % heads;
    const Tile tile = tiles[blockIdx.x / heads];
    const float slope = slope_of(tiles, head, heads);
    const Keys<T> from_memory = keys_of(tile, qkv, caches, head, heads, d);
    const u32 rows = min(SIDE, tile.end - tile.row), seen = tile.position + rows;
    const u32 row = row_of_lane(), position = tile.position + row;
    load_rows(queries, qkv + query_at(tile.row, head, heads, d), heads * 3 * d, rows, d);
    float sums[MOST] = {}, largest = minus_infinity(), total = 0.0f;
#pragma unroll 1
    for (u32 from = 0; from < seen; from += SIDE) {
        const T *key = from_memory.first + (u64)from * from_memory.stride;
        barrier();
        load_rows(keys, key, from_memory.stride, seen - from, d);
        load_rows(values, key + d, from_memory.stride, seen - from, d);
        barrier();
        float s[8], top = largest;
        multiply_rows(s, queries + row * width_of(d), keys, d);
#pragma unroll
        for (u32 k = 0; k < 8; k++) {
            const float distance = static_cast<float>(static_cast<int>(from + part() + 4 * k - position));
            s[k] = distance > 0.0f ? minus_infinity() : score(s[k], distance, scale, slope);
            top = fmaxf(top, s[k]);
        }
        top = row_max(top);
        const float shrink = exp2_fast(largest - top);
        largest = top;
        total *= shrink;
#pragma unroll
        for (u32 k = 0; k < MOST; k++) sums[k] *= shrink;
#pragma unroll
        for (u32 k = 0; k < 8; k++) {
            s[k] = exp2_fast(s[k] - top);
            total += s[k];
            weights[row][part() + 4 * k] = s[k];
        }
        warp_barrier();
        add_weighted(sums, weights[row], values, d);
    }
    total = row_sum(total);
    if (row >= rows) return;
    const u64 at = (u64)(tile.row + row) * heads + head;
    write_row(out + at * d, sums, 1.0f / total, d);
    if (part() == 0) {
        stats[2 * at] = largest;
        stats[2 * at + 1] = total;
    }
}

// As `differentiate_queries` of `tensor.cuh`.
template <class T>
DEVICE void differentiate_queries(T *dqkv, float *of_rows, const T *dout, const T *qkv, const T *out, const float *stats,
                                  const Tile *tiles, u32 heads, u32 d, float scale, float root) {
    SHARED_AT_LAUNCH(float, shared); // [queries, gradients, keys, values][SIDE][width]
    SHARED(float[SIDE][SIDE + 1], dscores);
    float *queries = shared, *gradients = queries + SIDE * width_of(d), *keys = gradients + SIDE * width_of(d);
    float *values = keys + SIDE * width_of(d);
    const u32 head = blockIdx.x % heads;
    const Tile tile = tiles[blockIdx.x / heads];
    const float slope = slope_of(tiles, head, heads);
    const Keys<T> from_memory = keys_of(tile, qkv, static_cast<const u64 *>(nullptr), head, heads, d);
    const u32 rows = min(SIDE, tile.end - tile.row), seen = tile.position + rows;
    const u32 row = row_of_lane(), position = tile.position + row;
    const u64 first = (u64)tile.row * heads + head, at = first + (u64)row * heads;
    load_rows(queries, qkv + query_at(tile.row, head, heads, d), heads * 3 * d, rows, d);
    load_rows(gradients, dout + first * d, heads * d, rows, d);
    float largest = 0.0f, share = 1.0f, product = 0.0f;
    if (row < rows) {
        largest = stats[2 * at];
        share = 1.0f / stats[2 * at + 1];
        // In the order of dP, so that a softmax of one weight gives a dS of exactly zero.
        for (u32 e = 0; e < d; e++) product = fmaf(widen(dout[at * d + e]), widen(out[at * d + e]), product);
        if (part() == 0) {
            const float all[OF_ROW] = {largest, share, product, 0.0f};
            store(of_rows + at * OF_ROW, all);
        }
    }
    float sums[MOST] = {};
#pragma unroll 1
    for (u32 from = 0; from < seen; from += SIDE) {
        const T *key = from_memory.first + (u64)from * from_memory.stride;
        barrier();
        load_rows(keys, key, from_memory.stride, seen - from, d);
        load_rows(values, key + d, from_memory.stride, seen - from, d);
        barrier();
        float s[8], dweights[8];
        multiply_rows(s, queries + row * width_of(d), keys, d);
        multiply_rows(dweights, gradients + row * width_of(d), values, d);
#pragma unroll
        for (u32 k = 0; k < 8; k++) {
            const float distance = static_cast<float>(static_cast<int>(from + part() + 4 * k - position));
            const float above = score(s[k], distance, scale, slope) - largest;
            const float weight = distance > 0.0f ? 0.0f : exp2_fast(above) * share;
            dscores[row][part() + 4 * k] = weight * (dweights[k] - product);
        }
        warp_barrier();
        add_weighted(sums, dscores[row], keys, d);
    }
    if (row < rows) write_row(dqkv + 3 * at * d, sums, root, d);
}

// As `differentiate_keys` of `tensor.cuh`.
template <class T>
DEVICE void differentiate_keys(T *dqkv, const T *dout, const T *qkv, const float *of_rows, const Tile *tiles, u32 heads,
                               u32 d, float scale, float root) {
    SHARED_AT_LAUNCH(float, shared); // [keys, values, queries, gradients][SIDE][width]
    SHARED(float[SIDE][SIDE + 1], weights);
    SHARED(float[SIDE][SIDE + 1], dscores);
    SHARED(float[SIDE][OF_ROW], of_queries);
    float *keys = shared, *values = keys + SIDE * width_of(d), *queries = values + SIDE * width_of(d);
    float *gradients = queries + SIDE * width_of(d);
    const u32 head = blockIdx.x % heads;
    const Tile tile = tiles[blockIdx.x / heads];
    const float slope = slope_of(tiles, head, heads);
    const u32 count = tile.end - tile.row, rows = min(SIDE, count), row = row_of_lane();
    const T *query = qkv + query_at(tile.row, head, heads, d);
    load_rows(keys, query + d, heads * 3 * d, rows, d);
    load_rows(values, query + 2 * d, heads * 3 * d, rows, d);
    float dkeys[MOST] = {}, dvalues[MOST] = {};
#pragma unroll 1
    for (u32 from = 0; from < count; from += SIDE) {
        const u64 at = (u64)(tile.row + from) * heads + head;
        barrier();
        load_rows(queries, query + (u64)from * heads * 3 * d, heads * 3 * d, count - from, d);
        load_rows(gradients, dout + at * d, heads * d, count - from, d);
        // Zeros past the end: no share of any weight.
        of_queries[row][part()] = row < count - from ? of_rows[(at + (u64)row * heads) * OF_ROW + part()] : 0.0f;
        barrier();
        float s[8], dweights[8];
        multiply_rows(s, keys + row * width_of(d), queries, d);
        multiply_rows(dweights, values + row * width_of(d), gradients, d);
#pragma unroll
        for (u32 k = 0; k < 8; k++) {
            const u32 column = part() + 4 * k;
            const float distance = static_cast<float>(static_cast<int>(row - from - column));
            const float above = score(s[k], distance, scale, slope) - of_queries[column][0];
            const float weight = distance > 0.0f ? 0.0f : exp2_fast(above) * of_queries[column][1];
            weights[row][column] = weight;
            dscores[row][column] = weight * (dweights[k] - of_queries[column][2]);
        }
        warp_barrier();
        add_weighted(dvalues, weights[row], gradients, d);
        add_weighted(dkeys, dscores[row], queries, d);
    }
    if (row >= rows) return;
    T *to = dqkv + query_at(tile.row + row, head, heads, d);
    write_row(to + d, dkeys, root, d);
    write_row(to + 2 * d, dvalues, 1.0f, d);
}

#define ENTRIES(NAME, T)                                                                                                 \
    KERNEL(128) attention_forward_plain_##NAME(T *out, float *stats, const T *qkv, const Tile *tiles, const u64 *caches, \
                                               u32 heads, u32 d, float scale) {                                          \
        attend(out, stats, qkv, tiles, caches, heads, d, scale);                                                         \
    }                                                                                                                    \
    KERNEL(128) attention_backward_queries_plain_##NAME(T *dqkv, float *of_rows, const T *dout, const T *qkv,            \
                                                        const T *out, const float *stats, const Tile *tiles, u32 heads,  \
                                                        u32 d, float scale, float root) {                                \
        differentiate_queries(dqkv, of_rows, dout, qkv, out, stats, tiles, heads, d, scale, root);                       \
    }                                                                                                                    \
    KERNEL(128) attention_backward_keys_plain_##NAME(T *dqkv, const T *dout, const T *qkv, const float *of_rows,         \
                                                     const Tile *tiles, u32 heads, u32 d, float scale, float root) {     \
        differentiate_keys(dqkv, dout, qkv, of_rows, tiles, heads, d, scale, root);                                      \
    }

ENTRIES(f32, float)
ENTRIES(bf16, bf16)
