// What the losses share: Σ_r w_r l_r over rows of scores, one constant weight w_r a row.
//
// A block takes a row at a time, of as many threads as its columns can feed; a row of weight 0 is not looked at. Rows'
// values are f64, left in scratch [rows] and added up by sum_losses in their order, so that the sum does not depend on
// the grid.
#pragma once
#include "reduce.cuh"
#include "walk.cuh"

constexpr int LOSS_THREADS = 256; // of a block, at most

// A loss of scores z and of what they are held against, t in f32.
struct PairArgs {
    const void* z;
    const void* t;
    const void* weights;
    const void* dz; // either may be null: zero
    const void* dt;
    const void* gy;
    void* values;
    void* gz; // either may be null: not asked for
    void* gt;
    u64 rows;
    u64 cols;
    u32 kind; // of a distance
    u32 add_z;
    u32 add_t;
    u32 unused;
};
FIPK_ARGS(PairArgs, 104);

// The largest v of a row's softmax, and log Σ exp(v - top).
struct LogSum {
    double top, log_sum;
    FIPK_DEVICE double log_share(double v) const { return v - top - log_sum; }
};

// (top, Σ exp(v - top)) of part of a row, from which parts can be joined.
struct PartialSum {
    double top = -INFINITY, sum = 0.0;
};

FIPK_DEVICE double block_max_f64(double v, double* shared) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) v = fmax(v, __shfl_xor_sync(0xffffffffu, v, step));
    if (lane == 0) shared[warp] = v;
    __syncthreads();
    v = lane < warps ? shared[lane] : -INFINITY;
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) v = fmax(v, __shfl_xor_sync(0xffffffffu, v, step));
    __syncthreads();
    return v;
}

// The block's parts as one, in every thread. A part without an element weighs nothing.
FIPK_DEVICE LogSum join(const PartialSum& part, double* shared) {
    const double top = block_max_f64(part.top, shared);
    const double scaled = part.sum == 0.0 ? 0.0 : part.sum * exp(part.top - top);
    return {top, log(block_sum(scaled, shared))};
}

// log Σ_c exp f(c) over a row, in one pass: what was summed shrinks where a larger element turns up.
template <class F> FIPK_DEVICE LogSum row_log_sum(u64 cols, double* shared, F f) {
    PartialSum part;
    for (u64 c = threadIdx.x; c < cols; c += blockDim.x) {
        const double v = f(c);
        if (v > part.top) {
            part.sum = part.sum * exp(part.top - v) + 1.0;
            part.top = v;
        } else {
            part.sum += exp(v - part.top);
        }
    }
    return join(part, shared);
}

// Σ_c f(c) over a row, in every thread.
template <class F> FIPK_DEVICE double row_sum(u64 cols, double* shared, F f) {
    double sum = 0.0;
    for (u64 c = threadIdx.x; c < cols; c += blockDim.x) sum += f(c);
    return block_sum(sum, shared);
}

// values[r] = w_r value(r) for each row of the grid; value is called by whole blocks, and the same in every thread.
template <class F> FIPK_DEVICE void over_losses(const void* weights, u64 rows, void* values, F value) {
    for (u64 r = blockIdx.x; r < rows; r += gridDim.x) {
        const double w = load<float>(weights, r);
        const double v = w == 0.0 ? 0.0 : w * value(r);
        if (threadIdx.x == 0) static_cast<double*>(values)[r] = v;
    }
}

// g (+)= the gradients of rows: body(r, gy w_r) for those that weigh something, the others cleared where g is set.
template <class T, class F>
FIPK_DEVICE void over_gradients(const void* weights, const void* gy, u64 rows, u64 cols, void* g, bool add, F body) {
    for (u64 r = blockIdx.x; r < rows; r += gridDim.x) {
        const double w = load<float>(weights, r);
        if (w != 0.0) {
            body(r, load<float>(gy, 0) * w);
        } else if (!add) {
            over_row<T>(r * cols, cols, aligned(g), [&](auto width, u64 c) {
                constexpr int W = decltype(width)::value;
                float zero[W] = {};
                store_n<T>(g, r * cols + c, zero);
            });
        }
    }
}
