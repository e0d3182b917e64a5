// Masked multi-head attention, portable: y = softmax(q kᵀ / √D + mask) v for each head, its tangent and cotangents.
//
// Layouts as in attention_args.cuh, of f32 or bf16; any D. These judge the kernels for tensor cores (attention_mma.cu), and
// take what those do not. As Dao et al. 2022 do, no S x S tensor leaves the block:
//
//     forward  running maximum and sum over tiles of keys; y and lse at the end
//     jvp      p = exp(s - lse), t = p (dq k + q dk) / √D; dy = Σ t v + Σ p dv - (Σ t) (Σ p v), in one pass
//     vjp_q    r = p (gy v - gy y) / √D; gq = Σ r k over tiles of keys
//     vjp_kv   the same for a tile of keys over tiles of queries: gv = Σ p gy, gk = Σ r q
//     delta    gy y, a number a query and head, for both
//
// In a sample with one key the probability is 1 whatever the scores: t and r are 0 there, and not the noise of a
// difference.
//
// A block of 256 threads owns 64 rows (queries; keys in vjp_kv) of one head of one sample, and goes through the other
// axis 64 columns at a time: a 64 x 64 tile of scores, 4 x 4 a thread, from slices of D in shared memory; the weights
// made of it, laid down in shared memory; and their product with rows of v (k, q, ..) in 64 x WIDTH sums in registers,
// for WIDTH 32, 64, 96 or 128. Heads wider than 128 take a block for every WIDTH columns. Tiles after the last key to
// attend to are left out. Every sum's order is fixed by the shape.
//
// FLOPs, with n = 2 B S S H D: forward 2 n, jvp 6 n (o is summed anew in f32, since Σ t v and (Σ t) o cancel), vjp_q
// 3 n, vjp_kv 4 n. Bytes: each tensor once, and what a block reads of the other axis again for every 64 rows, mostly
// from L2. 16 FMA for two 16-byte reads of shared memory. Not yet run on a GPU.
#include "attention_tiles.cuh"
#include "reduce.cuh"

template <class T, int WIDTH> FIPK_DEVICE void attention_forward(const ForwardArgs& p) {
    TILES;
    const Head h = head_of_block<WIDTH>(p.axes);
    const int* mask = p.mask + h.sample * h.seq;
    const u64 keys = attended_keys(mask, h.seq).end;

    Rows<T, WIDTH> out;
    // Of the scores so far: a row's maximum, and this thread's part of Σ exp(s - maximum).
    float top[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, total[4] = {};
    for (u64 key = 0; key < keys; key += SIDE) {
        float s[4][4] = {};
        add_scores<T>(h, p.q, h.row0, p.k, key, stage, s);
        bool on[4];
        attended(mask, key + tile_column(), keys, on);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float most = -INFINITY;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s[i][j] = on[j] ? s[i][j] * h.scale : -INFINITY;
                most = fmaxf(most, s[i][j]);
            }
            const float now = fmaxf(top[i], row_max(most));
            // While all keys were padding, the maximum is -inf: any finite number will do in its place.
            const float base = now == -INFINITY ? 0.0f : now;
            const float shrink = expf(top[i] - base);
            top[i] = now;
            total[i] *= shrink;
            out.scale_row(i, shrink);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s[i][j] = expf(s[i][j] - base);
                total[i] += s[i][j];
            }
        }
        lay_weights(s, weights);
        out.add(h, weights, p.v, key, stage);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float sum = row_sum(total[i]);
        const u64 row = h.row0 + tile_row() + i;
        const bool writes = tile_column() == 0 && h.column0 == 0 && row < h.seq;
        if (writes) p.lse[h.lse + row] = keys > 0 ? top[i] + logf(sum) : 0.0f;
        out.scale_row(i, keys > 0 ? 1.0f / sum : 0.0f);
    }
    out.put_all(h, p.y, false);
}

template <class T, int WIDTH> FIPK_DEVICE void attention_jvp(const JvpArgs& p) {
    TILES;
    const Head h = head_of_block<WIDTH>(p.axes);
    const int* mask = p.mask + h.sample * h.seq;
    const bool scores_move = p.dq || p.dk;
    const Attended keys_there = attended_keys(mask, h.seq);
    const u64 keys = scores_move || p.dv ? keys_there.end : 0;
    const float slope = keys_there.alone ? 0.0f : h.scale;

    Rows<T, WIDTH> out, tangent;
    float lse[4], mean[4] = {};
    load_rows(p.lse, h, h.row0 + tile_row(), lse);
    for (u64 key = 0; key < keys; key += SIDE) {
        float s[4][4] = {}, t[4][4] = {};
        add_scores<T>(h, p.q, h.row0, p.k, key, stage, s);
        if (p.dq) add_scores<T>(h, p.dq, h.row0, p.k, key, stage, t);
        if (p.dk) add_scores<T>(h, p.q, h.row0, p.dk, key, stage, t);
        bool on[4];
        attended(mask, key + tile_column(), keys, on);
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s[i][j] = on[j] ? expf(s[i][j] * h.scale - lse[i]) : 0.0f;
                // Not 0 · t: what stands in a padding key may be anything.
                t[i][j] = on[j] ? s[i][j] * t[i][j] * slope : 0.0f;
                mean[i] += t[i][j];
            }
        }
        lay_weights(s, weights);
        if (p.dv) tangent.add(h, weights, p.dv, key, stage);
        if (!scores_move) continue;
        out.add(h, weights, p.v, key, stage);
        lay_weights(t, weights);
        tangent.add(h, weights, p.v, key, stage);
    }
    if (scores_move) {
#pragma unroll
        for (int i = 0; i < 4; i++) tangent.subtract_row(i, row_sum(mean[i]), out);
    }
    tangent.put_all(h, p.dy, false);
}

template <class T, int WIDTH> FIPK_DEVICE void attention_vjp_q(const VjpArgs& p) {
    TILES;
    const Head h = head_of_block<WIDTH>(p.axes);
    const int* mask = p.mask + h.sample * h.seq;
    const Attended keys_there = attended_keys(mask, h.seq);
    const u64 keys = keys_there.end;
    const float slope = keys_there.alone ? 0.0f : h.scale;

    Rows<T, WIDTH> gq;
    float lse[4], delta[4];
    load_rows(p.lse, h, h.row0 + tile_row(), lse);
    load_rows(p.delta, h, h.row0 + tile_row(), delta);
    for (u64 key = 0; key < keys; key += SIDE) {
        float s[4][4] = {}, r[4][4] = {};
        add_scores<T>(h, p.q, h.row0, p.k, key, stage, s);
        add_scores<T>(h, p.gy, h.row0, p.v, key, stage, r);
        bool on[4];
        attended(mask, key + tile_column(), keys, on);
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                r[i][j] = on[j] ? slope * expf(s[i][j] * h.scale - lse[i]) * (r[i][j] - delta[i]) : 0.0f;
            }
        }
        lay_weights(r, weights);
        gq.add(h, weights, p.k, key, stage);
    }
    gq.put_all(h, p.gq, p.add & 1);
}

// Rows are keys, columns are queries.
template <class T, int WIDTH> FIPK_DEVICE void attention_vjp_kv(const VjpArgs& p) {
    TILES;
    const Head h = head_of_block<WIDTH>(p.axes);
    const int* mask = p.mask + h.sample * h.seq;
    const Attended keys_there = attended_keys(mask, h.seq);
    const u64 keys = keys_there.end;
    const float slope = keys_there.alone ? 0.0f : h.scale;
    bool on[4];
    attended(mask, h.row0 + tile_row(), keys, on);

    Rows<T, WIDTH> gk, gv;
    const u64 queries = h.row0 < keys ? h.seq : 0;
    for (u64 query = 0; query < queries; query += SIDE) {
        const u64 column = query + tile_column();
        float s[4][4] = {}, lse[4], delta[4];
        add_scores<T>(h, p.k, h.row0, p.q, query, stage, s);
        load_rows(p.lse, h, column, lse);
        load_rows(p.delta, h, column, delta);
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s[i][j] = on[i] && column + j < h.seq ? expf(s[i][j] * h.scale - lse[j]) : 0.0f;
            }
        }
        if (p.gv) {
            lay_weights(s, weights);
            gv.add(h, weights, p.gy, query, stage);
        }
        if (!p.gk) continue;
        float r[4][4] = {};
        add_scores<T>(h, p.v, h.row0, p.gy, query, stage, r);
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) r[i][j] = on[i] ? slope * s[i][j] * (r[i][j] - delta[j]) : 0.0f;
        }
        lay_weights(r, weights);
        gk.add(h, weights, p.q, query, stage);
    }
    if (p.gk) gk.put_all(h, p.gk, p.add & 2);
    if (p.gv) gv.put_all(h, p.gv, p.add & 4);
}

// A warp a row.
template <class T> FIPK_DEVICE void attention_delta(const DeltaArgs& p) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const u64 stride = static_cast<u64>(gridDim.x) * warps;
    for (u64 row = static_cast<u64>(blockIdx.x) * warps + threadIdx.x / 32; row < p.rows; row += stride) {
        float sum = 0.0f;
        for (u32 d = lane; d < p.dim; d += 32) sum += load<T>(p.y, row * p.dim + d) * load<T>(p.gy, row * p.dim + d);
        sum = warp_sum(sum);
        const u64 head = row % p.heads, token = row / p.heads;
        if (lane == 0) p.delta[(token / p.seq * p.heads + head) * p.seq + token % p.seq] = sum;
    }
}
FIPK_KERNEL(attention_delta_f32, DeltaArgs, 256) { attention_delta<float>(p); }
FIPK_KERNEL(attention_delta_bf16, DeltaArgs, 256) { attention_delta<bf16>(p); }

// attention_<pass>_<width>_<dtype>. Two blocks fit a multiprocessor where the sums leave room for them.
#define ATTENTION_OF(pass, Args, width, dtype, T, blocks)                             \
    FIPK_KERNEL_BLOCKS(attention_##pass##_##width##_##dtype, Args, THREADS, blocks) { \
        attention_##pass<T, width>(p);                                                \
    }
#define ATTENTION(width, dtype, T)                                     \
    ATTENTION_OF(forward, ForwardArgs, width, dtype, T, 2)             \
    ATTENTION_OF(jvp, JvpArgs, width, dtype, T, width == 32 ? 2 : 1)   \
    ATTENTION_OF(vjp_q, VjpArgs, width, dtype, T, width <= 64 ? 2 : 1) \
    ATTENTION_OF(vjp_kv, VjpArgs, width, dtype, T, width == 32 ? 2 : 1)
ATTENTION(32, f32, float)
ATTENTION(64, f32, float)
ATTENTION(96, f32, float)
ATTENTION(128, f32, float)
ATTENTION(32, bf16, bf16)
ATTENTION(64, bf16, bf16)
ATTENTION(96, bf16, bf16)
ATTENTION(128, bf16, bf16)
