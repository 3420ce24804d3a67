// A product of two bf16 matrices as in `tensor_core.cuh`, for compute capability 9.0: a block of two groups of four warps makes a tile
// of 128 × 128, each group half of its rows. Tiles of the factors, 64 products deep, come to shared memory as boxes, four at a time.
//
// An element's sum is taken in order of the products, 16 at a time, wherever in a tile it lies.
#include "hopper.cuh"
#include "product.cuh"

const u32 THREADS = 256, DEPTH = 64, STAGES = 4, LINE = 64;
const u32 FACTOR = TILE * DEPTH; // elements of a tile of one factor
const u32 HALF = FACTOR / 2;     // a box: ALONG 64 rows, ACROSS the products of 64 rows
const u32 LINES = 8 * LINE * sizeof(bf16);
static_assert(HALF * sizeof(bf16) == BOX, "a tile is two boxes");

// A factor has a map, or an address if its rows begin where no map can have them, which is null otherwise.
struct Source : Factor<bf16> {
    const Map &map;
};

// Begins to copy the tile at row (column) `first` of the result and product `begin`; zeros beyond the ends. ALONG it has 128 lines of
// 64 products, ACROSS two times 64 lines of 64 rows.
template <Layout LAYOUT>
DEVICE void fill(bf16 *tile, const Source &factor, u32 first, u32 begin, u32 end, u64 *arrivals) {
    if (!factor.from) {
        if (threadIdx.x > 0) return;
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 row = first + half * TILE / 2;
            copy_box(tile + half * HALF, factor.map, LAYOUT == ALONG ? row : begin, LAYOUT == ALONG ? begin : row, arrivals);
        }
        return;
    }
    const u32 WIDTH = LAYOUT == ALONG ? DEPTH : TILE;
    const u32 width = LAYOUT == ALONG ? factor.k : factor.count;
    const u32 line = LAYOUT == ALONG ? first : begin, lines = LAYOUT == ALONG ? factor.count : end;
    const u32 column = LAYOUT == ALONG ? begin : first, columns = LAYOUT == ALONG ? end : factor.count;
#pragma unroll 4
    for (u32 at = threadIdx.x; at < FACTOR; at += THREADS) {
        const u32 i = at / WIDTH, j = at % WIDTH;
        bf16 *to = tile + j / LINE * HALF + i * LINE + (j % LINE / 8 ^ i % 8) * 8 + j % 8;
        *to = line + i < lines && column + j < columns ? factor.from[(u64)(line + i) * width + column + j] : bf16{0};
    }
}

// The 16 products from `depth` on.
template <Layout LAYOUT>
DEVICE u64 operand(const bf16 *tile, u32 depth) {
    return LAYOUT == ALONG ? descriptor(tile + depth, 16, LINES)
                           : descriptor(tile + depth * LINE, HALF * sizeof(bf16), LINES);
}

template <Layout LEFT, Layout RIGHT>
DEVICE void hopper_product(const Finish<bf16> &to, const Source &left, const Source &right, const Part &part) {
    TILES_AT_LAUNCH(memory); // [STAGES][2][FACTOR]
    SHARED(u64[STAGES], arrivals);
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < STAGES; stage++) arrivals_make(&arrivals[stage]);
        publish();
    }
    barrier();
    const u32 group = warp() / 4;
    const u32 tiles = part.begin < part.end ? (part.end - part.begin + DEPTH - 1) / DEPTH : 0;
    const u32 boxes = (left.from ? 0 : 2) + (right.from ? 0 : 2);
    const auto fill_stage = [&](u32 tile) {
        if (tile >= tiles) return;
        bf16 *stage = memory + tile % STAGES * 2 * FACTOR;
        u64 *arrival = &arrivals[tile % STAGES];
        if (threadIdx.x == 0) arrivals_expect(arrival, boxes * BOX);
        fill<LEFT>(stage, left, part.row, part.begin + tile * DEPTH, part.end, arrival);
        fill<RIGHT>(stage + FACTOR, right, part.column, part.begin + tile * DEPTH, part.end, arrival);
    };
    float sums[64];
#pragma unroll
    for (u32 i = 0; i < 64; i++) sums[i] = 0.0f;
    for (u32 tile = 0; tile < STAGES - 1; tile++) fill_stage(tile);
#pragma unroll 1
    for (u32 tile = 0; tile < tiles; tile++) {
        arrivals_wait(&arrivals[tile % STAGES], tile / STAGES);
        if (boxes < 4) publish();
        barrier(); // the tile at hand is there for all, and all are done with the one before it
        const bf16 *a = memory + tile % STAGES * 2 * FACTOR, *b = a + FACTOR;
        products_begin(sums);
#pragma unroll
        for (u32 depth = 0; depth < DEPTH; depth += 16)
            multiply_add_group<LEFT, RIGHT>(sums, operand<LEFT>(a + group * HALF, depth), operand<RIGHT>(b, depth));
        products_commit();
        fill_stage(tile + STAGES - 1);
        products_wait(sums);
    }
    barrier(); // the sums go where the factors were
    float *all = reinterpret_cast<float *>(memory); // [TILE, SUMS]
#pragma unroll
    for (u32 j = 0; j < 16; j++) {
        float *at = all + (16 * warp() + lane() / 4) * SUMS + 8 * j + lane() % 4 * 2;
        const float upper[2] = {sums[4 * j], sums[4 * j + 1]}, lower[2] = {sums[4 * j + 2], sums[4 * j + 3]};
        store(at, upper);
        store(at + 8 * SUMS, lower);
    }
    finish_tile(to, all, part, left.count);
}

#define PRODUCT(NAME, LEFT, RIGHT)                                                                                       \
    KERNEL(THREADS) linear_hopper_##NAME(void *y, bf16 *pre, const bf16 *left, const bf16 *right, const float *bias,     \
                                         const bf16 *residual, u32 rows, u32 n, u32 k, u32 depth, u32 flags,             \
                                         GIVEN Map left_map, GIVEN Map right_map) {                                      \
        const u64 size = flags & F32 ? sizeof(float) : sizeof(bf16);                                                     \
        y = static_cast<u8 *>(y) + blockIdx.z * size * rows * n;                                                         \
        hopper_product<LEFT, RIGHT>(Finish<bf16>{y, pre, bias, residual, n, flags}, Source{{left, rows, k}, left_map},   \
                                    Source{{right, n, k}, right_map}, part(rows, n, k, depth));                          \
    }

PRODUCT(forward, ALONG, ALONG)
PRODUCT(backward_input, ALONG, ACROSS)
PRODUCT(backward_weight, ACROSS, ACROSS)
