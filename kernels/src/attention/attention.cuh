// What all kernels of attention share. Scores are in units of ln 2, so that the softmax is made of powers of two:
// s = (q · k / √d + slope · (j − i)) · log₂ e; `scale` and the slopes come with that factor.
#pragma once
#include "device.cuh"

// The rows from `row` on, up to `end`, where their document ends. `position` is the first one's place among the keys of
// its document, which is not row − start where keys are in a cache. A block takes as many of the rows as it can.
struct Tile {
    u32 row, end, position, document;
};

// A block is for one head of one tile. The heads' slopes follow the tiles.
DEVICE float slope_of(const Tile *tiles, u32 head, u32 heads) {
    return reinterpret_cast<const float *>(tiles + gridDim.x / heads)[head];
}

// Where a row's query of a head begins in qkv [t, h, 3, d]; its key and its value follow.
DEVICE u64 query_at(u32 row, u32 head, u32 heads, u32 d) { return ((u64)row * heads + head) * 3 * d; }

// The keys of a head from the document's first one, `stride` apart. The value is behind the key, both in qkv and in a cache
// [tokens, h, 2, d].
template <class T>
struct Keys {
    const T *first;
    u32 stride;
};
template <class T>
DEVICE Keys<T> keys_of(const Tile &tile, const T *qkv, const u64 *caches, u32 head, u32 heads, u32 d) {
    if (caches) return {reinterpret_cast<const T *>(caches[tile.document]) + head * 2 * d, heads * 2 * d};
    return {qkv + query_at(tile.row - tile.position, head, heads, d) + d, heads * 3 * d};
}

// The score of a query with a key that is `distance` after it (0 or less, if it sees it).
DEVICE float score(float product, float distance, float scale, float slope) {
    return fmaf(product, scale, slope * distance);
}

DEVICE float minus_infinity() { return __uint_as_float(0xFF800000u); }

// Over the four lanes that share a row.
DEVICE float row_sum(float x) {
    x += shuffle_xor(x, 1);
    return x + shuffle_xor(x, 2);
}
DEVICE float row_max(float x) {
    x = fmaxf(x, shuffle_xor(x, 1));
    return fmaxf(x, shuffle_xor(x, 2));
}

// What the backward passes want of a row and head, [t, h, 4]: the largest score, 1 / Σ 2^(s − largest), Σ dout ∘ out, nothing.
const u32 OF_ROW = 4;
