// The norm of all gradients and AdamW's update of all weights, of many tensors in one launch: a table that is an argument says
// where they are and which of the blocks are theirs.
#include "device.cuh"

// Numbers of a block, which are of one tensor.
const u32 CHUNK = 16384;

struct Gradient {
    const float *g;
    u64 n;
    u64 first; // its first block
};
struct Weight {
    float *w;    // or the master of a weight that is stored narrow
    bf16 *value; // and that weight; null for a weight that is its own master
    const float *g;
    float *m, *v;
    u64 n;
    u32 first;
    float keep; // 1 − lr · weight decay
};

// With as many tensors as fit into 4 KiB of arguments.
struct Gradients {
    Gradient all[160];
};
struct Weights {
    Weight all[64];
};

// The tensor of this block: the last of `count` that does not begin after it.
template <class T>
DEVICE u32 mine(const T *all, u32 count) {
    u32 i = 0;
    while (i + 1 < count && all[i + 1].first <= blockIdx.x) i++;
    return i;
}

// The numbers begin … end - 1 of a tensor are this block's.
struct Part {
    u64 begin, end;
};
DEVICE Part part(u64 n, u64 first) {
    const u64 begin = (blockIdx.x - first) * CHUNK;
    return {begin, min(begin + CHUNK, n)};
}

// Over the threads of a block, in a fixed order; every thread gets it.
DEVICE double block_total(double x) {
    SHARED(double[32], sums);
    for (u32 mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    if (lane() == 0) sums[warp()] = x;
    barrier();
    x = lane() < blockDim.x / 32 ? sums[lane()] : 0.0;
    for (u32 mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    return x;
}

// sums[block] = Σ g² of the block's numbers.
KERNEL(256) adamw_squares(double *sums, const Gradients gradients, u32 count) {
    const Gradient tensor = gradients.all[mine(gradients.all, count)];
    const float *g = tensor.g;
    const Part range = part(tensor.n, tensor.first);
    double sum = 0.0;
#pragma unroll 1
    for (u64 i = range.begin + threadIdx.x * 4; i < range.end; i += blockDim.x * 4) {
        float x[4];
        if (i + 4 <= range.end)
            load(g + i, x);
        else
            for (u32 j = 0; j < 4; j++) x[j] = i + j < range.end ? g[i + j] : 0.0f;
        for (u32 j = 0; j < 4; j++) sum += static_cast<double>(x[j]) * static_cast<double>(x[j]);
    }
    sum = block_total(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// norm[0] = √ Σ sums, norm[1] = what a norm above `clip` is to be multiplied by to be clip, as torch.nn.utils.clip_grad_norm_ has
// it; 1 where clip is 0. One block.
KERNEL(1024) adamw_norm(float *norm, const double *sums, u32 count, float clip) {
    double sum = 0.0;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
    sum = sqrt(block_total(sum));
    if (threadIdx.x == 0) {
        const double scale = clip / (sum + 1e-6);
        norm[0] = static_cast<float>(sum);
        norm[1] = clip > 0.0f && scale < 1.0 ? static_cast<float>(scale) : 1.0f;
    }
}

// What a step multiplies by; see `Factors` in `cpu.rs`.
struct Factors {
    float scale, keep, new1, beta2, new2, size, root, eps;
};

template <u32 N>
DEVICE void update(const Weight &tensor, u64 at, const Factors &f) {
    float w[N], g[N], m[N], v[N];
    load(tensor.w + at, w);
    load(tensor.g + at, g);
    load(tensor.m + at, m);
    load(tensor.v + at, v);
    for (u32 j = 0; j < N; j++) {
        const float x = g[j] * f.scale;
        m[j] = fmaf(f.new1, x - m[j], m[j]);
        v[j] = fmaf(f.new2 * x, x, f.beta2 * v[j]);
        w[j] = w[j] * f.keep - f.size * m[j] / fmaf(sqrtf(v[j]), f.root, f.eps);
    }
    store(tensor.w + at, w);
    store(tensor.m + at, m);
    store(tensor.v + at, v);
    if (tensor.value) store(tensor.value + at, w);
}

// One step; none at all where the norm is not finite.
KERNEL(256) adamw_update(const Weights weights, u32 count, const float *norm, float new1, float beta2, float new2, float size,
                         float root, float eps) {
    if (!(norm[0] <= __uint_as_float(0x7F7FFFFFu))) return;
    const Weight tensor = weights.all[mine(weights.all, count)];
    const Factors factors = {norm[1], tensor.keep, new1, beta2, new2, size, root, eps};
    const Part range = part(tensor.n, tensor.first);
#pragma unroll 1
    for (u64 i = range.begin + threadIdx.x * 4; i < range.end; i += blockDim.x * 4) {
        if (i + 4 <= range.end)
            update<4>(tensor, i, factors);
        else
            for (u64 j = i; j < range.end; j++) update<1>(tensor, j, factors);
    }
}
