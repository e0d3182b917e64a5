// y[c] (+)= Σ_r x[r, c]: sums over the leading axis, in f32. What two-stage sums end in, and the gradient of what is
// broadcast along that axis.
//
// x [rows, cols], f32 or bf16; y [cols], f32. A block takes 32 steps of columns (16-byte packs, or single elements) and
// its 16 warps the rows in turn: warp g adds rows g, g + 16, .., and shared memory adds up the warps in order, so the
// result does not depend on the grid. Bytes: x once, y once (twice where it adds); FLOPs: one an element of x. Not yet
// run on a GPU.
#include "walk.cuh"

constexpr int WARPS = 16;

struct SumRowsArgs {
    const void* x;
    void* y;
    u64 rows;
    u64 cols;
    u32 packs;
    u32 add;
};
FIPK_ARGS(SumRowsArgs, 40);

template <class T, int W> FIPK_DEVICE void sum_rows(const SumRowsArgs& p, float* shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (u64 block = blockIdx.x; block * 32 * W < p.cols; block += gridDim.x) {
        const u64 first = block * 32 * W, c = first + lane * W;
        float sum[W];
#pragma unroll
        for (int j = 0; j < W; j++) sum[j] = 0.0f;
        if (c < p.cols) {
#pragma unroll 8
            for (u64 r = warp; r < p.rows; r += WARPS) {
                float v[W];
                load_n<T>(v, p.x, r * p.cols + c);
#pragma unroll
                for (int j = 0; j < W; j++) sum[j] += v[j];
            }
        }
        // [warp][j][lane]: lanes side by side.
#pragma unroll
        for (int j = 0; j < W; j++) shared[(warp * W + j) * 32 + lane] = sum[j];
        __syncthreads();
        for (int i = threadIdx.x; i < 32 * W; i += 32 * WARPS) {
            const u64 at = first + (i % 32) * W + i / 32;
            float total = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) total += shared[w * W * 32 + i];
            if (at < p.cols) put<float>(p.y, at, total, p.add);
        }
        __syncthreads();
    }
}

template <class T> FIPK_DEVICE void sum_rows_of(const SumRowsArgs& p) {
    constexpr int W = Pack<T>::SIZE;
    FIPK_SHARED(float, shared, [WARPS * W * 32]);
    if (p.packs) {
        sum_rows<T, W>(p, shared);
    } else {
        sum_rows<T, 1>(p, shared);
    }
}
FIPK_KERNEL(sum_rows_f32, SumRowsArgs, 512) { sum_rows_of<float>(p); }
FIPK_KERNEL(sum_rows_bf16, SumRowsArgs, 512) { sum_rows_of<bf16>(p); }
