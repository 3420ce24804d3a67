// Attention of one new token of each sequence over its cache, and what fills the caches: [tokens, h, 2, d], a token's key
// and value of each head. A sequence's bits depend on nothing but the sequence: its cache is cut every SPLIT tokens.
#include "attention.cuh"

// The memory of a sequence's cache and the tokens in it. Its new rows are begin … end - 1 of qkv.
struct Sequence {
    u64 memory;
    u32 count, begin, end, nothing;
};
const u32 SEQUENCES = 128;
struct Sequences {
    Sequence all[SEQUENCES];
};

// A sequence to which every launch of a captured step has added a token since: `since` counts them. It is missing, where a launch is
// made for its tokens alone.
DEVICE Sequence now(const Sequence &sequence, const u32 *since) {
    Sequence now = sequence;
    if (since) now.count += *since;
    return now;
}

const u32 SPLIT = 256, THREADS = 256, MOST = 128;
// Loads that are under way together.
const u32 AT_ONCE = 4;

// The keys of a block, at most SPLIT; eight lanes to a key. Then every column is summed by several threads.
template <u32 N, class T>
DEVICE void decode(T *out, float *parts, const T *qkv, const float *slopes, const Sequence &sequence, u32 heads, u32 d,
                   float scale) {
    SHARED(float[MOST], query);
    SHARED(float[SPLIT], weights);
    SHARED(float[THREADS * N], sums);
    const u32 head = blockIdx.x, from = blockIdx.y * SPLIT;
    const u32 n = min(SPLIT, sequence.count - from);
    const u32 stride = heads * 2 * d;
    const float slope = slopes[head];
    const T *keys = reinterpret_cast<const T *>(sequence.memory) + (u64)from * stride + head * 2 * d;
    if (threadIdx.x < d) query[threadIdx.x] = widen(qkv[query_at(sequence.begin, head, heads, d) + threadIdx.x]);
    barrier();
#pragma unroll 1
    for (u32 step = 0; step < n; step += AT_ONCE * THREADS / 8) {
        float products[AT_ONCE] = {};
        for (u32 i = threadIdx.x % 8 * N; i < d; i += 8 * N) {
            float key[AT_ONCE][N];
#pragma unroll
            for (u32 a = 0; a < AT_ONCE; a++) {
                const u32 j = min(step + a * THREADS / 8 + threadIdx.x / 8, n - 1);
                load(keys + (u64)j * stride + i, key[a]);
            }
#pragma unroll
            for (u32 a = 0; a < AT_ONCE; a++) {
#pragma unroll
                for (u32 e = 0; e < N; e++) products[a] = fmaf(query[i + e], key[a][e], products[a]);
            }
        }
#pragma unroll
        for (u32 a = 0; a < AT_ONCE; a++) {
            const u32 j = step + a * THREADS / 8 + threadIdx.x / 8;
            float product = row_sum(products[a]);
            product += shuffle_xor(product, 4);
            const float distance = static_cast<float>(static_cast<int>(from + j + 1 - sequence.count));
            if (j < n && threadIdx.x % 8 == 0) weights[j] = score(product, distance, scale, slope);
        }
    }
    barrier();
    float largest = minus_infinity(), total[1] = {0.0f};
    for (u32 j = lane(); j < n; j += 32) largest = fmaxf(largest, weights[j]);
    largest = warp_max(largest);
    barrier(); // all have read them
    for (u32 j = threadIdx.x; j < n; j += THREADS) {
        weights[j] = exp2_fast(weights[j] - largest);
        total[0] += weights[j];
    }
    block_sum(total); // which is a barrier too
    const u32 chunks = d / N, groups = THREADS / chunks, group = threadIdx.x / chunks, column = threadIdx.x % chunks * N;
    if (group < groups) {
        float sum[N] = {};
#pragma unroll 1
        for (u32 step = group; step < n; step += AT_ONCE * groups) {
            float value[AT_ONCE][N];
#pragma unroll
            for (u32 a = 0; a < AT_ONCE; a++) {
                const u32 j = min(step + a * groups, n - 1);
                load(keys + (u64)j * stride + d + column, value[a]);
            }
#pragma unroll
            for (u32 a = 0; a < AT_ONCE; a++) {
                const u32 j = step + a * groups;
                const float weight = j < n ? weights[j] : 0.0f;
#pragma unroll
                for (u32 e = 0; e < N; e++) sum[e] = fmaf(weight, value[a][e], sum[e]);
            }
        }
        for (u32 e = 0; e < N; e++) sums[group * d + column + e] = sum[e];
    }
    barrier();
    const u32 i = threadIdx.x;
    if (i >= d) return;
    float sum = 0.0f;
    for (u32 g = 0; g < groups; g++) sum += sums[g * d + i];
    if (sequence.count <= SPLIT) {
        out[((u64)sequence.begin * heads + head) * d + i] = narrow<T>(sum / total[0]);
        return;
    }
    parts += (((u64)blockIdx.z * gridDim.y + blockIdx.y) * heads + head) * (d + 2);
    parts[i] = sum;
    if (i == 0) {
        parts[d] = largest;
        parts[d + 1] = total[0];
    }
}

// Puts the splits of a sequence together, if there are several: parts [sequences, splits, h, d + 2].
template <class T>
DEVICE void join(T *out, const float *parts, const Sequence &sequence, u32 splits, u32 heads, u32 d) {
    const u32 head = blockIdx.x, i = threadIdx.x, stride = heads * (d + 2);
    const u32 own = (sequence.count + SPLIT - 1) / SPLIT;
    if (own < 2 || i >= d) return;
    parts += ((u64)blockIdx.y * splits * heads + head) * (d + 2);
    float largest = minus_infinity(), total = 0.0f, sum = 0.0f;
    for (u32 split = 0; split < own; split++) largest = fmaxf(largest, parts[(u64)split * stride + d]);
    for (u32 split = 0; split < own; split++) {
        const float *part = parts + (u64)split * stride;
        const float shrink = exp2_fast(part[d] - largest);
        total = fmaf(part[d + 1], shrink, total);
        sum = fmaf(part[i], shrink, sum);
    }
    out[((u64)sequence.begin * heads + head) * d + i] = narrow<T>(sum / total);
}

// Copies the keys and values of the new rows behind the tokens in the cache.
template <u32 N, class T>
DEVICE void append(const T *qkv, const Sequence &sequence, u32 heads, u32 d) {
    T *memory = reinterpret_cast<T *>(sequence.memory);
    for (u32 row = sequence.begin + blockIdx.x; row < sequence.end; row += gridDim.x) {
        T *to = memory + ((u64)sequence.count + row - sequence.begin) * heads * 2 * d;
        for (u32 i = threadIdx.x * N; i < heads * 2 * d; i += blockDim.x * N) {
            float x[N];
            load(qkv + query_at(row, i / (2 * d), heads, d) + d + i % (2 * d), x);
            store(to + i, x);
        }
    }
}

#define ENTRIES(NAME, T)                                                                                                 \
    KERNEL(256) attention_decode_##NAME(T *out, float *parts, const T *qkv, const float *slopes, Sequences sequences,    \
                                        const u32 *since, u32 heads, u32 d, float scale) {                               \
        const Sequence sequence = now(sequences.all[blockIdx.z], since);                                                 \
        if (blockIdx.y * SPLIT >= sequence.count) return;                                                                \
        if (d % Wide<T>::N == 0)                                                                                         \
            decode<Wide<T>::N>(out, parts, qkv, slopes, sequence, heads, d, scale);                                      \
        else                                                                                                             \
            decode<1>(out, parts, qkv, slopes, sequence, heads, d, scale);                                               \
    }                                                                                                                    \
    KERNEL(128) attention_join_##NAME(T *out, const float *parts, Sequences sequences, const u32 *since, u32 splits,     \
                                      u32 heads, u32 d) {                                                                \
        join(out, parts, now(sequences.all[blockIdx.y], since), splits, heads, d);                                       \
    }                                                                                                                    \
    KERNEL(256) attention_append_##NAME(const T *qkv, Sequences sequences, const u32 *since, u32 heads, u32 d) {         \
        const Sequence sequence = now(sequences.all[blockIdx.y], since);                                                 \
        if (d % Wide<T>::N == 0)                                                                                         \
            append<Wide<T>::N>(qkv, sequence, heads, d);                                                                 \
        else                                                                                                             \
            append<1>(qkv, sequence, heads, d);                                                                          \
    }

ENTRIES(f32, float)
ENTRIES(bf16, bf16)

// The first `words`, those that are filled, of a cache that has outgrown its memory.
KERNEL(256) attention_move(u32 *to, const u32 *from, u32 words) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < words; i += gridDim.x * blockDim.x) to[i] = from[i];
}

// The end of a captured step.
KERNEL(32) attention_count(u32 *since) {
    if (threadIdx.x == 0) *since += 1;
}
