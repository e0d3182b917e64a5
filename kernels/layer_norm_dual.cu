// A layer norm and its tangent in one pass over their operands: y = x̂ w + b, x̂ = (x - mean) r, r = 1/√(var + eps), and
//     dy = w r (dx - mean(dx) - x̂ mean(dx x̂)) + x̂ dw + db,
// of x, or of a sum x = x1 + x2 that is made on the way (add_layer_norm_dual), and dx with it.
//
// x, dx, y, dy [rows, cols], f32 or bf16; w, b and their tangents [cols], f32; saved [rows, 2] holds (mean, r). A tangent
// that is null is zero. Arithmetic in f32. Rows fall to warps or blocks as in layer_norm.cu; x and dx stay in registers,
// 32 elements each a thread. Two rounds of sums, of two each: x and dx; then, centred, x² and x dx, whose mean is r times
// the one that dy wants.
//
// Bytes (of e an element): 4 e n, of sums 6 e n; forward and jvp apart take 5 e n and 9 e n. FLOPs 22 n: bound by memory.
// Not yet run on a GPU.
#include "layer_norm.cuh"

struct LayerNormDualArgs {
    const void* x;
    const void* x2;
    const void* dx;
    const void* dx2;
    const void* w;
    const void* b;
    const void* dw;
    const void* db;
    void* y;
    void* dy;
    void* saved;
    u64 rows;
    u32 cols;
    u32 packs;
    u32 warp_a_row;
    float eps;
};
FIPK_ARGS(LayerNormDualArgs, 112);

template <class T, int W, bool ADDS = false>
FIPK_DEVICE void layer_norm_dual(const LayerNormDualArgs& p, float* shared) {
    const RowTeam team(p.warp_a_row, shared);
    const float n = static_cast<float>(p.cols);
    float* saved = static_cast<float*>(p.saved);
    // A tangent that is not there is read from x, which is in the cache, and not used: a branch around each load would
    // keep them from flying together.
    const void* const from = p.dx ? p.dx : p.x;
    const void* const from2 = p.dx2 ? p.dx2 : p.x;
    const auto tangent = [&](u64 i) {
        Step<W> d = read<T, W>(from, i);
        if constexpr (ADDS) {
            const Step<W> other = read<T, W>(from2, i);
#pragma unroll
            for (int j = 0; j < W; j++) {
                d.v[j] = (p.dx ? d.v[j] : 0.0f) + (p.dx2 ? other.v[j] : 0.0f);
                d.v[j] = to_float(from_float<T>(d.v[j]));
            }
        } else {
#pragma unroll
            for (int j = 0; j < W; j++) d.v[j] = p.dx ? d.v[j] : 0.0f;
        }
        return d;
    };
    for (u64 r = team.first; r < p.rows; r += team.stride) {
        const u64 row = r * p.cols;
        float x[KEPT<W>], d[KEPT<W>], total = 0.0f, d_total = 0.0f, squares = 0.0f, along = 0.0f;
        team.kept<W>(p.cols, [&](int k, u32 c) {
            const Step<W> in = read_sum<T, W, ADDS>(p.x, p.x2, row + c), dx = tangent(row + c);
#pragma unroll
            for (int j = 0; j < W; j++) {
                x[k + j] = in.v[j], total += in.v[j];
                d[k + j] = dx.v[j], d_total += dx.v[j];
            }
        });
        team.rest<W>(p.cols, [&](u32 c) {
            const Step<W> in = read_sum<T, W, ADDS>(p.x, p.x2, row + c), dx = tangent(row + c);
#pragma unroll
            for (int j = 0; j < W; j++) total += in.v[j], d_total += dx.v[j];
        });
        const float mean = team.sum(total) / n, d_mean = team.sum(d_total) / n;
        team.kept<W>(p.cols, [&](int k, u32) {
#pragma unroll
            for (int j = 0; j < W; j++) {
                x[k + j] -= mean, squares = fmaf(x[k + j], x[k + j], squares);
                along = fmaf(x[k + j], d[k + j], along);
            }
        });
        team.rest<W>(p.cols, [&](u32 c) {
            const Step<W> in = read_sum<T, W, ADDS>(p.x, p.x2, row + c), dx = tangent(row + c);
#pragma unroll
            for (int j = 0; j < W; j++) {
                const float centred = in.v[j] - mean;
                squares = fmaf(centred, centred, squares);
                along = fmaf(centred, dx.v[j], along);
            }
        });
        const float scale = 1.0f / sqrtf(team.sum(squares) / n + p.eps);
        const float along_x = team.sum(along) * scale / n;
        if (team.lane == 0) saved[2 * r] = mean, saved[2 * r + 1] = scale;

        // y and dy of one step, in place of x - mean and dx.
        const auto finish = [&](u32 c, Step<W>& x, Step<W>& d) {
            const Step<W> w = read<float, W>(p.w, c), b = read<float, W>(p.b, c);
            float xhat[W];
#pragma unroll
            for (int j = 0; j < W; j++) {
                xhat[j] = x.v[j] * scale;
                d.v[j] = w.v[j] * (scale * fmaf(-along_x, xhat[j], d.v[j] - d_mean));
                x.v[j] = fmaf(xhat[j], w.v[j], b.v[j]);
            }
            if (p.dw) {
                const Step<W> dw = read<float, W>(p.dw, c);
#pragma unroll
                for (int j = 0; j < W; j++) d.v[j] = fmaf(xhat[j], dw.v[j], d.v[j]);
            }
            if (p.db) {
                const Step<W> db = read<float, W>(p.db, c);
#pragma unroll
                for (int j = 0; j < W; j++) d.v[j] += db.v[j];
            }
        };
        // Into registers before the first store, which no load can be moved across.
        team.kept<W>(p.cols, [&](int k, u32 c) {
            Step<W> y, dy;
#pragma unroll
            for (int j = 0; j < W; j++) y.v[j] = x[k + j], dy.v[j] = d[k + j];
            finish(c, y, dy);
#pragma unroll
            for (int j = 0; j < W; j++) x[k + j] = y.v[j], d[k + j] = dy.v[j];
        });
        team.kept<W>(p.cols, [&](int k, u32 c) {
            Step<W> y, dy;
#pragma unroll
            for (int j = 0; j < W; j++) y.v[j] = x[k + j], dy.v[j] = d[k + j];
            store_n<T>(p.y, row + c, y.v);
            store_n<T>(p.dy, row + c, dy.v);
        });
        team.rest<W>(p.cols, [&](u32 c) {
            Step<W> y = read_sum<T, W, ADDS>(p.x, p.x2, row + c), dy = tangent(row + c);
#pragma unroll
            for (int j = 0; j < W; j++) y.v[j] -= mean;
            finish(c, y, dy);
            store_n<T>(p.y, row + c, y.v);
            store_n<T>(p.dy, row + c, dy.v);
        });
    }
}
FIPK_ROWS(layer_norm_dual, LayerNormDualArgs, 384)

template <class T, int W> FIPK_DEVICE void add_layer_norm_dual(const LayerNormDualArgs& p, float* shared) {
    layer_norm_dual<T, W, true>(p, shared);
}
FIPK_ROWS(add_layer_norm_dual, LayerNormDualArgs, 384)
