// What becomes of the sums of a product: bias, residual, GELU, and where they go.
#pragma once
#include "device.cuh"

// Bits of `flags`: GELU at the end; y is f32 whatever T is; the sums are added to y, which is f32 then.
const u32 GELU = 1, F32 = 2, ADD = 4;

// T is the storage of y, pre (the sums before GELU; may be missing) and residual (may be missing), all [rows, n]; the bias [n]
// may be missing.
template <class T>
struct Finish {
    void *y;
    T *pre;
    const float *bias;
    const T *residual;
    u32 n, flags;
};

// e^(-2u) with u = 0.79788456 x (1 + 0.044715 x²): GELU's tanh form, x/2 · (1 + tanh u), is x / (1 + e^(-2u)), which does not
// cancel for negative x.
DEVICE float decay(float x) { return exp2_fast(-2.302208198f * x * fmaf(0.044715f * x, x, 1.0f)); }

DEVICE float gelu(float x) { return x / (1.0f + decay(x)); }

DEVICE float gelu_slope(float x) {
    // Beyond ±10 the slope is 1, or 0 to within 1e-35; before, e^(-2u) is finite.
    x = fminf(fmaxf(x, -10.0f), 10.0f);
    const float e = decay(x), s = 1.0f / (1.0f + e);
    // s + 2x · s · (1 - s) · (0.79788456 + 0.107032225 x²), and 1 - s = e · s.
    return s * fmaf(2.0f * x * (e * s), fmaf(0.107032225f * x, x, 0.7978846f), 1.0f);
}

// Takes N sums of a row, from `column` on.
template <u32 N, class T>
DEVICE void finish(const Finish<T> &to, u32 row, u32 column, float (&sums)[N]) {
    const u64 at = (u64)row * to.n + column;
    float other[N];
    if (to.bias) {
        load(to.bias + column, other);
        for (u32 i = 0; i < N; i++) sums[i] += other[i];
    }
    if (to.pre) store(to.pre + at, sums);
    if (to.residual) {
        load(to.residual + at, other);
        for (u32 i = 0; i < N; i++) sums[i] += other[i];
    }
    if (to.flags & GELU) {
        for (u32 i = 0; i < N; i++) sums[i] = gelu(sums[i]);
    }
    if (to.flags & F32) {
        float *y = static_cast<float *>(to.y) + at;
        if (to.flags & ADD) {
            load(y, other);
            for (u32 i = 0; i < N; i++) sums[i] = other[i] + sums[i];
        }
        store(y, sums);
    } else {
        store(static_cast<T *>(to.y) + at, sums);
    }
}

// Takes four sums of a row, of which those below n are there. The columns before them are a multiple of 4.
template <class T>
DEVICE void finish_some(const Finish<T> &to, u32 row, u32 column, const float *from) {
    if (to.n % 4 == 0) {
        float sums[4];
        load(from, sums);
        if (column < to.n) finish(to, row, column, sums);
        return;
    }
#pragma unroll 1
    for (u32 i = 0; i < 4 && column + i < to.n; i++) {
        float sum[1] = {from[i]};
        finish(to, row, column + i, sum);
    }
}
