// Batch normalisation with given statistics: y = w (x - m) r + b a channel, r = 1/√(v + eps).
//
//   forward    y
//   jvp        dy = w r dx + (x - m) r (dw - w r² dv / 2) + db - w r dm
//   vjp        gx (+)= w r gy
//   gradients  gm (+)= -w r Σ gy;  gv (+)= -(w r³ / 2) Σ gy (x - m);  gw (+)= r Σ gy (x - m);  gb (+)= Σ gy, of the sums
//              that channel_products left
//
// x, y and theirs [N, C, ..], f32 or bf16; m, v, w, b and theirs [C], f32. Whatever is null is left out. Element-wise: a
// pack of 16 bytes a thread and step where planes and bases are multiples of it, else single elements; a channel's
// constants are made anew for each pack, from the cache. gradients: a warp a channel.
//
// Bytes (of e an element): forward 2 e n, jvp 3 e n, vjp 2 e n, and 2 e n of channel_products; FLOPs 3 n, 5 n, n: bound by
// memory. Not yet run on a GPU.
#include "channels.cuh"

struct BatchNormArgs {
    const void* x;
    const float* mean;
    const float* variance;
    const float* w;
    const float* b;
    const void* d;          // of x: its tangent; in vjp the cotangent of y
    const float* d_mean;
    const float* d_variance;
    const float* dw;
    const float* db;
    void* y;                // or dy, or gx
    u64 n;
    u32 area;
    u32 channels;
    float eps;
    u32 packs;
    u32 add;
    u32 unused;
};
FIPK_ARGS(BatchNormArgs, 120);

FIPK_DEVICE float deviation(float variance, float eps) { return 1.0f / sqrtf(variance + eps); }

template <class T> FIPK_DEVICE void batch_norm_forward(const BatchNormArgs& p) {
    over_channels<T>(p.n, p.area, p.channels, p.packs, [&](auto width, u64 i, u32 c) {
        constexpr int W = decltype(width)::value;
        const float scale = p.w[c] * deviation(p.variance[c], p.eps), mean = p.mean[c], bias = p.b[c];
        float v[W];
        load_n<T>(v, p.x, i);
#pragma unroll
        for (int j = 0; j < W; j++) v[j] = fmaf(v[j] - mean, scale, bias);
        store_n<T>(p.y, i, v);
    });
}
FIPK_KERNEL(batch_norm_forward_f32, BatchNormArgs, 256) { batch_norm_forward<float>(p); }
FIPK_KERNEL(batch_norm_forward_bf16, BatchNormArgs, 256) { batch_norm_forward<bf16>(p); }

template <class T> FIPK_DEVICE void batch_norm_jvp(const BatchNormArgs& p) {
    const bool along = p.dw || p.d_variance;
    over_channels<T>(p.n, p.area, p.channels, p.packs, [&](auto width, u64 i, u32 c) {
        constexpr int W = decltype(width)::value;
        const float w = p.w[c], r = deviation(p.variance[c], p.eps);
        const float dw = p.dw ? p.dw[c] : 0.0f, dv = p.d_variance ? p.d_variance[c] : 0.0f;
        const float slope = r * (dw - 0.5f * w * r * r * dv);
        const float shift = (p.db ? p.db[c] : 0.0f) - (p.d_mean ? w * r * p.d_mean[c] : 0.0f);
        float out[W];
#pragma unroll
        for (int j = 0; j < W; j++) out[j] = shift;
        if (along) {
            const float mean = p.mean[c];
            float x[W];
            load_n<T>(x, p.x, i);
#pragma unroll
            for (int j = 0; j < W; j++) out[j] = fmaf(x[j] - mean, slope, out[j]);
        }
        if (p.d) {
            float d[W];
            load_n<T>(d, p.d, i);
#pragma unroll
            for (int j = 0; j < W; j++) out[j] = fmaf(w * r, d[j], out[j]);
        }
        store_n<T>(p.y, i, out);
    });
}
FIPK_KERNEL(batch_norm_jvp_f32, BatchNormArgs, 256) { batch_norm_jvp<float>(p); }
FIPK_KERNEL(batch_norm_jvp_bf16, BatchNormArgs, 256) { batch_norm_jvp<bf16>(p); }

template <class T> FIPK_DEVICE void batch_norm_vjp(const BatchNormArgs& p) {
    over_channels<T>(p.n, p.area, p.channels, p.packs, [&](auto width, u64 i, u32 c) {
        constexpr int W = decltype(width)::value;
        const float scale = p.w[c] * deviation(p.variance[c], p.eps);
        float g[W];
        load_n<T>(g, p.d, i);
#pragma unroll
        for (int j = 0; j < W; j++) g[j] *= scale;
        put_n<T>(p.y, i, g, p.add);
    });
}
FIPK_KERNEL(batch_norm_vjp_f32, BatchNormArgs, 256) { batch_norm_vjp<float>(p); }
FIPK_KERNEL(batch_norm_vjp_bf16, BatchNormArgs, 256) { batch_norm_vjp<bf16>(p); }

struct BatchNormGradientsArgs {
    const double* sums; // Σ gy (x - m), Σ gy
    const float* variance;
    const float* w;
    float* g[4]; // of m, v, w, b; null where not wanted
    u32 channels;
    u32 parts;
    float eps;
    u32 add; // bit i: g[i] is added to
};
FIPK_ARGS(BatchNormGradientsArgs, 72);

FIPK_KERNEL(batch_norm_gradients, BatchNormGradientsArgs, 128) {
    warp_a_channel(p.channels, [&](u32 c) {
        const Totals totals(p.sums, c, p.parts);
        if (threadIdx.x % 32 != 0) return;
        const double r = static_cast<double>(deviation(p.variance[c], p.eps)), w = static_cast<double>(p.w[c]);
        const double each[4] = {-w * r * totals.second, -0.5 * w * r * r * r * totals.first, r * totals.first,
                                totals.second};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (p.g[i]) put<float>(p.g[i], c, static_cast<float>(each[i]), p.add >> i & 1);
        }
    });
}
