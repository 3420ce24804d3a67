// Sums and conversions, each number on its own.
#include "device.cuh"

// Numbers of a block, and those that a thread takes at a time.
const u32 CHUNK = 8192, N = 8;

// Calls `eight(i)` for each eight numbers of the block that are there, and `one(i)` for what is left at the end.
template <class Eight, class One>
DEVICE void each(u32 n, Eight eight, One one) {
    const u64 begin = (u64)blockIdx.x * CHUNK, end = min(begin + CHUNK, (u64)n);
#pragma unroll 1
    for (u64 i = begin + threadIdx.x * N; i < end; i += blockDim.x * N) {
        if (i + N <= end)
            eight(i);
        else
            for (u64 j = i; j < end; j++) one(j);
    }
}

template <class T>
DEVICE void add(T *sum, const T *x, u32 n) {
    each(
        n,
        [=](u64 i) {
            float a[N], b[N];
            load(sum + i, a);
            load(x + i, b);
            for (u32 j = 0; j < N; j++) a[j] += b[j];
            store(sum + i, a);
        },
        [=](u64 i) { sum[i] = narrow<T>(widen(sum[i]) + widen(x[i])); });
}

template <class Y, class X>
DEVICE void convert(Y *y, const X *x, u32 n) {
    each(
        n,
        [=](u64 i) {
            float v[N];
            load(x + i, v);
            store(y + i, v);
        },
        [=](u64 i) { y[i] = narrow<Y>(widen(x[i])); });
}

KERNEL(256) elementwise_add_f32(float *sum, const float *x, u32 n) { add(sum, x, n); }
KERNEL(256) elementwise_add_bf16(bf16 *sum, const bf16 *x, u32 n) { add(sum, x, n); }
KERNEL(256) elementwise_convert_f32_bf16(bf16 *y, const float *x, u32 n) { convert(y, x, n); }
KERNEL(256) elementwise_convert_bf16_f32(float *y, const bf16 *x, u32 n) { convert(y, x, n); }
