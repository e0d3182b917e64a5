// Kernels with one bug each in what runs beside the threads: copies, barriers of some warps or in shared memory, wgmma.
#include "planted.cuh"

// ---- cp.async.

PLANTED(bug_copy_not_waited_for) {
    FIPK_SHARED(float, s, [1024]);
    int t = threadIdx.x;
    cp_async_16(&s[t * 4], p.x + (t & 63) * 4);
    cp_async_commit();
    __syncthreads();
    p.y[t] = s[t * 4]; // BUG
    cp_async_wait<0>();
}

PLANTED(bug_copy_of_another_thread) {
    FIPK_SHARED(float, s, [1024]);
    int t = threadIdx.x;
    cp_async_16(&s[t * 4], p.x + (t & 63) * 4);
    cp_async_commit();
    cp_async_wait<0>();
    p.y[t] = s[((t + 32) & 255) * 4]; // BUG: no barrier
}

PLANTED(bug_one_group_too_many_in_flight) {
    FIPK_SHARED(float, s, [2][1024]);
    int t = threadIdx.x;
    for (int i = 0; i < 2; i++) {
        cp_async_16(&s[i][t * 4], p.x + (t & 63) * 4);
        cp_async_commit();
    }
    cp_async_wait<1>();
    __syncthreads();
    p.y[t] = s[1][t * 4]; // BUG: the second group
    cp_async_wait<0>();
}

PLANTED(bug_copy_without_commit) {
    FIPK_SHARED(float, s, [1024]);
    int t = threadIdx.x;
    cp_async_16(&s[t * 4], p.x + (t & 63) * 4);
    cp_async_wait<0>(); // BUG
    __syncthreads();
    p.y[t] = s[t * 4];
}

PLANTED(bug_copy_misaligned) {
    FIPK_SHARED(float, s, [1032]);
    int t = threadIdx.x;
    cp_async_16(&s[t * 4 + 1], p.x + (t & 63) * 4); // BUG
    cp_async_commit();
    cp_async_wait<0>();
    p.y[t] = s[t * 4 + 1];
}

PLANTED(bug_copy_past_the_end) {
    FIPK_SHARED(float, s, [1024]);
    int t = threadIdx.x;
    cp_async_16(&s[t * 4], p.x + t * 4); // BUG
    cp_async_commit();
    cp_async_wait<0>();
    p.y[t] = s[t * 4];
}

PLANTED(bug_copy_to_global) {
    cp_async_16(p.y + threadIdx.x * 4, p.x); // BUG
}

PLANTED(bug_ldmatrix_misaligned) {
    FIPK_SHARED(bf16, s, [512]);
    int t = threadIdx.x;
    s[t] = s[t + 256] = __float2bfloat16(1);
    __syncthreads();
    u32 r[4];
    ldmatrix_x4(r, s + (t & 31) * 9); // BUG
    p.y[t] = static_cast<float>(r[0]);
}

PLANTED(bug_ldmatrix_before_barrier) {
    FIPK_SHARED(bf16, s, [256]);
    int t = threadIdx.x;
    s[t] = __float2bfloat16(1);
    u32 r[4];
    ldmatrix_x4(r, s + (t & 31) * 8); // BUG
    p.y[t] = static_cast<float>(r[0]);
}

// ---- Named barriers.

PLANTED(bug_named_barrier_of_other_size) {
    int t = threadIdx.x;
    bar_sync(1, t < 128 ? 128 : 256); // BUG
    p.y[t] = p.x[t];
}

PLANTED(bug_named_barrier_never_full) {
    int t = threadIdx.x;
    if (t < 64) bar_sync(2, 96); // BUG
    p.y[t] = p.x[t];
}

PLANTED(bug_named_barrier_of_half_warps) {
    int t = threadIdx.x;
    if ((t & 31) < 16) bar_sync(3, 128); // BUG
    p.y[t] = p.x[t];
}

PLANTED(bug_named_barrier_zero) {
    bar_sync(0, 256); // BUG
}

PLANTED(bug_arrival_for_a_wait) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x;
    s[t] = p.x[t];
    if (t < 128) {
        bar_sync(1, 256);
        p.y[t] = s[t + 128];
    } else {
        bar_arrive(1, 256);
        p.y[t] = s[t - 128]; // BUG: who arrives does not wait
    }
}

PLANTED(bug_named_barrier_for_too_few) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x;
    s[t] = p.x[t];
    bar_sync(1 + t / 128, 128);
    p.y[t] = s[t ^ 128]; // BUG: of the other half
}

// ---- mbarrier.

PLANTED(bug_mbarrier_never_complete) {
    FIPK_SHARED(u64, bar, [1]);
    int t = threadIdx.x;
    if (t == 0) mbarrier_init(bar, 2);
    __syncthreads();
    if (t == 0) mbarrier_arrive(bar);
    mbarrier_wait(bar, 0); // BUG: two should arrive
    p.y[t] = 0;
}

PLANTED(bug_mbarrier_not_initialised) {
    FIPK_SHARED(u64, bar, [1]);
    mbarrier_arrive(bar); // BUG
}

PLANTED(bug_mbarrier_before_barrier) {
    FIPK_SHARED(u64, bar, [1]);
    int t = threadIdx.x;
    if (t == 0) {
        mbarrier_init(bar, 1);
        mbarrier_arrive(bar);
    }
    __syncwarp();
    mbarrier_wait(bar, 0); // BUG: the other warps may not see it yet
    p.y[t] = 0;
}

PLANTED(bug_mbarrier_arrivals) {
    FIPK_SHARED(u64, bar, [1]);
    if (threadIdx.x == 0) {
        mbarrier_init(bar, 1);
        mbarrier_expect(bar, 16);
        mbarrier_arrive(bar); // BUG: the second in one phase
    }
}

PLANTED(bug_mbarrier_written_over) {
    FIPK_SHARED(u64, bar, [1]);
    if (threadIdx.x == 0) {
        mbarrier_init(bar, 1);
        bar[0] = 0; // BUG
        mbarrier_arrive(bar);
    }
}

PLANTED(bug_mbarrier_parity) {
    FIPK_SHARED(u64, bar, [1]);
    int t = threadIdx.x;
    if (t == 0) mbarrier_init(bar, 1);
    __syncthreads();
    if (t == 0) mbarrier_arrive(bar);
    mbarrier_wait(bar, 0);
    mbarrier_wait(bar, 1); // BUG: nobody arrives a second time
    p.y[t] = 0;
}

// ---- TMA. A tile of 64 x 64 bf16 is 8192 bytes.

#define LOADED_TILE(expected)                                      \
    FIPK_DYNAMIC_SHARED(bf16, tile);                               \
    FIPK_SHARED(u64, bar, [1]);                                    \
    int t = threadIdx.x;                                           \
    if (t == 0) {                                                  \
        mbarrier_init(bar, 1);                                     \
        mbarrier_init_fence();                                     \
    }                                                              \
    __syncthreads();                                               \
    if (t == 0) {                                                  \
        mbarrier_expect(bar, expected);                            \
        tma_load_2d(tile, &p.map, bar, 0, 0);                      \
    }

PLANTED(bug_tma_not_waited_for) {
    LOADED_TILE(8192)
    p.y[t] = __bfloat162float(tile[t]); // BUG
    mbarrier_wait(bar, 0);
}

PLANTED(bug_tma_waited_for_by_another) {
    LOADED_TILE(8192)
    if (t < 32) mbarrier_wait(bar, 0);
    p.y[t] = __bfloat162float(tile[t]); // BUG: warps 1 .. 7 have not waited
}

PLANTED(bug_tma_expects_too_little) {
    LOADED_TILE(4096) // BUG
    mbarrier_wait(bar, 0);
    p.y[t] = __bfloat162float(tile[t]);
}

PLANTED(bug_tma_misaligned) {
    FIPK_DYNAMIC_SHARED(bf16, tile);
    FIPK_SHARED(u64, bar, [1]);
    if (threadIdx.x == 0) {
        mbarrier_init(bar, 1);
        mbarrier_expect(bar, 8192);
        tma_load_2d(tile + 64, &p.map, bar, 0, 0); // BUG
        mbarrier_wait(bar, 0);
    }
}

PLANTED(bug_tma_overwrites_what_is_read) {
    LOADED_TILE(8192)
    mbarrier_wait(bar, 0);
    p.y[t] = __bfloat162float(tile[t]);
    if (t == 0) {
        mbarrier_expect(bar, 8192);
        tma_load_2d(tile, &p.map, bar, 0, 0); // BUG: other threads may still read
    }
    mbarrier_wait(bar, 1);
}

PLANTED(bug_tma_outlives_the_block) {
    LOADED_TILE(8192) // BUG: nobody waits
    if (t == 0) p.y[0] = p.x[0];
}

PLANTED(bug_tma_store_without_fence) {
    FIPK_DYNAMIC_SHARED(bf16, tile);
    int t = threadIdx.x;
    for (int i = t; i < 4096; i += 256) tile[i] = __float2bfloat16(1);
    __syncthreads();
    if (t == 0) {
        tma_store_2d(&p.map, tile, 0, 0); // BUG: the writers have not executed fence_proxy_async
        tma_store_commit();
        tma_store_wait<0>();
    }
}

PLANTED(bug_tma_store_not_waited_for) {
    FIPK_DYNAMIC_SHARED(bf16, tile);
    int t = threadIdx.x;
    for (int i = t; i < 4096; i += 256) tile[i] = __float2bfloat16(1);
    fence_proxy_async();
    __syncthreads();
    if (t == 0) {
        tma_store_2d(&p.map, tile, 0, 0);
        tma_store_commit();
        tile[0] = __float2bfloat16(2); // BUG
        tma_store_wait<0>();
    }
}

// ---- wgmma: 64 x 64 x 16, A and B from one tile.

#define STORED_TILE                                                                  \
    FIPK_DYNAMIC_SHARED(bf16, tile);                                                 \
    int t = threadIdx.x;                                                             \
    for (int i = t; i < 4096; i += blockDim.x) tile[i] = __float2bfloat16(1);        \
    float d[32] = {};

PLANTED(bug_wgmma_without_proxy_fence) {
    STORED_TILE
    __syncthreads();
    wgmma_fence();
    wgmma_bf16<64>(d, wgmma_operand(tile), wgmma_operand(tile)); // BUG
    wgmma_commit();
    wgmma_wait<0>();
    p.y[t] = d[0];
}

PLANTED(bug_wgmma_without_fence) {
    STORED_TILE
    fence_proxy_async();
    __syncthreads();
    wgmma_bf16<64>(d, wgmma_operand(tile), wgmma_operand(tile)); // BUG
    wgmma_commit();
    wgmma_wait<0>();
    p.y[t] = d[0];
}

PLANTED(bug_wgmma_operand_overwritten) {
    STORED_TILE
    fence_proxy_async();
    __syncthreads();
    wgmma_fence();
    wgmma_bf16<64>(d, wgmma_operand(tile), wgmma_operand(tile));
    wgmma_commit();
    __syncthreads();
    if (t == 0) tile[0] = __float2bfloat16(2); // BUG
    wgmma_wait<0>();
    p.y[t] = d[0];
}

PLANTED(bug_wgmma_not_waited_for) {
    STORED_TILE
    fence_proxy_async();
    __syncthreads();
    wgmma_fence();
    wgmma_bf16<64>(d, wgmma_operand(tile), wgmma_operand(tile));
    wgmma_commit();
    p.y[t] = d[0];
    // BUG: no wait
}

PLANTED(bug_wgmma_by_three_warps) {
    STORED_TILE
    fence_proxy_async();
    __syncthreads();
    if (t / 32 % 4 == 3) return;
    wgmma_fence();
    wgmma_bf16<64>(d, wgmma_operand(tile), wgmma_operand(tile)); // BUG
    wgmma_commit();
    wgmma_wait<0>();
    p.y[t] = d[0];
}

PLANTED(bug_wgmma_operands_differ) {
    STORED_TILE
    fence_proxy_async();
    __syncthreads();
    wgmma_fence();
    u64 a = wgmma_operand(tile + (t / 32 % 4) * 16);
    wgmma_bf16<64>(d, a, wgmma_operand(tile)); // BUG: one A for all four warps
    wgmma_commit();
    wgmma_wait<0>();
    p.y[t] = d[0];
}

PLANTED(bug_wgmma_operand_misaligned) {
    STORED_TILE
    fence_proxy_async();
    __syncthreads();
    wgmma_fence();
    wgmma_bf16<64>(d, wgmma_operand(tile + 64), wgmma_operand(tile)); // BUG
    wgmma_commit();
    wgmma_wait<0>();
    p.y[t] = d[0];
}
