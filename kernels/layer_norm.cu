// Layer normalisation over the last axis: y = x̂ w + b, x̂ = (x - mean) r, r = 1/√(var + eps).
//
// x, y and their tangents and cotangents [rows, cols], f32 or bf16; w, b and theirs [cols], f32; saved [rows, 2] holds
// (mean, r). Arithmetic in f32, the variance from centred squares.
//   forward  y, saved
//   jvp      dy = w (r (dx - mean(dx)) - x̂ r mean(dx x̂)) + x̂ dw + db
//   vjp      v = gy w;  gx (+)= r (v - mean(v) - x̂ mean(v x̂));  gw (+)= Σ gy x̂;  gb (+)= Σ gy
// Whatever is null is left out.
//
// A row is a warp's (4 rows a block) while 32 lanes can hold it, else a block's. It stays in registers between its
// passes, 32 elements a thread (8 where steps are single elements); a longer row reads the rest again from the cache.
// Steps are 16-byte packs where cols and the bases allow it, else single elements. vjp keeps its columns' sums for w
// and b in registers over all rows of a warp, adds the block's warps in shared memory and leaves one part a block,
// [2, parts, cols] in scratch, which sum_rows then adds up; how many parts there are follows from the shape alone, so
// the sums are the same bits everywhere.
//
// Bytes (of e an element): forward 2 e n, jvp 3 e n, vjp 3 e n and 16 bytes a part and column; FLOPs 7 n, 15 n, 15 n:
// bound by memory. Not yet run on a GPU.
#include "reduce.cuh"
#include "walk.cuh"

// Elements of a row that a thread holds between passes: few where each is a step of its own, with its own address.
template <int W> constexpr int KEPT = W == 1 ? 8 : 32;

// The threads that share a row, and the rows that fall to them.
struct RowTeam {
    u32 lanes, lane;   // threads of a row, and which this one is
    u64 first, stride; // rows: first, first + stride, ..
    float* shared;

    FIPK_DEVICE RowTeam(bool warp_a_row, float* shared_) : shared(shared_) {
        const u32 warps = blockDim.x / 32;
        lanes = warp_a_row ? 32 : blockDim.x;
        lane = threadIdx.x % lanes;
        first = warp_a_row ? static_cast<u64>(blockIdx.x) * warps + threadIdx.x / 32 : blockIdx.x;
        stride = static_cast<u64>(gridDim.x) * (warp_a_row ? warps : 1);
    }
    FIPK_DEVICE float sum(float v) const { return lanes == 32 ? warp_sum(v) : block_sum(v, shared); }

    // body(k, c) for each step of this thread among the first columns: k its place in the registers, c its column.
    template <int W, class F> FIPK_DEVICE void kept(u32 cols, F body) const {
#pragma unroll
        for (int k = 0; k < KEPT<W>; k += W) {
            const u32 c = k * lanes + lane * W;
            if (c < cols) body(k, c);
        }
    }
    // body(c) for each step beyond those.
    template <int W, class F> FIPK_DEVICE void rest(u32 cols, F body) const {
        for (u32 c = KEPT<W> * lanes + lane * W; c < cols; c += lanes * W) body(c);
    }
};

// The elements of a step.
template <int W> struct Step {
    float v[W];
};
template <class T, int W> FIPK_DEVICE Step<W> read(const void* base, u64 i) {
    Step<W> step;
    load_n<T>(step.v, base, i);
    return step;
}

struct LayerNormArgs {
    const void* x;
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
FIPK_ARGS(LayerNormArgs, 64);

template <class T, int W> FIPK_DEVICE void layer_norm_forward(const LayerNormArgs& p, float* shared) {
    const RowTeam team(p.warp_a_row, shared);
    const float n = static_cast<float>(p.cols);
    float* saved = static_cast<float*>(p.saved);
    for (u64 r = team.first; r < p.rows; r += team.stride) {
        const u64 row = r * p.cols;
        float x[KEPT<W>], total = 0.0f, squares = 0.0f;
        team.kept<W>(p.cols, [&](int k, u32 c) {
            const Step<W> in = read<T, W>(p.x, row + c);
#pragma unroll
            for (int j = 0; j < W; j++) x[k + j] = in.v[j], total += in.v[j];
        });
        team.rest<W>(p.cols, [&](u32 c) {
            const Step<W> in = read<T, W>(p.x, row + c);
#pragma unroll
            for (int j = 0; j < W; j++) total += in.v[j];
        });
        const float mean = team.sum(total) / n;
        team.kept<W>(p.cols, [&](int k, u32) {
#pragma unroll
            for (int j = 0; j < W; j++) x[k + j] -= mean, squares = fmaf(x[k + j], x[k + j], squares);
        });
        team.rest<W>(p.cols, [&](u32 c) {
            const Step<W> in = read<T, W>(p.x, row + c);
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
            Step<W> out = read<T, W>(p.x, row + c);
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
    void* parts; // [2, gridDim.x, cols] f32: sums for w, then for b
    u64 rows;
    u32 cols;
    u32 packs;
    u32 warp_a_row;
    u32 add;
};
FIPK_ARGS(LayerNormVjpArgs, 72);

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
            put_n<T>(p.gx, row + c, out.v, p.add);
        });
        team.rest<W>(p.cols, [&](u32 c) {
            const Step<W> in = read<T, W>(p.x, row + c), gy = read<T, W>(p.gy, row + c);
            Step<W> out = read<float, W>(p.w, c);
#pragma unroll
            for (int j = 0; j < W; j++) {
                out.v[j] = scale * fmaf(-along_x, (in.v[j] - mean) * scale, gy.v[j] * out.v[j] - along_one);
            }
            put_n<T>(p.gx, row + c, out.v, p.add);
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

#define FIPK_LAYER_NORM(pass, Args, threads)                                                    \
    template <class T> FIPK_DEVICE void layer_norm_##pass##_of(const Args& p) {                 \
        FIPK_SHARED(float, shared, [32]);                                                       \
        if (p.packs) {                                                                          \
            layer_norm_##pass<T, Pack<T>::SIZE>(p, shared);                                     \
        } else {                                                                                \
            layer_norm_##pass<T, 1>(p, shared);                                                 \
        }                                                                                       \
    }                                                                                           \
    FIPK_KERNEL(layer_norm_##pass##_f32, Args, threads) { layer_norm_##pass##_of<float>(p); }   \
    FIPK_KERNEL(layer_norm_##pass##_bf16, Args, threads) { layer_norm_##pass##_of<bf16>(p); }

FIPK_LAYER_NORM(forward, LayerNormArgs, 512)
FIPK_LAYER_NORM(jvp, LayerNormJvpArgs, 384)
FIPK_LAYER_NORM(vjp, LayerNormVjpArgs, 256)
