// The linear layer. The storage of activations comes first in a kernel's name, then that of the weights.
#include "few_rows.cuh"
#include "plain.cuh"
#include "tensor_core.cuh"

// y [rows, n] of two factors with k products, `depth` of them for each blockIdx.z, each of which has a y of its own.
#define PRODUCT(THREADS, HOW, NAME, LEFT, RIGHT, T, W)                                                                   \
    KERNEL(THREADS) linear_##NAME(void *y, T *pre, const T *left, const W *right, const float *bias, const T *residual,  \
                                  u32 rows, u32 n, u32 k, u32 depth, u32 flags) {                                       \
        const u64 size = flags & F32 ? sizeof(float) : sizeof(T);                                                        \
        y = static_cast<u8 *>(y) + blockIdx.z * size * rows * n;                                                         \
        HOW<LEFT, RIGHT>(Finish<T>{y, pre, bias, residual, n, flags}, Factor<T>{left, rows, k}, Factor<W>{right, n, k},  \
                         part(rows, n, k, depth));                                                                       \
    }

PRODUCT(TENSOR_THREADS, tensor_product, forward_bf16_bf16, ALONG, ALONG, bf16, bf16)
PRODUCT(TENSOR_THREADS, tensor_product, backward_input_bf16_bf16, ALONG, ACROSS, bf16, bf16)
PRODUCT(TENSOR_THREADS, tensor_product, backward_weight_bf16_bf16, ACROSS, ACROSS, bf16, bf16)
PRODUCT(PLAIN_THREADS, plain_product, forward_f32_f32, ALONG, ALONG, float, float)
PRODUCT(PLAIN_THREADS, plain_product, forward_f32_bf16, ALONG, ALONG, float, bf16)
PRODUCT(PLAIN_THREADS, plain_product, backward_input_f32_f32, ALONG, ACROSS, float, float)
PRODUCT(PLAIN_THREADS, plain_product, backward_input_f32_bf16, ALONG, ACROSS, float, bf16)
PRODUCT(PLAIN_THREADS, plain_product, backward_weight_f32_f32, ACROSS, ACROSS, float, float)

// FEW rows at a time; N numbers at a time where rows begin at a multiple of 16 bytes.
#define FEW_ROWS(FEW, NAME, T, W)                                                                                        \
    KERNEL(FEW_THREADS) linear_##FEW##_rows_##NAME(void *y, const T *x, const W *w, const float *bias,                   \
                                                   const T *residual, u32 rows, u32 n, u32 k, u32 flags) {              \
        const Finish<T> to = {y, nullptr, bias, residual, n, flags};                                                     \
        if (k % Wide<W>::N == 0)                                                                                         \
            few_rows<FEW, Wide<W>::N>(to, x, w, rows, k);                                                                \
        else                                                                                                             \
            few_rows<FEW, 1>(to, x, w, rows, k);                                                                         \
    }

FEW_ROWS(4, f32_f32, float, float)
FEW_ROWS(4, f32_bf16, float, bf16)
FEW_ROWS(4, bf16_bf16, bf16, bf16)
FEW_ROWS(16, f32_f32, float, float)
FEW_ROWS(16, f32_bf16, float, bf16)
FEW_ROWS(16, bf16_bf16, bf16, bf16)

// dx = dy · gelu'(pre), `count` numbers.
template <class T>
DEVICE void differentiate_gelu(T *dx, const T *dy, const T *pre, u32 count) {
    const u32 N = Wide<T>::N;
    const u64 at = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (at + N <= count) {
        float d[N], v[N];
        load(dy + at, d);
        load(pre + at, v);
        for (u32 i = 0; i < N; i++) d[i] *= gelu_slope(v[i]);
        store(dx + at, d);
    } else {
        for (u64 i = at; i < count; i++) dx[i] = narrow<T>(widen(dy[i]) * gelu_slope(widen(pre[i])));
    }
}

// Rows of a block that sums columns.
const u32 CHUNK = 256;

// The sums of 32 columns (blockIdx.y) over a chunk of rows (blockIdx.x) of dy [t, n], parts [chunks, n]. A warp sums every eighth
// row, and the first warp sums those.
template <class T>
DEVICE void sum_columns(float *parts, const T *dy, u32 t, u32 n) {
    SHARED(float[8][32], sums);
    const u32 column = blockIdx.y * 32 + lane(), end = min((blockIdx.x + 1) * CHUNK, t);
    float sum = 0.0f;
    if (column < n) {
#pragma unroll 8
        for (u32 row = blockIdx.x * CHUNK + warp(); row < end; row += 8) sum += widen(dy[(u64)row * n + column]);
    }
    sums[warp()][lane()] = sum;
    barrier();
    if (warp() == 0 && column < n) {
        for (u32 i = 1; i < 8; i++) sum += sums[i][lane()];
        parts[(u64)blockIdx.x * n + column] = sum;
    }
}

// Columns of a row that a block finishes.
const u32 FINISHED = 1024;

#define BY_ELEMENT(NAME, T)                                                                                              \
    KERNEL(256) linear_gelu_backward_##NAME(T *dx, const T *dy, const T *pre, u32 count) {                               \
        differentiate_gelu(dx, dy, pre, count);                                                                          \
    }                                                                                                                    \
    KERNEL(256) linear_sum_columns_##NAME(float *parts, const T *dy, u32 t, u32 n) { sum_columns(parts, dy, t, n); }     \
    KERNEL(256) linear_finish_##NAME(void *y, T *pre, const float *sums, const float *bias, const T *residual, u32 rows, \
                                     u32 n, u32 flags) {                                                                \
        const u32 row = blockIdx.x, column = blockIdx.y * FINISHED + 4 * threadIdx.x;                                    \
        if (row < rows && column < n)                                                                                    \
            finish_some(Finish<T>{y, pre, bias, residual, n, flags}, row, column, sums + (u64)row * n + column);          \
    }

BY_ELEMENT(f32, float)
BY_ELEMENT(bf16, bf16)

// to [n] += the sum of parts [count, n] in order.
KERNEL(256) linear_add_parts(float *to, const float *parts, u32 count, u32 n) {
    const u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float sum = 0.0f;
        for (u32 part = 0; part < count; part++) sum += parts[part * (u64)n + i];
        to[i] += sum;
    }
}
