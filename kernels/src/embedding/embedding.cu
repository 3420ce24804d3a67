// Rows of a table by id, and the sums of rows that have one id. T is the storage of the rows.
#include "device.cuh"

// Copies n units.
template <class Unit>
DEVICE void copy(Unit *to, const Unit *from, u32 n) {
#pragma unroll 1
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        check_aligned(from + i, sizeof(Unit));
        to[i] = from[i];
    }
}

// Warps of a block, of which each sums every so manyth row of a group.
const u32 WARPS = 4;

// The sum over i = begin … end - 1 of row order[i] of dy [.., c], at N columns from `column` on: the rows of each warp in order,
// then the warps in order. For all threads of a block; the first warp gets the sum.
template <u32 N, class T>
DEVICE void sum_rows(float (&sum)[N], const T *dy, const u32 *order, u32 begin, u32 end, u32 column, u32 c) {
    SHARED(float[WARPS][N][32], sums);
    for (u32 j = 0; j < N; j++) sum[j] = 0.0f;
    if (column < c) {
#pragma unroll 1
        for (u32 i = begin + warp(); i < end; i += WARPS) {
            float v[N];
            load(dy + (u64)order[i] * c + column, v);
            for (u32 j = 0; j < N; j++) sum[j] += v[j];
        }
    }
    for (u32 j = 0; j < N; j++) sums[warp()][j][lane()] = sum[j];
    barrier();
    if (warp() == 0) {
        for (u32 i = 1; i < WARPS; i++) {
            for (u32 j = 0; j < N; j++) sum[j] += sums[i][j][lane()];
        }
    }
}

// Row ids[group] of dtable [v, c] += the rows of a group, which are order[starts[group] … starts[group + 1] - 1].
template <u32 N, class T>
DEVICE void add_group(float *dtable, const T *dy, const u32 *ids, const u32 *starts, const u32 *order, u32 c) {
    const u32 group = blockIdx.x, column = (blockIdx.y * 32 + lane()) * N;
    float sum[N];
    sum_rows(sum, dy, order, starts[group], starts[group + 1], column, c);
    if (warp() == 0 && column < c) {
        float *to = dtable + (u64)ids[group] * c + column, v[N];
        load(to, v);
        for (u32 j = 0; j < N; j++) v[j] += sum[j];
        store(to, v);
    }
}

// Row blockIdx.x of dx [.., c] = the sum of its rows of dy, which may be none.
template <u32 N, class T>
DEVICE void make_row(T *dx, const T *dy, const u32 *starts, const u32 *order, u32 c) {
    const u32 row = blockIdx.x, column = (blockIdx.y * 32 + lane()) * N;
    float sum[N];
    sum_rows(sum, dy, order, starts[row], starts[row + 1], column, c);
    if (warp() == 0 && column < c) store(dx + (u64)row * c + column, sum);
}

// N numbers at a time where rows begin at a multiple of 16 bytes.
#define ENTRIES(T_NAME, T)                                                                                               \
    KERNEL(256) embedding_forward_##T_NAME(T *y, const T *table, const u32 *ids, u32 c) {                                \
        y += (u64)blockIdx.x * c;                                                                                        \
        table += (u64)ids[blockIdx.x] * c;                                                                               \
        if (c % Wide<T>::N == 0)                                                                                         \
            copy(reinterpret_cast<uint4 *>(y), reinterpret_cast<const uint4 *>(table), c / Wide<T>::N);                  \
        else                                                                                                             \
            copy(y, table, c);                                                                                           \
    }                                                                                                                    \
    KERNEL(128) embedding_backward_##T_NAME(float *dtable, const T *dy, const u32 *ids, const u32 *starts,               \
                                            const u32 *order, u32 c) {                                                   \
        if (c % Wide<T>::N == 0)                                                                                         \
            add_group<Wide<T>::N>(dtable, dy, ids, starts, order, c);                                                    \
        else                                                                                                             \
            add_group<1>(dtable, dy, ids, starts, order, c);                                                             \
    }                                                                                                                    \
    KERNEL(128) embedding_gather_backward_##T_NAME(T *dx, const T *dy, const u32 *starts, const u32 *order, u32 c) {     \
        if (c % Wide<T>::N == 0)                                                                                         \
            make_row<Wide<T>::N>(dx, dy, starts, order, c);                                                              \
        else                                                                                                             \
            make_row<1>(dx, dy, starts, order, c);                                                                       \
    }

ENTRIES(f32, float)
ENTRIES(bf16, bf16)
