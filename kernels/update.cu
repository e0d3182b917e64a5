// The fused step of a path over the trained weights, in one pass:
//
//     g' = g s + [pruned] pull w                        s = scale min(1, clip / (|g| scale))
//     (w, m, v) = AdamW | Adam | SGD (w, g', m, v)      decay where the span decays
//     w = sign(w) max(0, |w| - [pruned] shrink)         and w = m = v = 0 where pruned weights are held
//
// with the bf16 copy of w, sum w^2 over all and over the pruned in f64, and on demand the census: a histogram of the
// leading 12 bits of the new magnitudes of the prunable weights, how many lie below a bracket, and a list of those inside.
//
// Every constant of a step comes from Knobs in the device's memory, and |g|^2 from where flat_total_f64 left it, so a
// recorded step is replayed with other numbers. Expressions are the host's, in its order and rounded as there
// (rounded.cuh): the weights are equal bit for bit, except where |g| differs in the last bit of f64 and s is
// rounded to another float.
//
// Parallel over tiles (tiles.cuh), 4 neighbours a thread, 16-byte loads and stores. The histogram and the list are
// privatised in shared memory; integer atomics alone, so nothing depends on their order but the order of the list.
//
// Bytes a parameter: read w, g, m, v and a bit of mask, 16.1; write w, m, v, 12, and the bf16 copy, 2: 30.1. The norm of
// the gradient reads 4 before that: 34.1 in all. About 30 FLOPs: bound by memory. Not yet run on a GPU.
#include "rounded.cuh"
#include "tiles.cuh"

struct Knobs {
    double clip;            // no clipping at 0
    double gradient_scale;  // before clipping
    float rate, pull, shrink, keep, decay;
    float decayed;  // 1 - rate decay
    float beta1, beta2, fresh1, fresh2;  // fresh = 1 - beta
    float epsilon;
    float length, correct2;  // rate / (1 - beta1^t) and 1/sqrt(1 - beta2^t)
    u32 low, high;           // the census' bracket, both ends inside
    u32 census;              // whether to count
};
FIPK_ARGS(Knobs, 80);

struct Census {
    u64 below, inside;
    u32 histogram[BUCKETS];
};
FIPK_ARGS(Census, 16 + 4 * 4096);

struct Squares {
    double all, pruned;
};
FIPK_ARGS(Squares, 16);

struct UpdateArgs {
    float* w;
    const float* g;
    float* m;
    float* v;         // not read by SGD
    bf16* shadow;     // may be null
    const u32* mask;  // may be null
    const Knobs* knobs;
    const double* gradient_squares;  // read where clip > 0
    const Tile* tiles;
    Squares* parts;  // one a tile
    Census* census;
    u32* list;
    u64 room;  // of the list
    u64 tile_count;
};
FIPK_ARGS(UpdateArgs, 112);

struct Weight {
    float w, m, v;
};

FIPK_DEVICE Weight adam(const Knobs& k, float w, float g, float m, float v) {
    m = fma_rn(k.beta1, m, mul(k.fresh1, g));
    v = fma_rn(k.beta2, v, mul(mul(k.fresh2, g), g));
    const float size = fma_rn(root(v), k.correct2, k.epsilon);
    return {sub(w, quotient(mul(m, k.length), size)), m, v};
}
// `decays`: of the span.
struct AdamW {
    static constexpr bool SECOND = true;
    static FIPK_DEVICE Weight step(const Knobs& k, bool decays, float w, float g, float m, float v) {
        return adam(k, decays ? mul(k.decayed, w) : w, g, m, v);
    }
};
struct Adam {
    static constexpr bool SECOND = true;
    static FIPK_DEVICE Weight step(const Knobs& k, bool decays, float w, float g, float m, float v) {
        return adam(k, w, decays ? fma_rn(k.decay, w, g) : g, m, v);
    }
};
struct Sgd {
    static constexpr bool SECOND = false;
    static FIPK_DEVICE Weight step(const Knobs& k, bool decays, float w, float g, float m, float v) {
        m = fma_rn(k.beta1, m, decays ? fma_rn(k.decay, w, g) : g);
        return {sub(w, mul(k.rate, m)), m, v};
    }
};

template <class Rule>
FIPK_DEVICE Weight step(const Knobs& k, float scale, bool decays, bool pruned, float w, float g, float m, float v) {
    const float gradient = fma_rn(g, scale, pruned ? mul(k.pull, w) : 0.0f);
    const Weight next = Rule::step(k, decays, w, gradient, m, v);
    if (!pruned) return next;
    const float size = sub(fabsf(next.w), k.shrink);
    // A NaN fails the comparison and stays.
    const float x = size < 0.0f ? 0.0f : copysignf(size, next.w);
    return {mul(x, k.keep), mul(next.m, k.keep), mul(next.v, k.keep)};
}

// What the gradient is multiplied with, as the loop on the host has it: in f64, then rounded.
FIPK_DEVICE float gradient_scale(const Knobs& k, const double* squares) {
    if (!(k.clip > 0.0)) return static_cast<float>(k.gradient_scale);
    const double norm = sqrt(*squares) * k.gradient_scale;
    return static_cast<float>((norm > k.clip ? k.clip / norm : 1.0) * k.gradient_scale);
}

// Take a tile's new magnitudes into the histogram and the list; gives how many of the thread's lie below the bracket. A
// thread reads what it wrote itself a moment ago, out of the cache: a loop of its own costs no bytes and fewer registers.
FIPK_DEVICE u32 count_tile(const float* w, const Tile& tile, const Knobs& k, u32* bins, const Staged& staged) {
    u32 below = 0;
    for (u32 i = 4 * threadIdx.x; i < tile.len; i += 4 * blockDim.x) {
        const Pack<float> x = load_pack<float>(w, first_float(tile) + i);
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            if (i + j >= tile.len) continue;
            const u32 magnitude = magnitude_bits(x.v[j]);
            atomicAdd(&bins[magnitude >> FIRST_SHIFT], 1u);
            below += magnitude < k.low;
            if (magnitude >= k.low && magnitude <= k.high) staged.push(magnitude);
        }
    }
    return below;
}

template <class Rule>
FIPK_DEVICE void update(const UpdateArgs& p, u32* bins, const Staged& staged, Squares* warps, u64* below_shared,
                        Knobs* shared_knobs) {
    // In shared memory, for registers are what is scarce.
    if (threadIdx.x == 0) *shared_knobs = *p.knobs;
    __syncthreads();
    const Knobs& k = *shared_knobs;
    const float scale = gradient_scale(k, p.gradient_squares);
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u32 below = 0;
    if (k.census != 0) {
        clear_bins(bins);
        if (threadIdx.x == 0) *staged.count = 0;
        __syncthreads();
    }
    for (u32 t = blockIdx.x; t < p.tile_count; t += gridDim.x) {
        const Tile tile = p.tiles[t];
        const bool decays = (tile.flags & TILE_DECAYS) != 0;
        const bool prunable = (tile.flags & TILE_PRUNABLE) != 0, counts = prunable && k.census != 0;
        double all = 0.0, gone = 0.0;
        for (u32 i = 4 * threadIdx.x; i < tile.len; i += 4 * blockDim.x) {
            const u64 at = first_float(tile) + i;
            const u32 bits = prunable && p.mask != nullptr ? p.mask[at / 32] >> (i & 31) : 0;
            Pack<float> w = load_pack<float>(p.w, at), m = load_pack<float>(p.m, at);
            const Pack<float> g = load_pack<float>(p.g, at);
            Pack<float> v = {{0.0f, 0.0f, 0.0f, 0.0f}};
            if (Rule::SECOND) v = load_pack<float>(p.v, at);
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                if (i + j >= tile.len) continue;  // padding stays what it is: zero
                const u32 bit = bits >> j & 1;
                const Weight next = step<Rule>(k, scale, decays, bit != 0, w.v[j], g.v[j], m.v[j], v.v[j]);
                w.v[j] = next.w, m.v[j] = next.m, v.v[j] = next.v;
                const double square = static_cast<double>(next.w) * static_cast<double>(next.w);
                all += square;
                if (bit) gone += square;
            }
            store_pack<float>(p.w, at, w);
            store_pack<float>(p.m, at, m);
            if (Rule::SECOND) store_pack<float>(p.v, at, v);
            if (p.shadow != nullptr) {
                *reinterpret_cast<uint2*>(p.shadow + at) = make_uint2(bf16_pair(w.v[0], w.v[1]), bf16_pair(w.v[2], w.v[3]));
            }
        }
        all = warp_sum(all);
        gone = warp_sum(gone);
        if (lane == 0) warps[warp].all = all, warps[warp].pruned = gone;
        __syncthreads();
        if (threadIdx.x == 0) {
            Squares sum = {0.0, 0.0};
            for (u32 i = 0; i < blockDim.x / 32; ++i) sum.all += warps[i].all, sum.pruned += warps[i].pruned;
            p.parts[t] = sum;
        }
        if (counts) {
            below += count_tile(p.w, tile, k, bins, staged);
            staged.flush(&p.census->inside, p.list, p.room);
        }
        __syncthreads();
    }
    if (k.census != 0) {
        add_bins(bins, p.census->histogram);
        const u64 total = block_sum(static_cast<u64>(below), below_shared);
        if (threadIdx.x == 0 && total > 0) atomicAdd(&p.census->below, total);
    }
}

#define UPDATE(name, Rule)                                                               \
    FIPK_KERNEL(name, UpdateArgs, 256) {                                                 \
        FIPK_SHARED(u32, name##_bins, [BUCKETS]);                                        \
        FIPK_SHARED(u32, name##_staged, [TILE]);                                         \
        FIPK_SHARED(u32, name##_count, [1]);                                             \
        FIPK_SHARED(u64, name##_base, [1]);                                              \
        FIPK_SHARED(u64, name##_below, [32]);                                            \
        FIPK_SHARED(Squares, name##_warps, [WARPS]);                                     \
        FIPK_SHARED(Knobs, name##_knobs, [1]);                                           \
        const Staged staged = {name##_staged, name##_count, name##_base};                \
        update<Rule>(p, name##_bins, staged, name##_warps, name##_below, name##_knobs);  \
    }
UPDATE(update_adamw_f32, AdamW)
UPDATE(update_adam_f32, Adam)
UPDATE(update_sgd_f32, Sgd)

// What the host reads after a step.
struct Report {
    double squares, prunable, pruned, gradient_squares;
    u64 below, inside;
};
FIPK_ARGS(Report, 48);

struct UpdateTotalArgs {
    const Squares* parts;
    const double* gradient_squares;
    const Census* census;
    Report* report;
    u64 tile_count;
    u64 prunable_tiles;  // they come first
};
FIPK_ARGS(UpdateTotalArgs, 48);

// One block, in the tiles' order.
FIPK_KERNEL(update_total_f64, UpdateTotalArgs, 1024) {
    FIPK_SHARED(double, shared, [32]);
    double all = 0.0, prunable = 0.0, pruned = 0.0;
    for (u64 t = threadIdx.x; t < p.tile_count; t += blockDim.x) {
        const double square = p.parts[t].all;
        all += square;
        if (t < p.prunable_tiles) prunable += square;
        pruned += p.parts[t].pruned;
    }
    all = block_sum(all, shared);
    prunable = block_sum(prunable, shared);
    pruned = block_sum(pruned, shared);
    if (threadIdx.x == 0 && blockIdx.x == 0) {
        *p.report = {all, prunable, pruned, *p.gradient_squares, p.census->below, p.census->inside};
    }
}
