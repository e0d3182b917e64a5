// Tensors [N, C, ..] as planes of `area` numbers, a channel each: walks that know the channel, and sums a channel.
#pragma once
#include "reduce.cuh"
#include "walk.cuh"

// The numbers of n = batch * channels * area, over the whole grid: body(Width<W>, i, channel), in packs of one channel
// where `packs` says that area and bases allow it.
template <class T, class F> FIPK_DEVICE void over_channels(u64 n, u32 area, u32 channels, bool packs, F body) {
    over_elements<T>(n, packs, [&](auto width, u64 i) {
        // Wide division is slow, and rarely needed.
        const u32 channel = i >> 32 ? static_cast<u32>(i / area % channels) : static_cast<u32>(i) / area % channels;
        body(width, i, channel);
    });
}

// A channel's two sums over its parts, by a warp, in an order that depends on their number alone; in every lane.
struct Totals {
    double first;
    double second;

    FIPK_DEVICE Totals(const double* sums, u32 channel, u32 parts) : first(0.0), second(0.0) {
        for (u32 part = threadIdx.x % 32; part < parts; part += 32) {
            const u64 at = static_cast<u64>(channel) * parts + part;
            first += sums[2 * at];
            second += sums[2 * at + 1];
        }
        first = warp_sum(first);
        second = warp_sum(second);
    }
};

// Channels over the grid, a warp each.
template <class F> FIPK_DEVICE void warp_a_channel(u32 channels, F body) {
    const u32 warps = blockDim.x / 32;
    for (u32 c = blockIdx.x * warps + threadIdx.x / 32; c < channels; c += gridDim.x * warps) body(c);
}
