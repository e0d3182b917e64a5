// Sums over each channel of x [N, C, ..], and what a mean and a variance make of them.
//
//   channel_sums      parts of Σ a                          a mean, its tangent, a convolution's bias
//   channel_squares   parts of Σ (a - m)², Σ (a - m)        a variance; m the rounded mean
//   channel_products  parts of Σ (a - m - l) b, Σ b         its tangent; a batch norm's cotangents
//   channel_total     y[c] (+)= f Σ / n;  and what that loses as f32
//   channel_variance  y[c] = Σ (a - m)² / n - (Σ (a - m) / n)²
//   channel_spread    gx (+)= g[c] / n, or 2 g[c] (x - m - l) / n
//
// a, b, x and gx are f32 or bf16, m, l, y and g [C] f32. A block takes a part of a channel's numbers, 256 threads by turns:
// a thread's sum is f32 (at most 512 steps of one number or one pack), the block's and all that follow f64, in an order
// that the shape alone decides. Packs of 16 bytes where planes and bases are multiples of them. channel_total and
// channel_variance: a warp a channel.
//
// Bytes: each operand once; parts are 16 bytes for at least 2048 numbers. FLOPs: 1 to 4 a number. Bound by memory; planes
// of one number ([N, C]) are read C apart, a sector a number. Not yet run on a GPU.
#include "channels.cuh"

struct ChannelSumsArgs {
    const void* a;
    const void* b;
    const float* center; // [channels]: m
    const float* rest;   // l, or null
    double* sums;        // [channels, parts, 2]
    u64 batch;
    u32 area;
    u32 channels;
    u32 parts;
    u32 packs;
};
FIPK_ARGS(ChannelSumsArgs, 64);

enum class Sum { Plain, Squares, Products };

template <class T, Sum KIND, int W> FIPK_DEVICE void channel_part(const ChannelSumsArgs& p, double* shared) {
    const u32 channel = blockIdx.x / p.parts, part = blockIdx.x % p.parts, steps = p.area / W;
    const u64 count = p.batch * steps, begin = count * part / p.parts, end = count * (part + 1) / p.parts;
    const float center = KIND == Sum::Plain ? 0.0f : p.center[channel];
    const float rest = KIND == Sum::Products && p.rest ? p.rest[channel] : 0.0f;
    const u32 images = blockDim.x / steps, ahead = blockDim.x % steps;
    u64 image = (begin + threadIdx.x) / steps;
    u32 step = static_cast<u32>((begin + threadIdx.x) % steps);
    float first = 0.0f, second = 0.0f;
#pragma unroll 2
    for (u64 i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const u64 at = (image * p.channels + channel) * p.area + step * W;
        float a[W], b[W];
        load_n<T>(a, p.a, at);
        if (KIND == Sum::Products) load_n<T>(b, p.b, at);
#pragma unroll
        for (int j = 0; j < W; j++) {
            if (KIND == Sum::Plain) {
                first += a[j];
            } else if (KIND == Sum::Squares) {
                first = fmaf(a[j] - center, a[j] - center, first);
                second += a[j] - center;
            } else {
                first = fmaf(a[j] - center - rest, b[j], first);
                second += b[j];
            }
        }
        image += images;
        step += ahead;
        if (step >= steps) step -= steps, image++;
    }
    const double one = block_sum<double>(first, shared), two = KIND == Sum::Plain ? 0.0 : block_sum<double>(second, shared);
    if (threadIdx.x == 0) p.sums[2ull * blockIdx.x] = one, p.sums[2ull * blockIdx.x + 1] = two;
}

template <class T, Sum KIND> FIPK_DEVICE void channel_part_of(const ChannelSumsArgs& p) {
    FIPK_SHARED(double, shared, [32]);
    if (p.packs) {
        channel_part<T, KIND, Pack<T>::SIZE>(p, shared);
    } else {
        channel_part<T, KIND, 1>(p, shared);
    }
}
FIPK_KERNEL(channel_sums_f32, ChannelSumsArgs, 256) { channel_part_of<float, Sum::Plain>(p); }
FIPK_KERNEL(channel_sums_bf16, ChannelSumsArgs, 256) { channel_part_of<bf16, Sum::Plain>(p); }
FIPK_KERNEL(channel_squares_f32, ChannelSumsArgs, 256) { channel_part_of<float, Sum::Squares>(p); }
FIPK_KERNEL(channel_squares_bf16, ChannelSumsArgs, 256) { channel_part_of<bf16, Sum::Squares>(p); }
FIPK_KERNEL(channel_products_f32, ChannelSumsArgs, 256) { channel_part_of<float, Sum::Products>(p); }
FIPK_KERNEL(channel_products_bf16, ChannelSumsArgs, 256) { channel_part_of<bf16, Sum::Products>(p); }

struct ChannelTotalArgs {
    const double* sums;
    float* y;
    float* rest; // or null
    double factor;
    double count;
    u32 channels;
    u32 parts;
    u32 add;
    u32 unused;
};
FIPK_ARGS(ChannelTotalArgs, 56);

FIPK_KERNEL(channel_total, ChannelTotalArgs, 128) {
    warp_a_channel(p.channels, [&](u32 c) {
        const Totals totals(p.sums, c, p.parts);
        if (threadIdx.x % 32 != 0) return;
        const double v = p.factor * totals.first / p.count;
        const float high = static_cast<float>(v);
        put<float>(p.y, c, high, p.add);
        if (p.rest) p.rest[c] = static_cast<float>(v - static_cast<double>(high));
    });
}

FIPK_KERNEL(channel_variance, ChannelTotalArgs, 128) {
    warp_a_channel(p.channels, [&](u32 c) {
        const Totals totals(p.sums, c, p.parts);
        const double off = totals.second / p.count;
        if (threadIdx.x % 32 == 0) p.y[c] = static_cast<float>(totals.first / p.count - off * off);
    });
}

struct ChannelSpreadArgs {
    const void* x;       // null: of a mean
    const float* center; // m
    const float* rest;   // l
    const float* g;
    void* gx;
    u64 n;
    u32 area;
    u32 channels;
    float count;
    u32 packs;
    u32 add;
    u32 unused;
};
FIPK_ARGS(ChannelSpreadArgs, 72);

template <class T> FIPK_DEVICE void channel_spread(const ChannelSpreadArgs& p) {
    over_channels<T>(p.n, p.area, p.channels, p.packs, [&](auto width, u64 i, u32 c) {
        constexpr int W = decltype(width)::value;
        const float each = p.g[c] / p.count;
        float v[W];
        if (p.x) {
            const float center = p.center[c], rest = p.rest[c];
            load_n<T>(v, p.x, i);
#pragma unroll
            for (int j = 0; j < W; j++) v[j] = 2.0f * each * (v[j] - center - rest);
        } else {
#pragma unroll
            for (int j = 0; j < W; j++) v[j] = each;
        }
        put_n<T>(p.gx, i, v, p.add);
    });
}
FIPK_KERNEL(channel_spread_f32, ChannelSpreadArgs, 256) { channel_spread<float>(p); }
FIPK_KERNEL(channel_spread_bf16, ChannelSpreadArgs, 256) { channel_spread<bf16>(p); }
