// Layer normalisation over the last axis: y = x̂ w + b, x̂ = (x - mean) r, r = 1/√(var + eps); of x, or of a sum
// x = x1 + x2 that is made on the way (add_layer_norm_forward) and then has two cotangents.
//
// x, y and their tangents and cotangents [rows, cols], f32 or bf16; w, b and theirs [cols], f32; saved [rows, 2] holds
// (mean, r). Arithmetic in f32, the variance from centred squares.
//   forward  y, saved
//   jvp      dy = w (r (dx - mean(dx)) - x̂ r mean(dx x̂)) + x̂ dw + db
//   vjp      v = gy w;  gx (+)= r (v - mean(v) - x̂ mean(v x̂));  gw (+)= Σ gy x̂;  gb (+)= Σ gy
// Forward and jvp at once are in layer_norm_dual.cu. Whatever is null is left out.
//
// A row is a warp's (4 rows a block) while 32 lanes can hold it, else a block's. It stays in registers between its
// passes, 32 elements a thread (8 where steps are single elements); a longer row reads the rest again from the cache.
// Steps are 16-byte packs where cols and the bases allow it, else single elements. vjp keeps its columns' sums for w
// and b in registers over all rows of a warp, adds the block's warps in shared memory and leaves one part a block,
// [2, parts, cols] in scratch, which sum_rows then adds up; how many parts there are follows from the shape alone, so
// the sums are the same bits everywhere.
//
// Bytes (of e an element): forward 2 e n (of a sum 3 e n, 4 e n where the sum is kept), jvp 3 e n, vjp 3 e n (4 e n to two
// cotangents) and 16 bytes a part and column; FLOPs 7 n, 15 n, 15 n: bound by memory. Not yet run on a GPU.
#include "layer_norm.cuh"

struct LayerNormArgs {
    const void* x;
    const void* addend; // of x, in add_layer_norm_forward
    void* sum;          // x + addend
    const void* w;
    const void* b;
    void* y;
    void* saved;
    u64 rows;
    u32 cols;
    u32 packs;
    u32 warp_a_row;
    float eps;
};
FIPK_ARGS(LayerNormArgs, 80);

template <class T, int W, bool ADDS = false> FIPK_DEVICE void layer_norm_forward(const LayerNormArgs& p, float* shared) {
    const RowTeam team(p.warp_a_row, shared);
    const float n = static_cast<float>(p.cols);
    float* saved = static_cast<float*>(p.saved);
    for (u64 r = team.first; r < p.rows; r += team.stride) {
        const u64 row = r * p.cols;
        float x[KEPT<W>], total = 0.0f, squares = 0.0f;
        team.kept<W>(p.cols, [&](int k, u32 c) {
            const Step<W> in = read_sum<T, W, ADDS>(p.x, p.addend, row + c);
#pragma unroll
            for (int j = 0; j < W; j++) x[k + j] = in.v[j], total += in.v[j];
        });
        if (ADDS && p.sum) {
            team.kept<W>(p.cols, [&](int k, u32 c) {
                Step<W> out;
#pragma unroll
                for (int j = 0; j < W; j++) out.v[j] = x[k + j];
                store_n<T>(p.sum, row + c, out.v);
            });
        }
        team.rest<W>(p.cols, [&](u32 c) {
            const Step<W> in = read_sum<T, W, ADDS>(p.x, p.addend, row + c);
            if (ADDS && p.sum) store_n<T>(p.sum, row + c, in.v);
#pragma unroll
            for (int j = 0; j < W; j++) total += in.v[j];
        });
        const float mean = team.sum(total) / n;
        team.kept<W>(p.cols, [&](int k, u32) {
#pragma unroll
            for (int j = 0; j < W; j++) x[k + j] -= mean, squares = fmaf(x[k + j], x[k + j], squares);
        });
        team.rest<W>(p.cols, [&](u32 c) {
            const Step<W> in = read_sum<T, W, ADDS>(p.x, p.addend, row + c);
#pragma unroll
            for (int j = 0; j < W; j++) squares = fmaf(in.v[j] - mean, in.v[j] - mean, squares);
        });
        const float scale = 1.0f / sqrtf(team.sum(squares) / n + p.eps);
        if (team.lane == 0) saved[2 * r] = mean, saved[2 * r + 1] = scale;

        // Into registers before the first store, which no load can be moved across.
        team.kept<W>(p.cols, [&](int k, u32 c) {
            const Step<W> w = read<float, W>(p.w, c), b = read<float, W>(p.b, c);
#pragma unroll
            for (int j = 0; j < W; j++) x[k + j] = fmaf(x[k + j] * scale, w.v[j], b.v[j]);
        });
        team.kept<W>(p.cols, [&](int k, u32 c) {
            Step<W> out;
#pragma unroll
            for (int j = 0; j < W; j++) out.v[j] = x[k + j];
            store_n<T>(p.y, row + c, out.v);
        });
        team.rest<W>(p.cols, [&](u32 c) {
            Step<W> out = read_sum<T, W, ADDS>(p.x, p.addend, row + c);
            const Step<W> w = read<float, W>(p.w, c), b = read<float, W>(p.b, c);
#pragma unroll
            for (int j = 0; j < W; j++) out.v[j] = fmaf((out.v[j] - mean) * scale, w.v[j], b.v[j]);
            store_n<T>(p.y, row + c, out.v);
        });
    }
}

struct LayerNormJvpArgs {
    const void* x;
    const void* w;
    const void* saved;
    const void* dx;
    const void* dw;
    const void* db;
    void* dy;
    u64 rows;
    u32 cols;
    u32 packs;
    u64 warp_a_row;
};
FIPK_ARGS(LayerNormJvpArgs, 80);

template <class T, int W> FIPK_DEVICE void layer_norm_jvp(const LayerNormJvpArgs& p, float* shared) {
    const RowTeam team(p.warp_a_row, shared);
    const float n = static_cast<float>(p.cols);
    const float* saved = static_cast<const float*>(p.saved);
    for (u64 r = team.first; r < p.rows; r += team.stride) {
        const u64 row = r * p.cols;
        const float mean = saved[2 * r], scale = saved[2 * r + 1];
        float x[KEPT<W>], d[KEPT<W>], along_one = 0.0f, along_x = 0.0f;
        // x̂ and dx, of one step.
        const auto read_both = [&](u32 c, Step<W>& xhat, Step<W>& dx) {
            xhat = read<T, W>(p.x, row + c);
            if (p.dx) dx = read<T, W>(p.dx, row + c);
#pragma unroll
            for (int j = 0; j < W; j++) {
                xhat.v[j] = (xhat.v[j] - mean) * scale;
                if (!p.dx) dx.v[j] = 0.0f;
                along_one += dx.v[j];
                along_x = fmaf(dx.v[j], xhat.v[j], along_x);
            }
        };
        // dy of one step, in place of dx.
        const auto tangent = [&](u32 c, const Step<W>& xhat, Step<W>& d) {
            if (p.dx) {
                const Step<W> w = read<float, W>(p.w, c);
#pragma unroll
                for (int j = 0; j < W; j++) {
                    d.v[j] = w.v[j] * (scale * fmaf(-along_x, xhat.v[j], d.v[j] - along_one));
                }
            }
            if (p.dw) {
                const Step<W> dw = read<float, W>(p.dw, c);
#pragma unroll
                for (int j = 0; j < W; j++) d.v[j] = fmaf(xhat.v[j], dw.v[j], d.v[j]);
            }
            if (p.db) {
                const Step<W> db = read<float, W>(p.db, c);
#pragma unroll
                for (int j = 0; j < W; j++) d.v[j] += db.v[j];
            }
        };
        team.kept<W>(p.cols, [&](int k, u32 c) {
            Step<W> xhat, dx;
            read_both(c, xhat, dx);
#pragma unroll
            for (int j = 0; j < W; j++) x[k + j] = xhat.v[j], d[k + j] = dx.v[j];
        });
        team.rest<W>(p.cols, [&](u32 c) {
            Step<W> xhat, dx;
            read_both(c, xhat, dx);
        });
        if (p.dx) along_one = team.sum(along_one) / n, along_x = team.sum(along_x) / n;
        team.kept<W>(p.cols, [&](int k, u32 c) {
            Step<W> xhat, out;
#pragma unroll
            for (int j = 0; j < W; j++) xhat.v[j] = x[k + j], out.v[j] = d[k + j];
            tangent(c, xhat, out);
#pragma unroll
            for (int j = 0; j < W; j++) d[k + j] = out.v[j];
        });
        team.kept<W>(p.cols, [&](int k, u32 c) {
            Step<W> out;
#pragma unroll
            for (int j = 0; j < W; j++) out.v[j] = d[k + j];
            store_n<T>(p.dy, row + c, out.v);
        });
        const float one = along_one, along = along_x; // read_both adds to the sums again
        team.rest<W>(p.cols, [&](u32 c) {
            Step<W> xhat, out;
            read_both(c, xhat, out);
            along_one = one, along_x = along;
            tangent(c, xhat, out);
            store_n<T>(p.dy, row + c, out.v);
        });
    }
}

struct LayerNormVjpArgs {
    const void* x;
    const void* w;
    const void* saved;
    const void* gy;
    void* gx;
    void* gx2;   // of x2, where x is x1 + x2: what gx gets
    void* parts; // [2, gridDim.x, cols] f32: sums for w, then for b
    u64 rows;
    u32 cols;
    u32 packs;
    u32 warp_a_row;
    u32 add; // 1: gx is added to; 2: gx2
};
FIPK_ARGS(LayerNormVjpArgs, 80);

template <class T, int W> FIPK_DEVICE void layer_norm_vjp(const LayerNormVjpArgs& p, float* shared) {
    const RowTeam team(p.warp_a_row, shared);
    const float n = static_cast<float>(p.cols);
    const float* saved = static_cast<const float*>(p.saved);
    float* part_w = static_cast<float*>(p.parts) + static_cast<u64>(blockIdx.x) * p.cols;
    float* part_b = part_w + static_cast<u64>(gridDim.x) * p.cols;
    float sum_w[KEPT<W>], sum_b[KEPT<W>];
#pragma unroll
    for (int k = 0; k < KEPT<W>; k++) sum_w[k] = sum_b[k] = 0.0f;

    for (u64 r = team.first; r < p.rows; r += team.stride) {
        const u64 row = r * p.cols;
        const float mean = saved[2 * r], scale = saved[2 * r + 1];
        float x[KEPT<W>], v[KEPT<W>], along_one = 0.0f, along_x = 0.0f;
        team.kept<W>(p.cols, [&](int k, u32 c) {
            const Step<W> in = read<T, W>(p.x, row + c), gy = read<T, W>(p.gy, row + c);
#pragma unroll
            for (int j = 0; j < W; j++) {
                x[k + j] = (in.v[j] - mean) * scale;
                v[k + j] = gy.v[j];
                sum_w[k + j] = fmaf(x[k + j], v[k + j], sum_w[k + j]);
                sum_b[k + j] += v[k + j];
            }
        });
        if (p.parts) {
            const bool begun = r != team.first;
            team.rest<W>(p.cols, [&](u32 c) {
                const Step<W> in = read<T, W>(p.x, row + c), gy = read<T, W>(p.gy, row + c);
                Step<W> w;
#pragma unroll
                for (int j = 0; j < W; j++) w.v[j] = (in.v[j] - mean) * scale * gy.v[j];
                put_n<float>(part_w, c, w.v, begun);
                put_n<float>(part_b, c, gy.v, begun);
            });
        }
        if (!p.gx) continue;

        team.kept<W>(p.cols, [&](int k, u32 c) {
            const Step<W> w = read<float, W>(p.w, c);
#pragma unroll
            for (int j = 0; j < W; j++) {
                v[k + j] *= w.v[j];
                along_one += v[k + j];
                along_x = fmaf(v[k + j], x[k + j], along_x);
            }
        });
        team.rest<W>(p.cols, [&](u32 c) {
            const Step<W> in = read<T, W>(p.x, row + c), gy = read<T, W>(p.gy, row + c), w = read<float, W>(p.w, c);
#pragma unroll
            for (int j = 0; j < W; j++) {
                along_one += gy.v[j] * w.v[j];
                along_x = fmaf(gy.v[j] * w.v[j], (in.v[j] - mean) * scale, along_x);
            }
        });
        along_one = team.sum(along_one) / n;
        along_x = team.sum(along_x) / n;
        team.kept<W>(p.cols, [&](int k, u32 c) {
            Step<W> out;
#pragma unroll
            for (int j = 0; j < W; j++) out.v[j] = scale * fmaf(-along_x, x[k + j], v[k + j] - along_one);
            put_n<T>(p.gx, row + c, out.v, p.add & 1);
            if (p.gx2) put_n<T>(p.gx2, row + c, out.v, p.add & 2);
        });
        team.rest<W>(p.cols, [&](u32 c) {
            const Step<W> in = read<T, W>(p.x, row + c), gy = read<T, W>(p.gy, row + c);
            Step<W> out = read<float, W>(p.w, c);
#pragma unroll
            for (int j = 0; j < W; j++) {
                out.v[j] = scale * fmaf(-along_x, (in.v[j] - mean) * scale, gy.v[j] * out.v[j] - along_one);
            }
            put_n<T>(p.gx, row + c, out.v, p.add & 1);
            if (p.gx2) put_n<T>(p.gx2, row + c, out.v, p.add & 2);
        });
    }
    if (!p.parts) return;

    if (team.lanes != 32) {
        // Every thread has columns of its own, and every block a row: those beyond the registers are written.
        team.kept<W>(p.cols, [&](int k, u32 c) {
#pragma unroll
            for (int j = 0; j < W; j++) part_w[c + j] = sum_w[k + j], part_b[c + j] = sum_b[k + j];
        });
        return;
    }
    // Warp after warp, so in a fixed order.
    FIPK_SHARED(float, block_w, [32 * KEPT<W>]);
    FIPK_SHARED(float, block_b, [32 * KEPT<W>]);
    for (u32 turn = 0; turn < blockDim.x / 32; turn++) {
        if (threadIdx.x / 32 == turn) {
            team.kept<W>(p.cols, [&](int k, u32 c) {
#pragma unroll
                for (int j = 0; j < W; j++) {
                    block_w[c + j] = turn ? block_w[c + j] + sum_w[k + j] : sum_w[k + j];
                    block_b[c + j] = turn ? block_b[c + j] + sum_b[k + j] : sum_b[k + j];
                }
            });
        }
        __syncthreads();
    }
    for (u32 c = threadIdx.x; c < p.cols; c += blockDim.x) part_w[c] = block_w[c], part_b[c] = block_b[c];
}

FIPK_ROWS(layer_norm_forward, LayerNormArgs, 512)
FIPK_ROWS(layer_norm_jvp, LayerNormJvpArgs, 384)
FIPK_ROWS(layer_norm_vjp, LayerNormVjpArgs, 256)

template <class T, int W> FIPK_DEVICE void add_layer_norm_forward(const LayerNormArgs& p, float* shared) {
    layer_norm_forward<T, W, true>(p, shared);
}
FIPK_ROWS(add_layer_norm_forward, LayerNormArgs, 512)
