// Masked multi-head attention on tensor cores, bf16: y = softmax(q kᵀ / √D + mask) v for each head, and its tangent.
//
// Layouts as in attention_args.cuh, all of bf16; D is a multiple of 8, at most 128, bases are aligned to 16 bytes. As Dao
// 2023 (FlashAttention-2) does, each warp owns rows of queries and goes through the keys with running maxima and sums:
//
//     forward  m, l: a maximum of a row and Σ exp(s - m) so far; o = Σ p v / l, p = exp(s - m); lse = m + log l
//     dual     the same, and t = p (dq k + q dk) / √D with it: do = (Σ t v + Σ p dv - (Σ t) o) / l, in one pass
//     jvp      do alone, p = exp(s - lse) and o = y from the forward pass
//
// Scores, p and t never leave registers: the accumulators of q kᵀ are, rounded to bf16, the operand of p v. Σ t is summed
// as rounded, so that in do the errors of t meet v - o and not v. Sums are f32; every order is fixed by the shape.
//
// mma.sync m16n8k16. A block of 4 warps takes 64 queries (forward also 128: two times 16 a warp, for half the reads of
// shared memory) of one head; k, v and their tangents come in tiles of 64 or 32 keys by cp.async, the next while one is
// multiplied (attention_mma.cuh). Tiles after the last key to attend to are not read. What tangent is absent (null) costs
// no product, but for dq, which is then zeros.
//
// FLOPs, with n = 2 B S S H D: forward 2 n, jvp 5 n, dual 6 n (7 n apart). Bytes: each tensor once, and k, v and their
// tangents again for every 64 (128) queries, from L2. ldmatrix of 512 bytes for each mma of 4096 FLOPs: forward 1/2
// (1/4 of 128 queries), dual 1/3, since a fragment of k serves q and dq, one of v both p and t. One ex2 a score.
// Not yet run on a GPU.
#include "attention_mma.cuh"

// s: the scores of 16 queries and a tile of keys; becomes exp(s - base). `base` is a row's maximum at some tile: it is
// raised only once a score exceeds it by SLACK powers of two, which f32 and bf16 bear without loss, so that the sums so
// far seldom have to follow (as FlashAttention-4 does). Returns whether any row of the warp was raised; `shrink` is what
// a row's sums are then to be multiplied by. c = log2 e / √D.
constexpr float SLACK = 8.0f;
template <int KEYS>
FIPK_DEVICE bool exponentials(float (&s)[KEYS / 8][4], float c, float (&base)[2], float (&total)[2], float (&shrink)[2]) {
    bool rises = false;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float most = s[0][2 * half];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) most = fmaxf(most, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        most = row_max(most);
        // While all keys were padding, both are -inf, and their difference is no number.
        const bool rise = (most - base[half]) * c > SLACK;
        shrink[half] = rise ? exp2_approx((base[half] - most) * c) : 1.0f;
        if (rise) base[half] = most;
        total[half] *= shrink[half];
        // Where there is no maximum yet any finite number will do.
        const float less = base[half] == -INFINITY ? 0.0f : -base[half] * c;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                s[n][i] = exp2_approx(fmaf(s[n][i], c, less));
                total[half] += s[n][i];
            }
        }
        rises |= rise;
    }
    return __any_sync(0xffffffffu, rises);
}

// The end of a row: the sum's inverse, and lse, which one of the four threads that share the row stores.
FIPK_DEVICE void finish_rows(const Head& h, int row, bool any, float scale, const float (&base)[2], float (&total)[2],
                             float* lse) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float sum = row_sum(total[half]);
        const int r = row + threadIdx.x % 32 / 4 + 8 * half;
        if (threadIdx.x % 4 == 0 && r < h.seq) lse[h.lse + r] = any ? base[half] * scale + logf(sum) : 0.0f;
        total[half] = any ? 1.0f / sum : 0.0f;
    }
}

// M times 16 queries a warp.
template <int WIDTH, int M, int KEYS, bool HELD> FIPK_DEVICE void attention_forward(const ForwardArgs& p) {
    constexpr int ROWS = 16 * M * WARPS, TILE = KEYS * WIDTH;
    FIPK_DYNAMIC_SHARED(bf16, own);        // [ROWS][WIDTH] of q, later of y
    bf16* const stages = own + ROWS * WIDTH; // [STAGES][k, v][KEYS][WIDTH]
    const Head h = head_of_block(p.axes, ROWS);
    const Courier<WIDTH> courier(h);
    auto fetch = [&](int tile) {
        bf16* to = stages + tile % STAGES * 2 * TILE;
        courier.template fetch<KEYS>(to, p.k, tile * KEYS);
        courier.template fetch<KEYS>(to + TILE, p.v, tile * KEYS);
    };
    courier.template fetch<ROWS>(own, p.q, h.row0);
    fetch(0);
    cp_async_commit();
    Bits<KEYS> bits(p.mask + h.mask, h.seq);
    const Attended keys = attended_keys(p.mask + h.mask, h.seq);
    const int tiles = (keys.end + KEYS - 1) / KEYS;

    bf16* const mine = own + threadIdx.x / 32 * 16 * M * WIDTH;
    Operands<WIDTH, M, HELD> q;
#pragma unroll
    for (int m = 0; m < M; m++) q.rows[m] = mine + m * 16 * WIDTH;
    float out[M][WIDTH / 8][4] = {}, base[M][2], total[M][2] = {};
#pragma unroll
    for (int m = 0; m < M; m++) base[m][0] = base[m][1] = -INFINITY;
    const float c = p.axes.scale * LOG2_E;
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile == 0) q.hold();
        if (tile + 1 < tiles) fetch(tile + 1);
        cp_async_commit();
        const bf16* k = stages + tile % STAGES * 2 * TILE;
        float s[M][KEYS / 8][4] = {};
        add_scores<0, 0, M>(s, q, k);
        bits.take(tile * KEYS);
        const bool all = bits.all();
        u32 w[KEYS / 16][M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            if (!all) bits.cover(s[m], -INFINITY);
            float shrink[2];
            if (exponentials<KEYS>(s[m], c, base[m], total[m], shrink)) {
                scale_row(out[m], 0, shrink[0]);
                scale_row(out[m], 1, shrink[1]);
            }
        }
        if constexpr (M == 1) {
            to_weights<0>(w, s[0]);
        } else {
            to_weights<0>(w, s[0]);
            to_weights<1>(w, s[1]);
        }
        add_rows<0, 0, M, WIDTH>(out, w, k + TILE);
    }
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int m = 0; m < M; m++) {
        const int row = h.row0 + (threadIdx.x / 32 * M + m) * 16;
        finish_rows(h, row, keys.end > 0, p.axes.scale, base[m], total[m], p.lse);
        scale_row(out[m], 0, total[m][0]);
        scale_row(out[m], 1, total[m][1]);
        put_rows<WIDTH>(mine + m * 16 * WIDTH, h, p.y, row, out[m], false);
    }
}

// d -= by y for 16 rows from `row`.
template <int WIDTH>
FIPK_DEVICE void subtract_rows(const Head& h, const void* y, int row, const float (&by)[2], float (&d)[WIDTH / 8][4]) {
    const bf16* at = static_cast<const bf16*>(y) + (h.at + static_cast<u64>(row) * h.width);
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int r = lane / 4 + 8 * half;
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++) {
            if (row + r >= h.seq || 8 * n >= h.dim) continue;
            const u32 pair = *reinterpret_cast<const u32*>(at + r * h.width + 8 * n + lane % 4 * 2);
            d[n][2 * half] -= by[half] * bf16_low(pair);
            d[n][2 * half + 1] -= by[half] * bf16_high(pair);
        }
    }
}

// FORWARD: y and lse are written, else read.
template <int WIDTH, int KEYS, bool HELD, bool FORWARD> FIPK_DEVICE void attention_dual(const DualArgs& p) {
    constexpr int ROWS = 16 * WARPS, TILE = KEYS * WIDTH;
    FIPK_DYNAMIC_SHARED(bf16, own);              // [q, dq][ROWS][WIDTH], later of y and dy
    bf16* const stages = own + 2 * ROWS * WIDTH; // [STAGES][k, dk, v, dv][KEYS][WIDTH]
    const Head h = head_of_block(p.axes, ROWS);
    const Courier<WIDTH> courier(h);
    auto fetch = [&](int tile) {
        bf16* to = stages + tile % STAGES * 4 * TILE;
        courier.template fetch<KEYS>(to, p.k, tile * KEYS);
        if (p.dk) courier.template fetch<KEYS>(to + TILE, p.dk, tile * KEYS);
        courier.template fetch<KEYS>(to + 2 * TILE, p.v, tile * KEYS);
        if (p.dv) courier.template fetch<KEYS>(to + 3 * TILE, p.dv, tile * KEYS);
    };
    courier.template fetch<ROWS>(own, p.q, h.row0);
    courier.template fetch<ROWS>(own + ROWS * WIDTH, p.dq ? p.dq : p.q, h.row0, p.dq ? h.seq : 0);
    fetch(0);
    cp_async_commit();
    Bits<KEYS> bits(p.mask + h.mask, h.seq);
    const Attended keys = attended_keys(p.mask + h.mask, h.seq);
    const int tiles = (keys.end + KEYS - 1) / KEYS;

    bf16* const mine = own + threadIdx.x / 32 * 16 * WIDTH;
    const int row = h.row0 + threadIdx.x / 32 * 16;
    Operands<WIDTH, 2, HELD> q;
    q.rows[0] = mine;
    q.rows[1] = mine + ROWS * WIDTH;
    // o and do, or do alone; then a row's Σ t.
    constexpr int SUMS = FORWARD ? 2 : 1;
    float out[SUMS][WIDTH / 8][4] = {}, moved[2] = {};
    // What is taken from the scores: with FORWARD as they are, else in powers of 2.
    float base[2] = {-INFINITY, -INFINITY}, total[2] = {};
    if constexpr (!FORWARD) {
        load_two(p.lse, h, row, base);
        base[0] *= LOG2_E, base[1] *= LOG2_E;
    }
    const float c = p.axes.scale * LOG2_E, slope = keys.alone ? 0.0f : p.axes.scale;
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile == 0) q.hold();
        if (tile + 1 < tiles) fetch(tile + 1);
        cp_async_commit();
        const bf16* k = stages + tile % STAGES * 4 * TILE;
        float s[2][KEYS / 8][4] = {}; // the scores, and their tangents
        add_scores<0, 0, 2>(s, q, k);
        if (p.dk) add_scores<0, 1, 1>(s, q, k + TILE);
        bits.take(tile * KEYS);
        if (!bits.all()) {
            bits.cover(s[0], -INFINITY);
            bits.cover(s[1], 0.0f);
        }
        if constexpr (FORWARD) {
            float shrink[2];
            if (exponentials<KEYS>(s[0], c, base, total, shrink)) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    moved[half] *= shrink[half];
                    scale_row(out[0], half, shrink[half]);
                    scale_row(out[1], half, shrink[half]);
                }
            }
        } else {
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) s[0][n][i] = exp2_approx(fmaf(s[0][n][i], c, -base[i / 2]));
            }
        }
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) s[1][n][i] *= s[0][n][i] * slope;
        }
        u32 w[KEYS / 16][2][4]; // p and t
        to_weights<0>(w, s[0]);
        to_weights<1>(w, s[1]);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const u32 pair = w[n / 2][1][n % 2 * 2 + half];
                moved[half] += bf16_low(pair) + bf16_high(pair);
            }
        }
        if constexpr (FORWARD) {
            add_rows<0, 0, 2, WIDTH>(out, w, k + 2 * TILE);
        } else {
            add_rows<1, 0, 1, WIDTH>(out, w, k + 2 * TILE);
        }
        if (p.dv) add_rows<0, SUMS - 1, 1, WIDTH>(out, w, k + 3 * TILE);
    }
    cp_async_wait<0>();
    __syncthreads();
    moved[0] = row_sum(moved[0]), moved[1] = row_sum(moved[1]);
    if constexpr (FORWARD) {
        finish_rows(h, row, keys.end > 0, p.axes.scale, base, total, p.lse);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float by = moved[half] * total[half];
            scale_row(out[0], half, total[half]);
            scale_row(out[1], half, total[half]);
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++) {
                out[1][n][2 * half] -= by * out[0][n][2 * half];
                out[1][n][2 * half + 1] -= by * out[0][n][2 * half + 1];
            }
        }
        put_rows<WIDTH>(mine, h, p.y, row, out[0], false);
    } else {
        subtract_rows<WIDTH>(h, p.y, row, moved, out[0]);
    }
    put_rows<WIDTH>(mine + ROWS * WIDTH, h, p.dy, row, out[SUMS - 1], false);
}

// attention_mma_<pass>_<queries>x<keys>_<width>: held, where a warp's queries fit its registers.
#define MMA_FORWARD(m, keys, width, held)                                                                  \
    FIPK_KERNEL(attention_mma_forward_##m##x##keys##_##width, ForwardArgs, THREADS) {                   \
        attention_forward<width, m / 64, keys, held>(p);                                                \
    }
#define MMA_DUAL(keys, width, held)                                                    \
    FIPK_KERNEL(attention_mma_dual_64x##keys##_##width, DualArgs, THREADS) {        \
        attention_dual<width, keys, held, true>(p);                                 \
    }                                                                               \
    FIPK_KERNEL(attention_mma_jvp_64x##keys##_##width, DualArgs, THREADS) {         \
        attention_dual<width, keys, held, false>(p);                                \
    }
MMA_FORWARD(64, 64, 32, true)
MMA_FORWARD(64, 64, 48, true)
MMA_FORWARD(64, 64, 64, true)
MMA_FORWARD(64, 64, 80, true)
MMA_FORWARD(64, 64, 96, true)
MMA_FORWARD(64, 64, 128, true)
MMA_FORWARD(128, 64, 32, true)
MMA_FORWARD(128, 64, 48, true)
MMA_FORWARD(128, 64, 64, true)
MMA_FORWARD(128, 64, 80, false)
MMA_FORWARD(128, 32, 96, false)
MMA_FORWARD(128, 32, 128, false)
MMA_DUAL(32, 32, true)
MMA_DUAL(32, 48, true)
MMA_DUAL(32, 64, true)
MMA_DUAL(32, 80, true)
MMA_DUAL(32, 96, false)
MMA_DUAL(32, 128, false)
