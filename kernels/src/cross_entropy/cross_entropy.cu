// Each row's loss and dlogits from its logits, a block for each row.
#include "device.cuh"

// The lowest number: with −∞, exp(x − max) would be NaN where all before was −∞.
const u32 LOWEST = 0xFF7FFFFFu;

// Over the threads of a block; every thread gets it.
DEVICE float block_max(float x) {
    SHARED(float[32], all);
    x = warp_max(x);
    if (lane() == 0) all[warp()] = x;
    barrier();
    return warp_max(lane() < blockDim.x / 32 ? all[lane()] : __uint_as_float(LOWEST));
}

// What gives a row's probabilities: exp(logit − max) / sum.
struct Softmax {
    float max, sum;
};

// Of one row of logits [v], read once, N at a time. Its loss to *loss.
template <u32 N>
DEVICE Softmax softmax(float *loss, const float *logits, u32 target, u32 v) {
    const float wanted = logits[target]; // before others may write to it
    float largest = __uint_as_float(LOWEST), sum[1] = {0.0f};
#pragma unroll 1
    for (u32 i = threadIdx.x * N; i < v; i += blockDim.x * N) {
        float x[N], most = largest;
        load(logits + i, x);
        for (u32 j = 0; j < N; j++) most = fmaxf(most, x[j]);
        if (most > largest) {
            sum[0] *= expf(largest - most);
            largest = most;
        }
        for (u32 j = 0; j < N; j++) sum[0] += expf(x[j] - largest);
    }
    const float most = block_max(largest);
    sum[0] *= expf(largest - most);
    block_sum(sum);
    if (threadIdx.x == 0) *loss = logf(sum[0]) + (most - wanted);
    return {most, sum[0]};
}

// dlogits = scale · (softmax − onehot(target)) of one row, which may be where the logits are.
template <u32 N, class T>
DEVICE void differentiate(T *dlogits, const float *logits, const Softmax &softmax, u32 target, u32 v, float scale) {
    const float share = scale / softmax.sum;
#pragma unroll 1
    for (u32 i = threadIdx.x * N; i < v; i += blockDim.x * N) {
        float x[N];
        load(logits + i, x);
        for (u32 j = 0; j < N; j++) {
            x[j] = expf(x[j] - softmax.max) * share;
            if (i + j == target) x[j] -= scale;
        }
        store(dlogits + i, x);
    }
}

KERNEL(1024) cross_entropy_loss(float *losses, const float *logits, const u32 *targets, u32 v) {
    const u32 row = blockIdx.x;
    logits += (u64)row * v;
    if (v % 4 == 0)
        softmax<4>(losses + row, logits, targets[row], v);
    else
        softmax<1>(losses + row, logits, targets[row], v);
}

template <class T>
DEVICE void gradient(float *losses, T *dlogits, const float *logits, const u32 *targets, u32 v, float scale) {
    const u32 row = blockIdx.x, target = targets[row];
    const u64 at = (u64)row * v;
    if (v % 4 == 0)
        differentiate<4>(dlogits + at, logits + at, softmax<4>(losses + row, logits + at, target, v), target, v, scale);
    else
        differentiate<1>(dlogits + at, logits + at, softmax<1>(losses + row, logits + at, target, v), target, v, scale);
}

// In place.
KERNEL(1024) cross_entropy_gradient_f32(float *losses, float *logits, const u32 *targets, u32 v, float scale) {
    gradient(losses, logits, logits, targets, v, scale);
}
KERNEL(1024) cross_entropy_gradient_bf16(float *losses, bf16 *dlogits, const float *logits, const u32 *targets, u32 v,
                                         float scale) {
    gradient(losses, dlogits, logits, targets, v, scale);
}
