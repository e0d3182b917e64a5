// The cotangents of masked multi-head attention on tensor cores, bf16; attention_mma.cu is the forward pass, and has the
// layouts and conditions. As Dao 2023 (FlashAttention-2), probabilities are computed anew from lse:
//
//     delta    gy y, a number a query and head, for both that follow
//     vjp_q    p = exp(s - lse), r = p (gy v - delta) / √D; a block's 64 queries over all keys: gq = Σ r k
//     vjp_kv   the same turned: a block's 64 keys over all queries: gv = Σ p gy, gk = Σ r q
//
// Two kernels where one with atomics would do: 7 products in place of 5, for sums whose order is fixed by the shape. In a
// sample with one key the probability is 1 whatever the scores, so r is 0 there, and not the noise of a difference.
//
// mma.sync m16n8k16; a warp takes 16 rows, whose operands (q and gy; k and v) stay in its registers or shared memory, and
// goes through tiles of 32 rows of the other axis, the next by cp.async while one is multiplied (attention_mma.cuh). A
// tile serves two products, by rows (ldmatrix) and by columns (ldmatrix.trans).
//
// FLOPs, with n = 2 B S S H D: vjp_q 3 n, vjp_kv 4 n. Bytes: each tensor once, and the tiles again for every 64 rows, from
// L2. ldmatrix of 512 bytes for each mma of 4096 FLOPs: 1/2. One ex2 a score in each. Not yet run on a GPU.
#include "attention_mma.cuh"

template <int WIDTH, int KEYS, bool HELD> FIPK_DEVICE void attention_vjp_q(const VjpArgs& p) {
    constexpr int ROWS = 16 * WARPS, TILE = KEYS * WIDTH;
    FIPK_DYNAMIC_SHARED(bf16, own);              // [q, gy][ROWS][WIDTH], later of gq
    bf16* const stages = own + 2 * ROWS * WIDTH; // [STAGES][k, v][KEYS][WIDTH]
    const Head h = head_of_block(p.axes, ROWS);
    const Courier<WIDTH> courier(h);
    auto fetch = [&](int tile) {
        bf16* to = stages + tile % STAGES * 2 * TILE;
        courier.template fetch<KEYS>(to, p.k, tile * KEYS);
        courier.template fetch<KEYS>(to + TILE, p.v, tile * KEYS);
    };
    courier.template fetch<ROWS>(own, p.q, h.row0);
    courier.template fetch<ROWS>(own + ROWS * WIDTH, p.gy, h.row0);
    fetch(0);
    cp_async_commit();
    Bits<KEYS> bits(p.mask + h.mask, h.seq);
    const Attended keys = attended_keys(p.mask + h.mask, h.seq);
    const int tiles = (keys.end + KEYS - 1) / KEYS;

    bf16* const mine = own + threadIdx.x / 32 * 16 * WIDTH;
    const int row = h.row0 + threadIdx.x / 32 * 16;
    Operands<WIDTH, 2, HELD> a;
    a.rows[0] = mine;
    a.rows[1] = mine + ROWS * WIDTH;
    float gq[1][WIDTH / 8][4] = {}, lse[2], delta[2];
    load_two(p.lse, h, row, lse);
    load_two(p.delta, h, row, delta);
    const float c = p.axes.scale * LOG2_E, slope = keys.alone ? 0.0f : p.axes.scale;
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile == 0) a.hold();
        if (tile + 1 < tiles) fetch(tile + 1);
        cp_async_commit();
        const bf16* k = stages + tile % STAGES * 2 * TILE;
        float s[2][KEYS / 8][4] = {}; // the scores, and the cotangents of their probabilities
        add_scores<0, 0, 1>(s, a, k);
        add_scores<1, 1, 1>(s, a, k + TILE);
        bits.take(tile * KEYS);
        if (!bits.all()) {
            bits.cover(s[0], -INFINITY);
            bits.cover(s[1], 0.0f);
        }
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float weight = exp2_approx(fmaf(s[0][n][i], c, -lse[i / 2] * LOG2_E));
                s[1][n][i] = weight * slope * (s[1][n][i] - delta[i / 2]);
            }
        }
        u32 w[KEYS / 16][1][4];
        to_weights<0>(w, s[1]);
        add_rows<0, 0, 1, WIDTH>(gq, w, k);
    }
    cp_async_wait<0>();
    __syncthreads();
    put_rows<WIDTH>(mine, h, p.gq, row, gq[0], p.add & 1);
}

// Rows are keys, tiles are of queries. What stands in a padding key reaches only its own row of sums, which is dropped.
// Queries beyond the last are zeros, and so are their gy and delta: they add nothing.
template <int WIDTH, int QUERIES, bool HELD> FIPK_DEVICE void attention_vjp_kv(const VjpArgs& p) {
    constexpr int ROWS = 16 * WARPS, TILE = QUERIES * WIDTH;
    FIPK_DYNAMIC_SHARED(bf16, own);              // [k, v][ROWS][WIDTH], later of gk and gv
    bf16* const stages = own + 2 * ROWS * WIDTH; // [STAGES][q, gy][QUERIES][WIDTH]
    float* const numbers = reinterpret_cast<float*>(stages + STAGES * 2 * TILE); // [STAGES][lse, delta][QUERIES]
    const Head h = head_of_block(p.axes, ROWS);
    const Courier<WIDTH> courier(h);
    auto fetch = [&](int tile) {
        bf16* to = stages + tile % STAGES * 2 * TILE;
        courier.template fetch<QUERIES>(to, p.q, tile * QUERIES);
        courier.template fetch<QUERIES>(to + TILE, p.gy, tile * QUERIES);
        if (threadIdx.x < 2 * QUERIES) {
            const float* from = threadIdx.x < QUERIES ? p.lse : p.delta;
            const int query = tile * QUERIES + static_cast<int>(threadIdx.x) % QUERIES;
            cp_async_4(numbers + tile % STAGES * 2 * QUERIES + threadIdx.x, from + (h.lse + query), query < h.seq);
        }
    };
    courier.template fetch<ROWS>(own, p.k, h.row0);
    courier.template fetch<ROWS>(own + ROWS * WIDTH, p.v, h.row0);
    fetch(0);
    cp_async_commit();
    const Attended keys = attended_keys(p.mask + h.mask, h.seq);
    const int tiles = h.row0 < keys.end ? (h.seq + QUERIES - 1) / QUERIES : 0;

    bf16* const mine = own + threadIdx.x / 32 * 16 * WIDTH;
    const int row = h.row0 + threadIdx.x / 32 * 16;
    Operands<WIDTH, 2, HELD> a;
    a.rows[0] = mine;
    a.rows[1] = mine + ROWS * WIDTH;
    float g[2][WIDTH / 8][4] = {}; // gk and gv
    const float c = p.axes.scale * LOG2_E, slope = keys.alone ? 0.0f : p.axes.scale;
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile == 0) a.hold();
        if (tile + 1 < tiles) fetch(tile + 1);
        cp_async_commit();
        const bf16* q = stages + tile % STAGES * 2 * TILE;
        const float* lse = numbers + tile % STAGES * 2 * QUERIES;
        float s[2][QUERIES / 8][4] = {};
        add_scores<0, 0, 1>(s, a, q);
        add_scores<1, 1, 1>(s, a, q + TILE);
#pragma unroll
        for (int n = 0; n < QUERIES / 8; n++) {
            const int column = 8 * n + threadIdx.x % 4 * 2;
            const float2 of_lse = *reinterpret_cast<const float2*>(lse + column);
            const float2 of_delta = *reinterpret_cast<const float2*>(lse + QUERIES + column);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float less = i % 2 ? of_lse.y : of_lse.x, delta = i % 2 ? of_delta.y : of_delta.x;
                s[0][n][i] = exp2_approx(fmaf(s[0][n][i], c, -less * LOG2_E));
                s[1][n][i] = s[0][n][i] * slope * (s[1][n][i] - delta);
            }
        }
        u32 w[QUERIES / 16][2][4];
        to_weights<0>(w, s[1]);
        to_weights<1>(w, s[0]);
        if (p.gk) add_rows<0, 0, 1, WIDTH>(g, w, q);
        if (p.gv) add_rows<1, 1, 1, WIDTH>(g, w, q + TILE);
    }
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int key = row + threadIdx.x % 32 / 4 + 8 * half;
        if (key < keys.end && p.mask[h.mask + key] != 0) continue;
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++) {
            g[0][n][2 * half] = g[0][n][2 * half + 1] = 0.0f;
            g[1][n][2 * half] = g[1][n][2 * half + 1] = 0.0f;
        }
    }
    if (p.gk) put_rows<WIDTH>(mine, h, p.gk, row, g[0], p.add & 2);
    if (p.gv) put_rows<WIDTH>(mine + ROWS * WIDTH, h, p.gv, row, g[1], p.add & 4);
}

// A row of D elements for every 16 lanes, 8 elements each.
FIPK_KERNEL(attention_mma_delta, DeltaArgs, THREADS) {
    constexpr int LANES = 16;
    const int lane = threadIdx.x % LANES, each = THREADS / LANES;
    const u64 stride = static_cast<u64>(gridDim.x) * each, turns = (p.rows + stride - 1) / stride;
    for (u64 turn = 0; turn < turns; turn++) {
        const u64 row = turn * stride + static_cast<u64>(blockIdx.x) * each + threadIdx.x / LANES;
        float sum = 0.0f;
        if (row < p.rows && 8 * lane < static_cast<int>(p.dim)) {
            const Pack<bf16> y = load_pack<bf16>(p.y, row * p.dim + 8 * lane);
            const Pack<bf16> gy = load_pack<bf16>(p.gy, row * p.dim + 8 * lane);
#pragma unroll
            for (int i = 0; i < 8; i++) sum += y.v[i] * gy.v[i];
        }
#pragma unroll
        for (int step = LANES / 2; step > 0; step >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, step);
        const u64 head = row % p.heads, token = row / p.heads;
        if (lane == 0 && row < p.rows) p.delta[(token / p.seq * p.heads + head) * p.seq + token % p.seq] = sum;
    }
}

// attention_mma_<pass>_<rows>x<the others>_<width>: held, where a warp's rows fit its registers.
#define MMA_VJP(tile, width, held)                                             \
    FIPK_KERNEL(attention_mma_vjp_q_64x##tile##_##width, VjpArgs, THREADS) {   \
        attention_vjp_q<width, tile, held>(p);                                  \
    }                                                                           \
    FIPK_KERNEL(attention_mma_vjp_kv_64x##tile##_##width, VjpArgs, THREADS) {  \
        attention_vjp_kv<width, tile, held>(p);                                 \
    }
MMA_VJP(32, 32, true)
MMA_VJP(32, 48, true)
MMA_VJP(32, 64, true)
MMA_VJP(32, 80, true)
MMA_VJP(32, 96, true)
MMA_VJP(32, 128, false)
