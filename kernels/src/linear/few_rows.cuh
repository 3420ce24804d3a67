// Few rows of x times a large weight, which is read once for 4 or 16 of them: a warp makes 4 columns of the result.
//
// An element's sum is taken over 32 lanes, each in order of its products, and then pairwise over the lanes; so its bits depend on its
// row of x and its row of w alone.
#pragma once
#include "finish.cuh"

const u32 FEW_THREADS = 64, OUTPUTS = 4;

// N numbers as they are in memory.
template <u32 N, class T>
union Raw {
    typename Word<N * sizeof(T)>::type bits;
    T numbers[N];
};

// Sums over the lanes. Of several sums a lane keeps one half, with its fellow's part of them added, and its fellow the other;
// in the end lane l has those from COUNT · l / 32 on. A sum's order does not depend on COUNT.
template <u32 COUNT, u32 MASK, u32 SIZE>
DEVICE void sum_over_lanes(float (&sums)[SIZE]) {
    if constexpr (COUNT == 1) {
        sums[0] += shuffle_xor(sums[0], MASK);
        if constexpr (MASK > 1) sum_over_lanes<1, MASK / 2>(sums);
    } else {
        const u32 HALF = COUNT / 2;
        const bool upper = lane() & MASK;
#pragma unroll
        for (u32 i = 0; i < HALF; i++) {
            const float mine = upper ? sums[i + HALF] : sums[i], other = upper ? sums[i] : sums[i + HALF];
            sums[i] = mine + shuffle_xor(other, MASK);
        }
        if constexpr (MASK > 1) sum_over_lanes<HALF, MASK / 2>(sums);
    }
}

// x [rows, k], w [n, k]; N numbers of w, FEW rows of x at a time.
template <u32 FEW, u32 N, class T, class W>
DEVICE void few_rows(const Finish<T> &to, const T *x, const W *w, u32 rows, u32 k) {
    typedef typename Word<N * sizeof(W)>::type Bits;
    const u32 first = (blockIdx.x * (FEW_THREADS / 32) + warp()) * OUTPUTS;
    const W *weights[OUTPUTS]; // beyond the last row of w the last one again
#pragma unroll
    for (u32 o = 0; o < OUTPUTS; o++) weights[o] = w + (u64)min(first + o, to.n - 1) * k;
#pragma unroll 1
    for (u32 begin = 0; begin < rows; begin += FEW) {
        float sums[FEW * OUTPUTS];
#pragma unroll
        for (u32 i = 0; i < FEW * OUTPUTS; i++) sums[i] = 0.0f;
        const auto read = [&](Raw<N, W>(&to)[OUTPUTS], u32 i) {
#pragma unroll
            for (u32 o = 0; o < OUTPUTS; o++) {
                check_aligned(weights[o] + i, sizeof(Bits));
                to[o].bits = *reinterpret_cast<const Bits *>(weights[o] + i);
            }
        };
        Raw<N, W> ahead[OUTPUTS];
        if (lane() * N < k) read(ahead, lane() * N);
#pragma unroll 1
        for (u32 i = lane() * N; i < k; i += 32 * N) {
            Raw<N, W> now[OUTPUTS];
#pragma unroll
            for (u32 o = 0; o < OUTPUTS; o++) now[o] = ahead[o];
            if (i + 32 * N < k) read(ahead, i + 32 * N);
#pragma unroll
            for (u32 group = 0; group < FEW; group += 4) {
                if (begin + group < rows) {
                    float v[4][N];
#pragma unroll
                    for (u32 r = 0; r < 4; r++) load(x + (u64)min(begin + group + r, rows - 1) * k + i, v[r]);
#pragma unroll
                    for (u32 j = 0; j < N; j++) {
#pragma unroll
                        for (u32 o = 0; o < OUTPUTS; o++) {
                            const float weight = widen(now[o].numbers[j]);
#pragma unroll
                            for (u32 r = 0; r < 4; r++) {
                                float &sum = sums[(group + r) * OUTPUTS + o];
                                sum = fmaf(v[r][j], weight, sum);
                            }
                        }
                    }
                }
            }
        }
        sum_over_lanes<FEW * OUTPUTS, 16>(sums);
        // As many for each lane; or one for several lanes, of which the first takes it.
        const u32 EACH = max(FEW * OUTPUTS / 32, 1u), SHARED_BY = max(32 / (FEW * OUTPUTS), 1u);
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            const u32 element = lane() * EACH / SHARED_BY + i;
            const u32 row = begin + element / OUTPUTS, column = first + element % OUTPUTS;
            float sum[1] = {sums[i]};
            if (lane() % SHARED_BY == 0 && row < rows && column < to.n) finish(to, row, column, sum);
        }
    }
}
