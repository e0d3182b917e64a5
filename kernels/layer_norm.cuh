// Rows of a layer norm: how they fall to warps or blocks, and their elements in steps.
#pragma once
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

// A step of x or, with ADDS, of x + addend, rounded as a sum in memory would be.
template <class T, int W, bool ADDS> FIPK_DEVICE Step<W> read_sum(const void* x, const void* addend, u64 i) {
    Step<W> step = read<T, W>(x, i);
    if constexpr (ADDS) {
        const Step<W> other = read<T, W>(addend, i);
#pragma unroll
        for (int j = 0; j < W; j++) step.v[j] = to_float(from_float<T>(step.v[j] + other.v[j]));
    }
    return step;
}

// kernel_f32 and kernel_bf16 of kernel<T, W>: in packs where rows allow it, else in single elements.
#define FIPK_ROWS(kernel, Args, threads)                                \
    template <class T> FIPK_DEVICE void kernel##_of(const Args& p) {    \
        FIPK_SHARED(float, shared, [32]);                               \
        if (p.packs) {                                                  \
            kernel<T, Pack<T>::SIZE>(p, shared);                        \
        } else {                                                        \
            kernel<T, 1>(p, shared);                                    \
        }                                                               \
    }                                                                   \
    FIPK_KERNEL(kernel##_f32, Args, threads) { kernel##_of<float>(p); } \
    FIPK_KERNEL(kernel##_bf16, Args, threads) { kernel##_of<bf16>(p); }
