// A product of two matrices in f32 without tensor cores: a block of 256 threads makes a tile of 128 × 128, each thread 8 × 8 of it
// in registers. Tiles of the factors, 16 products deep, lie in shared memory; the next ones wait in registers.
//
// An element's sum is taken in order of the products, each fused with the sum.
#pragma once
#include "product.cuh"

const u32 PLAIN_THREADS = 256, PLAIN_DEPTH = 16;

// A thread's part of a tile of a factor, 4 elements along a row of memory, twice.
struct Ahead {
    float numbers[2][4];
};

template <Layout LAYOUT>
DEVICE void find(u32 i, u32 &row, u32 &column) {
    const u32 CHUNKS = (LAYOUT == ALONG ? PLAIN_DEPTH : TILE) / 4, at = i * PLAIN_THREADS + threadIdx.x;
    row = at / CHUNKS;
    column = at % CHUNKS * 4;
}

// Reads the tile at row (column) `first` of the result and product `begin`; zeros beyond the ends.
template <Layout LAYOUT, class T>
DEVICE void fetch(Ahead &to, const Factor<T> &factor, u32 first, u32 begin, u32 end) {
    const u32 width = LAYOUT == ALONG ? factor.k : factor.count;
    const u32 lines = LAYOUT == ALONG ? factor.count : end, columns = LAYOUT == ALONG ? end : factor.count;
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        u32 row, column;
        find<LAYOUT>(i, row, column);
        row += LAYOUT == ALONG ? first : begin;
        column += LAYOUT == ALONG ? begin : first;
        const T *from = factor.from + (u64)row * width + column;
        if (width % 4 == 0 && row < lines && column < columns) {
            load(from, to.numbers[i]);
        } else {
#pragma unroll
            for (u32 j = 0; j < 4; j++)
                to.numbers[i][j] = row < lines && column + j < columns ? widen(from[j]) : 0.0f;
        }
    }
}

// A row for each product; 4 more columns, so that those who write down a column meet in few banks.
typedef float Tile[PLAIN_DEPTH][TILE + 4];

template <Layout LAYOUT>
DEVICE void put(Tile &tile, const Ahead &ahead) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        u32 row, column;
        find<LAYOUT>(i, row, column);
        if (LAYOUT == ALONG) {
#pragma unroll
            for (u32 j = 0; j < 4; j++) tile[column + j][row] = ahead.numbers[i][j];
        } else {
            store(&tile[row][column], ahead.numbers[i]);
        }
    }
}

template <Layout LEFT, Layout RIGHT, class R>
DEVICE void plain_product(const Finish<float> &to, const Factor<float> &left, const Factor<R> &right, const Part &part) {
    SHARED_AT_LAUNCH(float, memory); // the tiles, then the sums
    Tile &lefts = *reinterpret_cast<Tile *>(memory), &rights = *(&lefts + 1);
    // A thread's rows are 4 from `row` on and 4 that are half a tile below; columns likewise.
    const u32 row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    float sums[8][8];
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
#pragma unroll
        for (u32 j = 0; j < 8; j++) sums[i][j] = 0.0f;
    }
    Ahead a, b;
    fetch<LEFT>(a, left, part.row, part.begin, part.end);
    fetch<RIGHT>(b, right, part.column, part.begin, part.end);
#pragma unroll 1
    for (u32 begin = part.begin; begin < part.end; begin += PLAIN_DEPTH) {
        put<LEFT>(lefts, a);
        put<RIGHT>(rights, b);
        barrier();
        fetch<LEFT>(a, left, part.row, begin + PLAIN_DEPTH, part.end);
        fetch<RIGHT>(b, right, part.column, begin + PLAIN_DEPTH, part.end);
#pragma unroll 2
        for (u32 p = 0; p < PLAIN_DEPTH; p++) {
            float x[2][4], y[2][4];
            load(&lefts[p][row], x[0]);
            load(&lefts[p][row + TILE / 2], x[1]);
            load(&rights[p][column], y[0]);
            load(&rights[p][column + TILE / 2], y[1]);
#pragma unroll
            for (u32 i = 0; i < 8; i++) {
#pragma unroll
                for (u32 j = 0; j < 8; j++) sums[i][j] = fmaf(x[i / 4][i % 4], y[j / 4][j % 4], sums[i][j]);
            }
        }
        barrier(); // the next tiles come to the same place
    }
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            float some[4];
            for (u32 c = 0; c < 4; c++) some[c] = sums[i][4 * j + c];
            store(memory + (row + i / 4 * (TILE / 2) + i % 4) * SUMS + column + j * (TILE / 2), some);
        }
    }
    finish_tile(to, memory, part, left.count);
}
