// Layer normalisation, a block for each row or for a chunk of rows. T is the storage of the rows, W of gamma and beta.
#include "device.cuh"

// y = gamma · x̂ + beta of one row, N numbers at a time; mean and 1 / √(variance + eps) to stats. The row comes from memory
// once, then from the cache.
template <u32 N, class T, class W>
DEVICE void normalise(T *y, float *stats, const T *x, const W *gamma, const W *beta, u32 c, float eps) {
    const u32 first = threadIdx.x * N, stride = blockDim.x * N;
    float sum[1] = {0.0f};
#pragma unroll 1
    for (u32 i = first; i < c; i += stride) {
        float v[N];
        load(x + i, v);
        for (u32 j = 0; j < N; j++) sum[0] += v[j];
    }
    block_sum(sum);
    const float mean = sum[0] / c;
    sum[0] = 0.0f;
#pragma unroll 1
    for (u32 i = first; i < c; i += stride) {
        float v[N];
        load(x + i, v);
        for (u32 j = 0; j < N; j++) sum[0] = fmaf(v[j] - mean, v[j] - mean, sum[0]);
    }
    block_sum(sum);
    const float inverse = 1.0f / sqrtf(sum[0] / c + eps);
#pragma unroll 1
    for (u32 i = first; i < c; i += stride) {
        float v[N], g[N], b[N];
        load(x + i, v);
        load(gamma + i, g);
        load(beta + i, b);
        for (u32 j = 0; j < N; j++) v[j] = fmaf((v[j] - mean) * inverse, g[j], b[j]);
        store(y + i, v);
    }
    if (threadIdx.x == 0) {
        stats[0] = mean;
        stats[1] = inverse;
    }
}

// sum = x + residual of one row.
template <u32 N, class T>
DEVICE void add(T *sum, const T *x, const T *residual, u32 c) {
#pragma unroll 1
    for (u32 i = threadIdx.x * N; i < c; i += blockDim.x * N) {
        float v[N], r[N];
        load(x + i, v);
        load(residual + i, r);
        for (u32 j = 0; j < N; j++) v[j] += r[j];
        store(sum + i, v);
    }
}

// Rows of a block of the backward pass, whose part of dgamma and dbeta is summed in their order.
const u32 ROWS = 32;

// dx of rows first … end - 1, and the rows' part of dgamma and dbeta, [2, c].
template <u32 N, class T, class W>
DEVICE void differentiate(T *dx, float *parts, const T *dy, const T *x, const W *gamma, const float *stats, u32 begin,
                          u32 end, u32 c) {
    SHARED_AT_LAUNCH(float, sums); // [2, c]; each thread keeps to its own columns
    const u32 first = threadIdx.x * N, stride = blockDim.x * N;
#pragma unroll 1
    for (u32 i = first; i < c; i += stride) {
        for (u32 j = 0; j < N; j++) sums[i + j] = sums[c + i + j] = 0.0f;
    }
    for (u32 row = begin; row < end; row++) {
        const u64 at = (u64)row * c;
        const float mean = stats[2 * (u64)row], inverse = stats[2 * (u64)row + 1];
        float means[2] = {0.0f, 0.0f};
#pragma unroll 1
        for (u32 i = first; i < c; i += stride) {
            float d[N], v[N], g[N];
            load(dy + at + i, d);
            load(x + at + i, v);
            load(gamma + i, g);
            for (u32 j = 0; j < N; j++) {
                means[0] += d[j] * g[j];
                means[1] = fmaf(d[j] * g[j], (v[j] - mean) * inverse, means[1]);
            }
        }
        block_sum(means);
        const float mean_g = means[0] / c, mean_gx = means[1] / c;
#pragma unroll 1
        for (u32 i = first; i < c; i += stride) {
            float d[N], v[N], g[N];
            load(dy + at + i, d);
            load(x + at + i, v);
            load(gamma + i, g);
            for (u32 j = 0; j < N; j++) {
                const float normed = (v[j] - mean) * inverse;
                sums[i + j] = fmaf(d[j], normed, sums[i + j]);
                sums[c + i + j] += d[j];
                v[j] = (d[j] * g[j] - mean_g - normed * mean_gx) * inverse;
            }
            store(dx + at + i, v);
        }
    }
#pragma unroll 1
    for (u32 i = first; i < c; i += stride) {
        for (u32 j = 0; j < N; j++) {
            parts[i + j] = sums[i + j];
            parts[c + i + j] = sums[c + i + j];
        }
    }
}

// N numbers at a time where rows begin at a multiple of 16 bytes.
#define ENTRIES(T_NAME, T, W_NAME, W)                                                                                    \
    KERNEL(256) layer_norm_forward_##T_NAME##_##W_NAME(T *y, float *stats, const T *x, const W *gamma, const W *beta,    \
                                                       u32 c, float eps) {                                              \
        const u64 at = (u64)blockIdx.x * c, row = 2 * (u64)blockIdx.x;                                                   \
        if (c % Wide<T>::N == 0)                                                                                         \
            normalise<Wide<T>::N>(y + at, stats + row, x + at, gamma, beta, c, eps);                                     \
        else                                                                                                             \
            normalise<1>(y + at, stats + row, x + at, gamma, beta, c, eps);                                              \
    }                                                                                                                    \
    KERNEL(256) layer_norm_add_forward_##T_NAME##_##W_NAME(T *sum, T *y, float *stats, const T *x, const T *residual,    \
                                                           const W *gamma, const W *beta, u32 c, float eps) {           \
        const u64 at = (u64)blockIdx.x * c, row = 2 * (u64)blockIdx.x;                                                   \
        if (c % Wide<T>::N == 0) {                                                                                       \
            add<Wide<T>::N>(sum + at, x + at, residual + at, c);                                                         \
            normalise<Wide<T>::N>(y + at, stats + row, sum + at, gamma, beta, c, eps);                                   \
        } else {                                                                                                         \
            add<1>(sum + at, x + at, residual + at, c);                                                                  \
            normalise<1>(y + at, stats + row, sum + at, gamma, beta, c, eps);                                            \
        }                                                                                                                \
    }                                                                                                                    \
    KERNEL(256) layer_norm_backward_##T_NAME##_##W_NAME(T *dx, float *parts, const T *dy, const T *x, const W *gamma,    \
                                                        const float *stats, u32 t, u32 c) {                             \
        const u32 begin = blockIdx.x * ROWS, end = min(begin + ROWS, t);                                                 \
        parts += (u64)blockIdx.x * 2 * c;                                                                                \
        if (c % Wide<T>::N == 0)                                                                                         \
            differentiate<Wide<T>::N>(dx, parts, dy, x, gamma, stats, begin, end, c);                                    \
        else                                                                                                             \
            differentiate<1>(dx, parts, dy, x, gamma, stats, begin, end, c);                                             \
    }

ENTRIES(f32, float, f32, float)
ENTRIES(f32, float, bf16, bf16)
ENTRIES(bf16, bf16, f32, float)
ENTRIES(bf16, bf16, bf16, bf16)

// dgamma and dbeta [c] += the sum over the chunks of parts [chunks, 2, c]. A block sums 32 columns, each of its warps every
// so manyth chunk, and the first warp sums those.
KERNEL(1024) layer_norm_add_parts(float *dgamma, float *dbeta, const float *parts, u32 chunks, u32 c) {
    SHARED(float[32][32], sums);
    const u32 column = blockIdx.x * 32 + lane(), warps = blockDim.x / 32;
    float sum = 0.0f;
    if (column < 2 * c) {
        for (u32 chunk = warp(); chunk < chunks; chunk += warps) sum += parts[(u64)chunk * 2 * c + column];
    }
    sums[warp()][lane()] = sum;
    barrier();
    if (warp() == 0 && column < 2 * c) {
        for (u32 i = 1; i < warps; i++) sum += sums[i][lane()];
        if (column < c)
            dgamma[column] += sum;
        else
            dbeta[column - c] += sum;
    }
}
