// The wrappers of ptx.cuh, each in a kernel of its own: known inputs in, what the wrapper made of them out, so that a
// first run on a device compares wrapper by wrapper with plain arithmetic. Not yet run on a GPU.
//
// One block each. Matrices are dense and row-major, elements as the kernel's comment says; what it computes does
// not depend on how fragments are laid out. Kernels under FIPK_SM90A are in the images of sm_90a alone.
#include "ptx.cuh"

struct WrapperArgs {
    const void* a;
    const void* b;
    const void* c;
    void* d;
    u64 n;
};
FIPK_ARGS(WrapperArgs, 40);

// ---- Tensor cores of a warp: 32 threads.

FIPK_DEVICE u32 pair_at(const void* matrix, int row, int column, int columns) {
    return static_cast<const u32*>(matrix)[(row * columns + column) / 2];
}

// C into the accumulators of an m16n8 product, and out of them.
FIPK_DEVICE void load_16x8(float (&d)[4], const void* c) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; i++) d[i] = static_cast<const float*>(c)[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)];
}
FIPK_DEVICE void store_16x8(void* c, const float (&d)[4]) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; i++) static_cast<float*>(c)[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = d[i];
}

// D = A Bᵀ + C. a: bf16 [16, 16], b: bf16 [8, 16], c, d: f32 [16, 8].
FIPK_KERNEL(wrapper_mma_bf16, WrapperArgs, 32) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    u32 a[4], b[2];
    float d[4];
    for (int i = 0; i < 4; i++) a[i] = pair_at(p.a, g + 8 * (i & 1), 2 * t + 8 * (i >> 1), 16);
    for (int i = 0; i < 2; i++) b[i] = pair_at(p.b, g, 2 * t + 8 * i, 16);
    load_16x8(d, p.c);
    mma_bf16(d, a, b);
    store_16x8(p.d, d);
}

// D = tf32(A) tf32(B)ᵀ + C. a: f32 [16, 8], b: f32 [8, 8], c, d: f32 [16, 8]; tf32 as wrapper_to_tf32.
FIPK_KERNEL(wrapper_mma_tf32, WrapperArgs, 32) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    u32 a[4], b[2];
    float d[4];
    for (int i = 0; i < 4; i++) {
        a[i] = to_tf32(static_cast<const float*>(p.a)[(g + 8 * (i & 1)) * 8 + t + 4 * (i >> 1)]);
    }
    for (int i = 0; i < 2; i++) b[i] = to_tf32(static_cast<const float*>(p.b)[g * 8 + t + 4 * i]);
    load_16x8(d, p.c);
    mma_tf32(d, a, b);
    store_16x8(p.d, d);
}

// d = a, rounded to 10 bits of mantissa, ties away from zero. a, d: f32 [n].
FIPK_KERNEL(wrapper_to_tf32, WrapperArgs, 32) {
    for (u64 i = threadIdx.x; i < p.n; i += 32) {
        static_cast<float*>(p.d)[i] = __uint_as_float(to_tf32(static_cast<const float*>(p.a)[i]));
    }
}

// d = 2^a. a, d: f32 [n].
FIPK_KERNEL(wrapper_exp2_approx, WrapperArgs, 32) {
    for (u64 i = threadIdx.x; i < p.n; i += 32) {
        static_cast<float*>(p.d)[i] = exp2_approx(static_cast<const float*>(p.a)[i]);
    }
}

// Matrices of 8 x 8 from a into shared memory, a row a thread.
template <int N> FIPK_DEVICE const bf16* stage_matrices(const void* a) {
    FIPK_SHARED(uint4, rows, [8 * N]);
    int lane = threadIdx.x;
    if (lane < 8 * N) rows[lane] = static_cast<const uint4*>(a)[lane];
    __syncwarp();
    return reinterpret_cast<const bf16*>(rows) + (lane % (8 * N)) * 8;
}
template <int N> FIPK_DEVICE void store_matrices(void* d, const u32 (&r)[N]) {
    for (int i = 0; i < N; i++) static_cast<u32*>(d)[i * 32 + threadIdx.x] = r[i];
}

// d[i] = a[i], and d[i] = a[i]ᵀ. a, d: N matrices of any 16 bits [8, 8].
FIPK_KERNEL(wrapper_ldmatrix_x4, WrapperArgs, 32) {
    u32 r[4];
    ldmatrix_x4(r, stage_matrices<4>(p.a));
    store_matrices(p.d, r);
}
FIPK_KERNEL(wrapper_ldmatrix_x4_trans, WrapperArgs, 32) {
    u32 r[4];
    ldmatrix_x4_trans(r, stage_matrices<4>(p.a));
    store_matrices(p.d, r);
}
FIPK_KERNEL(wrapper_ldmatrix_x2, WrapperArgs, 32) {
    u32 r[2];
    ldmatrix_x2(r, stage_matrices<2>(p.a));
    store_matrices(p.d, r);
}
FIPK_KERNEL(wrapper_ldmatrix_x2_trans, WrapperArgs, 32) {
    u32 r[2];
    ldmatrix_x2_trans(r, stage_matrices<2>(p.a));
    store_matrices(p.d, r);
}

// ---- cp.async.

// d[i] = a[i] for i < n, then zeros. a: f32 [n], n a multiple of 4; d: f32 [512]. 128 threads.
FIPK_KERNEL(wrapper_cp_async_16, WrapperArgs, 128) {
    FIPK_SHARED(float4, s, [128]);
    int t = threadIdx.x;
    bool take = 4 * static_cast<u64>(t) < p.n;
    cp_async_16(&s[t], static_cast<const float4*>(p.a) + (take ? t : 0), take);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    static_cast<float4*>(p.d)[127 - t] = s[127 - t];
}

// As above: a: f32 [n], d: f32 [128].
FIPK_KERNEL(wrapper_cp_async_4, WrapperArgs, 128) {
    FIPK_SHARED(float, s, [128]);
    int t = threadIdx.x;
    bool take = static_cast<u64>(t) < p.n;
    cp_async_4(&s[t], static_cast<const float*>(p.a) + (take ? t : 0), take);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    static_cast<float*>(p.d)[127 - t] = s[127 - t];
}

// d[i] = a[i]: pieces of 128 through two buffers, one being filled while the other is read. a, d: f32 [n], n a multiple
// of 128. 128 threads.
FIPK_KERNEL(wrapper_cp_async_wait, WrapperArgs, 128) {
    FIPK_SHARED(float, s, [2][128]);
    int t = threadIdx.x, pieces = static_cast<int>(p.n / 128);
    const float* a = static_cast<const float*>(p.a);
    cp_async_4(&s[0][t], a + t);
    cp_async_commit();
    for (int i = 0; i < pieces; i++) {
        if (i + 1 < pieces) cp_async_4(&s[(i + 1) & 1][t], a + (i + 1) * 128 + t);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        static_cast<float*>(p.d)[i * 128 + 127 - t] = s[i & 1][127 - t];
        __syncthreads();
    }
}

// ---- Named barriers: 128 threads.

// d[i] = a[i ^ 63]. a, d: f32 [128]. Each half meets at a barrier of its own.
FIPK_KERNEL(wrapper_bar_sync, WrapperArgs, 128) {
    FIPK_SHARED(float, s, [128]);
    int t = threadIdx.x;
    s[t] = static_cast<const float*>(p.a)[t];
    bar_sync(1 + t / 64, 64);
    static_cast<float*>(p.d)[t] = s[t ^ 63];
}

// d[i] = a[i]. a, d: f32 [64, n]. Warps 0 and 1 hand each column to warps 2 and 3, which hand the buffer back.
FIPK_KERNEL(wrapper_bar_arrive, WrapperArgs, 128) {
    FIPK_SHARED(float, s, [64]);
    constexpr int FULL = 1, EMPTY = 2;
    int t = threadIdx.x, n = static_cast<int>(p.n);
    for (int i = 0; i < n; i++) {
        if (t < 64) {
            if (i > 0) bar_sync(EMPTY, 128);
            s[t] = static_cast<const float*>(p.a)[t * n + i];
            bar_arrive(FULL, 128);
        } else {
            bar_sync(FULL, 128);
            int row = 127 - t;
            static_cast<float*>(p.d)[row * n + i] = s[row];
            if (i + 1 < n) bar_arrive(EMPTY, 128);
        }
    }
}

#if FIPK_SM90A

struct WrapperMapArgs {
    TensorMap a_map, b_map;
    const void* c;
    void* d;
    int x, y;
    u64 pad[5];
};
FIPK_ARGS(WrapperMapArgs, 320);

// As wrapper_bar_arrive, with barriers in shared memory.
FIPK_KERNEL(wrapper_mbarrier, WrapperArgs, 128) {
    FIPK_SHARED(float, s, [64]);
    FIPK_SHARED(u64, bars, [2]);
    u64 *full = &bars[0], *empty = &bars[1];
    int t = threadIdx.x, n = static_cast<int>(p.n);
    if (t == 0) {
        mbarrier_init(full, 64);
        mbarrier_init(empty, 64);
        mbarrier_init_fence();
    }
    __syncthreads();
    for (int i = 0; i < n; i++) {
        if (t < 64) {
            if (i > 0) mbarrier_wait(empty, (i - 1) & 1);
            s[t] = static_cast<const float*>(p.a)[t * n + i];
            mbarrier_arrive(full);
        } else {
            while (!mbarrier_try_wait(full, i & 1)) {
            }
            int row = 127 - t;
            static_cast<float*>(p.d)[row * n + i] = s[row];
            mbarrier_arrive(empty);
        }
    }
}

// d[i] = a[i]. a, d: f32 [n], n a multiple of 4 and at most 4096. 128 threads; dynamic shared memory of 4 n bytes.
FIPK_KERNEL(wrapper_bulk_load, WrapperArgs, 128) {
    FIPK_DYNAMIC_SHARED(float, s);
    FIPK_SHARED(u64, bar, [1]);
    int t = threadIdx.x, n = static_cast<int>(p.n);
    if (t == 0) {
        mbarrier_init(bar, 1);
        mbarrier_init_fence();
    }
    __syncthreads();
    if (t == 0) {
        mbarrier_expect(bar, 4 * n);
        bulk_load(s, p.a, 4 * n, bar);
    }
    mbarrier_wait(bar, 0);
    for (int i = t; i < n; i += 128) static_cast<float*>(p.d)[i] = s[i];
}

// Element (row, column) of a tile of 64 columns as TMA swizzles it.
FIPK_DEVICE int swizzled(int row, int column) { return row * 64 + ((column / 8 ^ row % 8) * 8 | column % 8); }

// D = rows y .. y + 63 and columns x .. x + 63 of the plane a, zeros outside of it. a_map: boxes of 64 x 64; d: bf16
// [64, 64]. 128 threads; 8192 bytes of dynamic shared memory.
FIPK_KERNEL(wrapper_tma_load, WrapperMapArgs, 128) {
    FIPK_DYNAMIC_SHARED(bf16, tile);
    FIPK_SHARED(u64, bar, [1]);
    int t = threadIdx.x;
    if (t == 0) {
        tma_prefetch(&p.a_map);
        mbarrier_init(bar, 1);
        mbarrier_init_fence();
    }
    __syncthreads();
    if (t == 0) {
        mbarrier_expect(bar, 8192);
        tma_load_2d(tile, &p.a_map, bar, p.x, p.y);
    }
    mbarrier_wait(bar, 0);
    for (int i = t; i < 64 * 64; i += 128) static_cast<bf16*>(p.d)[i] = tile[swizzled(i / 64, i % 64)];
}

// Rows y .. and columns x .. of the plane a become C, as far as they lie in it. a_map: boxes of 64 x 64; c: bf16
// [64, 64]. 128 threads; 8192 bytes of dynamic shared memory.
FIPK_KERNEL(wrapper_tma_store, WrapperMapArgs, 128) {
    FIPK_DYNAMIC_SHARED(bf16, tile);
    int t = threadIdx.x;
    for (int i = t; i < 64 * 64; i += 128) tile[swizzled(i / 64, i % 64)] = static_cast<const bf16*>(p.c)[i];
    fence_proxy_async();
    __syncthreads();
    if (t == 0) {
        tma_store_2d(&p.a_map, tile, p.x, p.y);
        tma_store_commit();
        tma_store_wait<0>();
    }
}

// D = A Bᵀ + C, or A Bᵀ where c is null, with 64 along k. a_map: bf16 [64, 64], in one box; b_map: bf16 [N, 64], in one
// box. Turned, A is [k, m], and B [k, n], in boxes of 64 x 64. c, d: f32 [64, N]. 128 threads; 8192 + 128 N bytes of
// dynamic shared memory.
template <int N, bool A_TURNED, bool B_TURNED> FIPK_DEVICE void multiply(const WrapperMapArgs& p) {
    FIPK_DYNAMIC_SHARED(bf16, a);
    FIPK_SHARED(u64, bar, [1]);
    bf16* b = a + 64 * 64;
    int t = threadIdx.x, lane = t % 32;
    if (t == 0) {
        mbarrier_init(bar, 1);
        mbarrier_init_fence();
    }
    __syncthreads();
    if (t == 0) {
        mbarrier_expect(bar, 8192 + 128 * N);
        tma_load_2d(a, &p.a_map, bar, 0, 0);
        for (int n = 0; n < (B_TURNED ? N : 64); n += 64) tma_load_2d(b + n * 64, &p.b_map, bar, n, 0);
    }
    const float* c = static_cast<const float*>(p.c);
    int row = t / 32 * 16 + lane / 4, column = lane % 4 * 2;
    auto place = [=](int i) { return (row + 8 * (i >> 1 & 1)) * N + 8 * (i >> 2) + column + (i & 1); };
    float d[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) d[i] = c ? c[place(i)] : 0;
    mbarrier_wait(bar, 0);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 64; k += 16) {
        u64 of_a = A_TURNED ? wgmma_operand_turned(a + k * 64, 8192) : wgmma_operand(a + k);
        u64 of_b = B_TURNED ? wgmma_operand_turned(b + k * 64, 8192) : wgmma_operand(b + k);
        wgmma_bf16<N, A_TURNED, B_TURNED>(d, of_a, of_b, k > 0 || c);
    }
    wgmma_commit();
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < N / 2; i++) static_cast<float*>(p.d)[place(i)] = d[i];
}
#define WGMMA(n)                                                                               \
    FIPK_KERNEL(wrapper_wgmma_nt_##n, WrapperMapArgs, 128) { multiply<n, false, false>(p); }   \
    FIPK_KERNEL(wrapper_wgmma_nn_##n, WrapperMapArgs, 128) { multiply<n, false, true>(p); }    \
    FIPK_KERNEL(wrapper_wgmma_tn_##n, WrapperMapArgs, 128) { multiply<n, true, true>(p); }
WGMMA(64)
WGMMA(128)
WGMMA(192)
WGMMA(256)

// d[i] = a[i]. a, d: f32 [256]. The first warpgroup gives registers to the second. 256 threads. The number of
// blocks is named because setmaxnreg is otherwise ignored.
FIPK_KERNEL_BLOCKS(wrapper_registers, WrapperArgs, 256, 1) {
    if (threadIdx.x < 128) {
        registers_lower<24>();
    } else {
        registers_raise<160>();
    }
    static_cast<float*>(p.d)[threadIdx.x] = static_cast<const float*>(p.a)[threadIdx.x];
}

#endif // FIPK_SM90A
