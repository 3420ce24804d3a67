// What both matrix products share: how their factors lie in memory, and which block makes which tile of the result.
#pragma once
#include "finish.cuh"

// A factor is kept with the products of one row (or column) of the result along a row of memory, or across the rows: ALONG is
// [count, k], ACROSS is [k, count], with `count` the rows (columns) of the result.
enum Layout { ALONG, ACROSS };

template <class T>
struct Factor {
    const T *from;
    u32 count, k;
};

// Rows and columns of the result that a block makes.
const u32 TILE = 128;
// The width of a tile's sums in shared memory: where lanes write pairs of 4 rows at a time, no two meet in a bank.
const u32 SUMS = TILE + 8;
// Rows of tiles whose blocks follow one another, so that what they read stays in the cache.
const u32 GROUP = 8;

// A block's part: the tile's first row and column, and the products that it sums.
struct Part {
    u32 row, column, begin, end;
};

// Tiles go down a group of rows first, then to the right. `depth` products go to each blockIdx.z.
DEVICE Part part(u32 rows, u32 columns, u32 k, u32 depth) {
    const u32 down = (rows + TILE - 1) / TILE, across = (columns + TILE - 1) / TILE;
    const u32 group = blockIdx.x / (GROUP * across), within = blockIdx.x % (GROUP * across);
    const u32 height = min(GROUP, down - group * GROUP);
    const u32 begin = blockIdx.z * depth;
    return {(group * GROUP + within % height) * TILE, within / height * TILE, begin, min(begin + depth, k)};
}

// Takes a tile's sums [TILE, SUMS] out of shared memory, a warp a row.
template <class T>
DEVICE void finish_tile(const Finish<T> &to, const float *sums, const Part &part, u32 rows) {
    barrier();
#pragma unroll 1
    for (u32 i = warp(); i < TILE && part.row + i < rows; i += blockDim.x / 32)
        finish_some(to, part.row + i, part.column + 4 * lane(), sums + i * SUMS + 4 * lane());
}
