// Kernels without a bug, which the emulator must run without an alarm: one for each way to share memory rightly.
#include "planted.cuh"
#include "reduce.cuh"
#include "vector.cuh"

struct SumArgs {
    const void* a;
    const void* b;
    void* y;
    u64 n;
};
FIPK_ARGS(SumArgs, 32);

// y = a + b of n floats, in any number of blocks.
FIPK_KERNEL(right_sum, SumArgs, 256) {
    const u64 stride = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.n; i += stride) {
        store<float>(p.y, i, load<float>(p.a, i) + load<float>(p.b, i));
    }
}

// y[t] = x[255 - t].
PLANTED(right_barrier) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x;
    s[t] = p.x[t];
    __syncthreads();
    p.y[t] = s[255 - t];
}

// y[t] = the sum of x, or its maximum.
PLANTED(right_block_sum) {
    FIPK_SHARED(float, s, [32]);
    int t = threadIdx.x;
    float sum = block_sum(p.x[t], s), top = block_max(p.x[t], s);
    p.y[t] = t & 1 ? top : sum;
}

// y[t] = x of the lane opposite in each half of the warp.
PLANTED(right_syncwarp_of_halves) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x, lane = t & 31;
    unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    for (int i = 0; i < 3; i++) {
        s[t] = p.x[t];
        __syncwarp(half);
        p.y[t] = s[t ^ 15];
        __syncwarp(half);
    }
}

// Votes and the like; y[t] counts those that are as they should be: 12.
PLANTED(right_votes) {
    int t = threadIdx.x, lane = t & 31;
    int good = 0;
    good += __ballot_sync(0xffffffffu, lane % 3 == 0) == 0x49249249u;
    good += __any_sync(0xffffffffu, lane == 7) && !__any_sync(0xffffffffu, lane > 31);
    good += __all_sync(0xffffffffu, lane < 32) && !__all_sync(0xffffffffu, lane < 31);
    good += __match_any_sync(0xffffffffu, lane / 8) == 0xffu << lane / 8 * 8;
    good += __reduce_add_sync(0xffffffffu, lane) == 496 && __reduce_max_sync(0xffffffffu, lane) == 31;
    good += __reduce_min_sync(0xffffffffu, -lane) == -31 && __reduce_or_sync(0xffffffffu, 1u << lane) == 0xffffffffu;
    good += __shfl_up_sync(0xffffffffu, lane, 3) == (lane < 3 ? lane : lane - 3);
    good += __shfl_down_sync(0xffffffffu, lane, 3, 8) == (lane % 8 > 4 ? lane : lane + 3);
    good += __shfl_sync(0xffffffffu, lane * 2.0, 5, 16) == (lane / 16 * 16 + 5) * 2.0;
    good += __syncthreads_count(t % 5 == 0) == 52;
    good += __syncthreads_and(t < 256) && !__syncthreads_and(t != 100);
    good += __syncthreads_or(t == 100) && !__syncthreads_or(t == 256);
    p.y[t] = static_cast<float>(good);
}

// y: a histogram of t % 10, the maximum of x by compare-and-swap, and a sum beyond 32 bits.
PLANTED(right_atomics) {
    FIPK_SHARED(u32, counts, [10]);
    FIPK_SHARED(u32, top, [1]);
    FIPK_SHARED(u64, sum, [1]);
    int t = threadIdx.x;
    if (t < 10) counts[t] = 0;
    if (t == 0) top[0] = sum[0] = 0;
    __syncthreads();
    atomicAdd(&counts[t % 10], 1u);
    atomicAdd(&sum[0], 1ull << 33);
    u32 seen = atomicAdd(&top[0], 0u);
    while (__uint_as_float(seen) < p.x[t]) {
        u32 now = atomicCAS(&top[0], seen, __float_as_uint(p.x[t]));
        if (now == seen) break;
        seen = now;
    }
    __syncthreads();
    if (t < 10) p.y[t] = static_cast<float>(counts[t]);
    if (t == 10) p.y[10] = __uint_as_float(top[0]);
    if (t == 11) p.y[11] = static_cast<float>(sum[0] >> 33);
}

// y[255]: the sum of x[block] over all blocks, by the last one to come.
PLANTED(right_last_block) {
    FIPK_SHARED(u32, last, [1]);
    u32* counter = reinterpret_cast<u32*>(p.plane);
    int t = threadIdx.x;
    if (t == 0) {
        p.y[blockIdx.x] = p.x[blockIdx.x];
        __threadfence();
        last[0] = atomicAdd(counter, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last[0]) return;
    __threadfence();
    if (t == 77) {
        float total = 0;
        for (u32 i = 0; i < gridDim.x; i++) total += p.y[i];
        p.y[255] = total;
    }
}

// The order in which threads come by: y[t] = that of thread t.
PLANTED(right_order) {
    FIPK_SHARED(u32, counter, [1]);
    int t = threadIdx.x;
    if (t == 0) counter[0] = 0;
    __syncthreads();
    p.y[t] = static_cast<float>(atomicAdd(&counter[0], 1u));
}

// Nothing is written to y[t] but what is read from y[t]: a NaN, in memory that nobody has written.
PLANTED(right_poison) { p.y[threadIdx.x] = p.y[threadIdx.x] + 1; }

// D = 8 A Aᵀ for the plane A: a warp that loads, a warpgroup that multiplies, and three stages between them. y[t]
// = D[t / 4][t % 4]. 256 threads, 24576 bytes.
PLANTED(right_pipeline) {
    constexpr int STAGES = 3, STEPS = 8;
    FIPK_DYNAMIC_SHARED(bf16, tiles);
    FIPK_SHARED(u64, full, [STAGES]);
    FIPK_SHARED(u64, empty, [STAGES]);
    FIPK_SHARED(float, out, [64 * 4]);
    int t = threadIdx.x, warp = t / 32, lane = t % 32;
    if (t == 0) {
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(&full[i], 1);
            mbarrier_init(&empty[i], 1);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    if (warp >= 4) {
        registers_lower<40>();
        if (t == 128) {
            for (int i = 0; i < STEPS; i++) {
                int stage = i % STAGES, round = i / STAGES;
                if (round > 0) mbarrier_wait(&empty[stage], (round - 1) & 1);
                mbarrier_expect(&full[stage], 8192);
                tma_load_2d(tiles + stage * 4096, &p.map, &full[stage], 0, 0);
            }
        }
    } else {
        registers_raise<160>();
        float d[32] = {};
        for (int i = 0; i < STEPS; i++) {
            int stage = i % STAGES, round = i / STAGES;
            mbarrier_wait(&full[stage], round & 1);
            const bf16* tile = tiles + stage * 4096;
            wgmma_fence();
            for (int k = 0; k < 64; k += 16) wgmma_bf16<64>(d, wgmma_operand(tile + k), wgmma_operand(tile + k));
            wgmma_commit();
            // The stage before this one is done with.
            wgmma_wait<1>();
            if (i > 0 && t == 0) mbarrier_arrive(&empty[(i - 1) % STAGES]);
        }
        wgmma_wait<0>();
        int row = warp * 16 + lane / 4, column = lane % 4 * 2;
        if (column < 4) {
            for (int i = 0; i < 4; i++) out[(row + 8 * (i >> 1)) * 4 + column + (i & 1)] = d[i];
        }
        bar_sync(1, 128);
        p.y[t] = out[t];
        p.y[t + 128] = out[t + 128];
    }
}
