// Sums and maxima over warps and blocks, in an order that depends on the block's size alone.
#pragma once
#include "fipk.cuh"

template <class T> FIPK_DEVICE T warp_sum(T v) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}

FIPK_DEVICE float warp_max(float v) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
        float other = __shfl_xor_sync(0xffffffffu, v, step);
        // Not fmaxf, which would lose a NaN.
        v = v < other || other != other ? other : v;
    }
    return v;
}

// The sum of v over the block, in every thread. `shared` holds 32 T; all threads of whole warps take part. Ends in a
// barrier, so `shared` can be used again at once.
template <class T> FIPK_DEVICE T block_sum(T v, T* shared) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    v = warp_sum(v);
    if (lane == 0) shared[warp] = v;
    __syncthreads();
    T total = warp_sum(lane < warps ? shared[lane] : T{});
    __syncthreads();
    return total;
}

FIPK_DEVICE float block_max(float v, float* shared) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    v = warp_max(v);
    if (lane == 0) shared[warp] = v;
    __syncthreads();
    float top = warp_max(lane < warps ? shared[lane] : -INFINITY);
    __syncthreads();
    return top;
}
