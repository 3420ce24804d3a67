// Chooses a token from a row of logits, a block for each choice. Everything is as `mod.rs` has it for one CPU thread, in f64; only
// the order of the sums is another. No float is ever added by more than one thread to one place, so it is always the same.
#include "device.cuh"

const u32 NOBODY = ~0u, LOWEST = 0xFF800000u; // the latter −∞

// Rows of logits, each of which a choice reads, with the logits of tokens that it has seen made smaller: divided by the penalty
// where positive, else multiplied by it. seen[starts[i] … starts[i + 1] - 1] are those of choice i, each once.
KERNEL(512) sample_penalize(float *penalized, const float *logits, const u32 *rows, const u32 *starts, const u32 *seen, u32 v,
                            u32 stride, float penalty) {
    const float *from = logits + (u64)rows[blockIdx.x] * stride;
    float *to = penalized + (u64)blockIdx.x * v;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < v; i += blockDim.x) to[i] = from[i];
    barrier();
    const u32 end = starts[blockIdx.x + 1];
#pragma unroll 1
    for (u32 i = starts[blockIdx.x] + threadIdx.x; i < end; i += blockDim.x) {
        const float x = to[seen[i]];
        to[seen[i]] = x < 0.0f ? x * penalty : x / penalty;
    }
}

template <class T>
DEVICE T warp_total(T x) {
    for (u32 mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    return x;
}

struct Best {
    float logit;
    u32 id;
};
DEVICE Best better(const Best &a, const Best &b) {
    return b.logit > a.logit || (b.logit == a.logit && b.id < a.id) ? b : a;
}
DEVICE Best warp_best(Best best) {
    for (u32 mask = 16; mask > 0; mask /= 2)
        best = better(best, {shuffle_xor(best.logit, mask), shuffle_xor(best.id, mask)});
    return best;
}

DEVICE bool is_finite(float x) { return fabsf(x) <= __uint_as_float(0x7F7FFFFFu); }

// The largest logit, the lowest id of several; never a NaN. Whether all are finite to *finite.
DEVICE Best argmax(bool *finite, const float *logits, u32 v) {
    SHARED(Best[32], all);
    SHARED(u32[32], strange);
    Best best = {__uint_as_float(LOWEST), NOBODY};
    bool mine = false;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < v; i += blockDim.x) {
        best = better(best, {logits[i], i});
        mine = mine || !is_finite(logits[i]);
    }
    best = warp_best(best);
    const u32 votes = vote(mine);
    if (lane() == 0) {
        all[warp()] = best;
        strange[warp()] = votes;
    }
    barrier();
    const bool there = lane() < blockDim.x / 32;
    *finite = vote(there && strange[lane()] != 0) == 0;
    return warp_best(there ? all[lane()] : Best{__uint_as_float(LOWEST), NOBODY});
}

// Whole numbers in the order of floats that are no NaN; the two zeros are one.
DEVICE u32 key(float x) {
    const u32 bits = __float_as_uint(x + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
DEVICE float of_key(u32 key) { return __uint_as_float(key >> 31 ? key & 0x7FFFFFFFu : ~key); }

// What is left of a row, after each filter.
struct Row {
    const float *logits;
    u32 v;
    Best best;
    double temperature;
    float least; // tokens below it are out
    u32 last;    // and those further below the best one than this, as keys
    double ties; // of those as far as that, all but so many of the lowest ids

    DEVICE double weight(float x) const {
        return x >= least ? exp((static_cast<double>(x) - static_cast<double>(best.logit)) / temperature) : 0.0;
    }
    DEVICE u32 below(float x) const { return key(best.logit) - key(x); }
};

template <class Sum>
struct Cut {
    u32 below;  // how far it is below the best one
    Sum before; // of those that are likelier
    Sum wanted;
};

const u32 DIGIT = 4, DIGITS = 1 << DIGIT;

// The logit at which the sum of `measure` over tokens, from the likeliest down, reaches `wanted(its total)`; the last one if it does
// not. Digit by digit: each thread sums what it sees by the next digit, in a column of its own of bins [DIGITS, threads].
template <class Sum, class Measure, class Wanted>
DEVICE Cut<Sum> descend(const Row &row, Sum *bins, Measure measure, Wanted wanted) {
    SHARED(Sum[DIGITS], totals);
    Cut<Sum> cut = {0, 0, 0};
#pragma unroll 1
    for (int shift = 32 - DIGIT; shift >= 0; shift -= DIGIT) {
        for (u32 digit = 0; digit < DIGITS; digit++) bins[digit * blockDim.x + threadIdx.x] = 0;
#pragma unroll 1
        for (u32 i = threadIdx.x; i < row.v; i += blockDim.x) {
            const float x = row.logits[i];
            if (x != x) continue;
            const u32 below = row.below(x);
            if ((below ^ cut.below) >> shift >> DIGIT == 0)
                bins[(below >> shift) % DIGITS * blockDim.x + threadIdx.x] += measure(x);
        }
        barrier();
        for (u32 digit = warp(); digit < DIGITS; digit += blockDim.x / 32) {
            Sum sum = 0;
            for (u32 i = lane(); i < blockDim.x; i += 32) sum += bins[digit * blockDim.x + i];
            sum = warp_total(sum);
            if (lane() == 0) totals[digit] = sum;
        }
        barrier();
        if (shift == 32 - DIGIT) {
            Sum total = 0;
            for (u32 digit = 0; digit < DIGITS; digit++) total += totals[digit];
            cut.wanted = wanted(total);
        }
        Sum sum = cut.before;
        u32 chosen = 0;
        for (u32 digit = 0; digit < DIGITS; digit++) {
            if (!(totals[digit] > 0)) continue;
            chosen = digit;
            cut.before = sum;
            sum += totals[digit];
            if (sum >= cut.wanted) break;
        }
        cut.below |= chosen << shift;
    }
    return cut;
}

// The sum over the threads before this one, and over all.
template <class Sum>
struct Before {
    Sum mine, all;
};
template <class Sum>
DEVICE Before<Sum> block_scan(Sum x) {
    SHARED(Sum[32], sums);
    Sum up_to = x;
    for (u32 step = 1; step < 32; step *= 2) {
        const Sum other = shuffle(up_to, lane() - step);
        if (lane() >= step) up_to += other;
    }
    if (lane() == 31) sums[warp()] = up_to;
    const Sum left = shuffle(up_to, lane() - 1);
    barrier();
    Before<Sum> before = {0, 0};
    for (u32 i = 0; i < blockDim.x / 32; i++) {
        if (i == warp()) before.mine = before.all;
        before.all += sums[i];
    }
    if (lane() > 0) before.mine += left;
    return before;
}

DEVICE u32 block_min(u32 x) {
    SHARED(u32[32], all);
    for (u32 mask = 16; mask > 0; mask /= 2) x = min(x, shuffle_xor(x, mask));
    if (lane() == 0) all[warp()] = x;
    barrier();
    for (u32 i = 0; i < blockDim.x / 32; i++) x = min(x, all[i]);
    return x;
}

// A thread's stretch of ids, and how many ties are before it.
struct Stretch {
    u32 begin, end, ties;
};

// Calls `take(id, weight)` for each token of the stretch that the filters have left, until it is true.
template <class Take>
DEVICE void each(const Row &row, const Stretch &stretch, float min_p, Take take) {
    u32 tie = stretch.ties;
#pragma unroll 1
    for (u32 i = stretch.begin; i < stretch.end; i++) {
        const float x = row.logits[i];
        if (x != x) continue;
        const u32 below = row.below(x);
        if (below > row.last || (below == row.last && tie++ >= row.ties)) continue;
        const double weight = row.weight(x);
        if (weight > 0.0 && (weight >= min_p || i == row.best.id) && take(i, weight)) return;
    }
}

// The first token, in order of ids, at which the sum of the weights of those that are left exceeds uniform · their total.
DEVICE void draw(u32 *token, const Row &row, float min_p, double uniform) {
    const u32 length = (row.v + blockDim.x - 1) / blockDim.x, begin = min(threadIdx.x * length, row.v);
    Stretch stretch = {begin, min(begin + length, row.v), 0};
    u32 ties = 0;
#pragma unroll 1
    for (u32 i = stretch.begin; i < stretch.end; i++) {
        const float x = row.logits[i];
        if (x == x) ties += row.below(x) == row.last;
    }
    stretch.ties = block_scan(ties).mine;
    double sum = 0.0;
    u32 last = NOBODY;
    each(row, stretch, min_p, [&](u32 i, double weight) {
        sum += weight;
        last = i;
        return false;
    });
    const Before<double> before = block_scan(sum);
    const double target = uniform * before.all;
    // Should rounding leave nobody, the last one: its stretch is the highest that has any.
    const bool reached = last != NOBODY && before.mine + sum > target;
    const u32 chosen = block_min(reached ? threadIdx.x : last != NOBODY ? 2 * blockDim.x - threadIdx.x : NOBODY);
    if (threadIdx.x != (chosen < blockDim.x ? chosen : 2 * blockDim.x - chosen)) return;
    double up_to = before.mine;
    if (reached) {
        each(row, stretch, min_p, [&](u32 i, double weight) {
            up_to += weight;
            last = i;
            return up_to > target;
        });
    }
    *token = last;
}

// tokens [.., 2]: one chosen from row rows[i] of the logits (v of them, `stride` apart; row i without `rows`) with the random number
// uniforms[i], and 1 if all logits of the row are finite. Shared memory: DIGITS f64 for each thread.
KERNEL(512) sample_choose(u32 *tokens, const float *logits, const double *uniforms, const u32 *rows, u32 v, u32 stride,
                          u32 top_k, float temperature, float top_p, float min_p) {
    SHARED_AT_LAUNCH(double, bins);
    const float *from = logits + (u64)(rows ? rows[blockIdx.x] : blockIdx.x) * stride;
    bool finite;
    const Best best = argmax(&finite, from, v);
    tokens += 2 * blockIdx.x;
    if (threadIdx.x == 0) tokens[1] = finite;
    if (!(temperature > 0.0f) || !is_finite(best.logit)) {
        if (threadIdx.x == 0) tokens[0] = best.id == NOBODY ? 0 : best.id;
        return;
    }
    Row row = {from, v, best, temperature, __uint_as_float(LOWEST), NOBODY, 0.0};
    if (top_k > 0) {
        const Cut<u32> cut = descend(
            row, reinterpret_cast<u32 *>(bins), [](float) { return 1u; }, [=](u32) { return top_k; });
        row.least = of_key(key(best.logit) - cut.below);
    }
    if (top_p < 1.0f) {
        const Cut<double> cut = descend(
            row, bins, [&](float x) { return row.weight(x); },
            [=](double total) { return static_cast<double>(top_p) * total; });
        row.last = cut.below;
        const double weight = row.weight(of_key(key(best.logit) - cut.below));
        row.ties = ceil((cut.wanted - cut.before) / weight);
        if (row.ties < 1.0) row.ties = 1.0;
    }
    draw(tokens, row, min_p, uniforms[blockIdx.x]);
}
