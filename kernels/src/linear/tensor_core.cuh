// A product of two bf16 matrices on tensor cores, f32 sums: a block of 4 warps makes a tile of 128 × 128, each warp a quarter of
// it in registers. Tiles of the factors, 64 products deep, come to shared memory by asynchronous copies, three at a time.
//
// An element's sum is taken in order of the products, 16 at a time, wherever in a tile it lies.
#pragma once
#include "product.cuh"

const u32 TENSOR_THREADS = 128, DEPTH = 64, STAGES = 3;
const u32 FACTOR = TILE * DEPTH; // elements of a tile of one factor

// Where in a tile 8 elements lie, `chunk` of them along row `row`: the chunks of 8 rows are permuted such that what a warp loads at
// a time, 8 rows at one chunk, comes from all banks.
template <Layout LAYOUT>
DEVICE u32 place(u32 row, u32 chunk) {
    return row * (LAYOUT == ALONG ? DEPTH : TILE) + (chunk ^ row % 8) * 8;
}

// Begins to copy the tile at row (column) `first` of the result and product `begin`; zeros beyond the ends.
template <Layout LAYOUT>
DEVICE void fill(bf16 *tile, const Factor<bf16> &factor, u32 first, u32 begin, u32 end) {
    const u32 CHUNKS = (LAYOUT == ALONG ? DEPTH : TILE) / 8;
    const u32 width = LAYOUT == ALONG ? factor.k : factor.count;
    const u32 line = LAYOUT == ALONG ? first : begin, lines = LAYOUT == ALONG ? factor.count : end;
    const u32 column = LAYOUT == ALONG ? begin : first, columns = LAYOUT == ALONG ? end : factor.count;
    if (width % 8 == 0) {
        // A thread stays at its chunk; its rows are a multiple of 8 apart, so that they are permuted alike.
        const u32 STEP = TENSOR_THREADS / CHUNKS, row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        bf16 *to = tile + place<LAYOUT>(row, chunk);
        const bf16 *from = factor.from + (u64)(line + row) * width + column + 8 * chunk;
        const u64 step = (u64)STEP * width;
        // The first of its rows that is not there.
        const u32 end_row = column + 8 * chunk < columns ? lines : 0;
#pragma unroll
        for (u32 i = 0; i < FACTOR / 8 / TENSOR_THREADS; i++) {
            copy_async(to + i * STEP * (8 * CHUNKS), from, line + row + i * STEP < end_row);
            from += step;
        }
        return;
    }
    // Rows that begin anywhere.
#pragma unroll 1
    for (u32 at = threadIdx.x; at < FACTOR / 8; at += TENSOR_THREADS) {
        const u32 row = at / CHUNKS, chunk = at % CHUNKS;
        const bf16 *from = factor.from + (u64)(line + row) * width + column + 8 * chunk;
        bf16 *to = tile + place<LAYOUT>(row, chunk);
#pragma unroll
        for (u32 i = 0; i < 8; i++)
            to[i] = line + row < lines && column + 8 * chunk + i < columns ? from[i] : bf16{0};
    }
}

// The operands of a tensor core at `row` and the 16 products from `depth` on: 16 rows of the left factor; 16 columns of the right
// one, as two operands.
template <Layout LAYOUT>
DEVICE void load_left(u32 (&parts)[4], const bf16 *tile, u32 row, u32 depth) {
    const u32 matrix = lane() / 8, line = lane() % 8;
    if (LAYOUT == ALONG)
        load_matrices(parts, tile + place<LAYOUT>(row + matrix % 2 * 8 + line, depth / 8 + matrix / 2));
    else
        load_matrices_transposed(parts, tile + place<LAYOUT>(depth + matrix / 2 * 8 + line, row / 8 + matrix % 2));
}
template <Layout LAYOUT>
DEVICE void load_right(u32 (&parts)[4], const bf16 *tile, u32 column, u32 depth) {
    const u32 matrix = lane() / 8, line = lane() % 8;
    if (LAYOUT == ALONG)
        load_matrices(parts, tile + place<LAYOUT>(column + matrix / 2 * 8 + line, depth / 8 + matrix % 2));
    else
        load_matrices_transposed(parts, tile + place<LAYOUT>(depth + matrix % 2 * 8 + line, column / 8 + matrix / 2));
}

// A warp's operands for 16 products.
struct Operands {
    u32 left[4][4], right[4][4];
};
template <Layout LEFT, Layout RIGHT>
DEVICE void load_operands(Operands &to, const bf16 *left, const bf16 *right, u32 row, u32 column, u32 depth) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) load_left<LEFT>(to.left[i], left, row + 16 * i, depth);
#pragma unroll
    for (u32 i = 0; i < 4; i++) load_right<RIGHT>(to.right[i], right, column + 16 * i, depth);
}

template <Layout LEFT, Layout RIGHT>
DEVICE void tensor_product(const Finish<bf16> &to, const Factor<bf16> &left, const Factor<bf16> &right, const Part &part) {
    SHARED_AT_LAUNCH(bf16, memory); // [STAGES][2][FACTOR]
    const u32 row = warp() / 2 * 64, column = warp() % 2 * 64;
    const u32 tiles = part.begin < part.end ? (part.end - part.begin + DEPTH - 1) / DEPTH : 0;
    const auto fill_stage = [&](u32 tile) {
        if (tile < tiles) {
            bf16 *stage = memory + tile % STAGES * 2 * FACTOR;
            fill<LEFT>(stage, left, part.row, part.begin + tile * DEPTH, part.end);
            fill<RIGHT>(stage + FACTOR, right, part.column, part.begin + tile * DEPTH, part.end);
        }
        copy_commit();
    };
    float sums[4][8][4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
        for (u32 j = 0; j < 8; j++) sums[i][j][0] = sums[i][j][1] = sums[i][j][2] = sums[i][j][3] = 0.0f;
    }
    // The first rounds only begin to copy.
#pragma unroll 1
    for (u32 round = 0; round < tiles + STAGES - 1; round++) {
        if (round >= STAGES - 1) {
            copy_wait<STAGES - 2>();
            barrier(); // the tile at hand is there for all, and all are done with the one before it
        }
        fill_stage(round);
        if (round < STAGES - 1) continue;
        const u32 tile = round - (STAGES - 1);
        const bf16 *a = memory + tile % STAGES * 2 * FACTOR, *b = a + FACTOR;
        Operands operands[2];
        load_operands<LEFT, RIGHT>(operands[0], a, b, row, column, 0);
#pragma unroll
        for (u32 step = 0; step < DEPTH / 16; step++) {
            const Operands &now = operands[step % 2];
            if (step + 1 < DEPTH / 16)
                load_operands<LEFT, RIGHT>(operands[(step + 1) % 2], a, b, row, column, 16 * (step + 1));
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
#pragma unroll
                for (u32 j = 0; j < 8; j++) {
                    const u32 right[2] = {now.right[j / 2][j % 2 * 2], now.right[j / 2][j % 2 * 2 + 1]};
                    multiply_add(sums[i][j], now.left[i], right);
                }
            }
        }
    }
    barrier(); // the sums go where the factors were
    float *all = reinterpret_cast<float *>(memory); // [TILE, SUMS]
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            float *at = all + (row + 16 * i + lane() / 4) * SUMS + column + 8 * j + lane() % 4 * 2;
            const float upper[2] = {sums[i][j][0], sums[i][j][1]}, lower[2] = {sums[i][j][2], sums[i][j][3]};
            store(at, upper);
            store(at + 8 * SUMS, lower);
        }
    }
    finish_tile(to, all, part, left.count);
}
