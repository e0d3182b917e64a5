// Element-wise ops: add, activations with their slopes, and what moves numbers: accumulation, fills.
//
//   add         y = a + b
//   accumulate  g (+)= v, g in f32 or as v is
//   fill        y = a constant
//   ACTIVATION  y = f(x); and out (+)= f'(at) d, the tangent and the cotangent alike (a diagonal is its own transpose),
//               at being x, or y for tanh
//
// Flat arrays of n elements, f32 or bf16, whatever their shape. One 16-byte pack a thread and step, the grid striding
// over the array; bases that are not aligned to 16 bytes, and the last few elements, go one by one. Bytes (of b an
// element): add 3 b n, forward 2 b n, slope 3 b n (4 b n where it adds): bound by memory. FLOPs: 1 (add, relu), about
// 30 (gelu and tanh, one exponential and one division each), which bf16 on the fastest memory hides barely.
// Not yet run on a GPU.
#include "curves.cuh"
#include "walk.cuh"

struct AddArgs {
    const void* a;
    const void* b;
    void* y;
    u64 n;
};
FIPK_ARGS(AddArgs, 32);

template <class T> FIPK_DEVICE void add_forward(const AddArgs& p) {
    over_elements<T>(p.n, aligned(p.a, p.b, p.y), [&](auto width, u64 i) {
        constexpr int W = decltype(width)::value;
        float a[W], b[W];
        load_n<T>(a, p.a, i);
        load_n<T>(b, p.b, i);
#pragma unroll
        for (int k = 0; k < W; k++) a[k] += b[k];
        store_n<T>(p.y, i, a);
    });
}
FIPK_KERNEL(add_forward_f32, AddArgs, 256) { add_forward<float>(p); }
FIPK_KERNEL(add_forward_bf16, AddArgs, 256) { add_forward<bf16>(p); }

struct AccumulateArgs {
    const void* v;
    void* g;
    u64 n;
    u32 add;
    u32 wide; // g is f32 whatever v is
};
FIPK_ARGS(AccumulateArgs, 32);

template <class T> FIPK_DEVICE void accumulate(const AccumulateArgs& p) {
    over_elements<T>(p.n, aligned(p.v, p.g), [&](auto width, u64 i) {
        constexpr int W = decltype(width)::value;
        float v[W];
        load_n<T>(v, p.v, i);
        if (p.wide) {
            put_n<float>(p.g, i, v, p.add);
        } else {
            put_n<T>(p.g, i, v, p.add);
        }
    });
}
FIPK_KERNEL(accumulate_f32, AccumulateArgs, 256) { accumulate<float>(p); }
FIPK_KERNEL(accumulate_bf16, AccumulateArgs, 256) { accumulate<bf16>(p); }

struct FillArgs {
    void* y;
    u64 n;
    float value;
    u32 unused;
};
FIPK_ARGS(FillArgs, 24);

// For what a fill by words cannot end: an odd number of bf16.
FIPK_KERNEL(fill_bf16, FillArgs, 256) {
    over_elements<bf16>(p.n, false, [&](auto, u64 i) { store<bf16>(p.y, i, p.value); });
}

struct CurveArgs {
    const void* x;
    void* y;
    u64 n;
};
FIPK_ARGS(CurveArgs, 24);

template <class T, class Curve> FIPK_DEVICE void curve_forward(const CurveArgs& p) {
    over_elements<T>(p.n, aligned(p.x, p.y), [&](auto width, u64 i) {
        constexpr int W = decltype(width)::value;
        float v[W];
        load_n<T>(v, p.x, i);
#pragma unroll
        for (int k = 0; k < W; k++) v[k] = Curve::value(v[k]);
        store_n<T>(p.y, i, v);
    });
}

struct SlopeArgs {
    const void* at;
    const void* d;
    void* out;
    u64 n;
    u64 add;
};
FIPK_ARGS(SlopeArgs, 40);

template <class T, class Curve> FIPK_DEVICE void curve_slope(const SlopeArgs& p) {
    over_elements<T>(p.n, aligned(p.at, p.d, p.out), [&](auto width, u64 i) {
        constexpr int W = decltype(width)::value;
        float v[W], d[W];
        load_n<T>(v, p.at, i);
        load_n<T>(d, p.d, i);
#pragma unroll
        for (int k = 0; k < W; k++) v[k] = Curve::slope(v[k]) * d[k];
        put_n<T>(p.out, i, v, p.add);
    });
}

#define FIPK_ACTIVATION(name, Curve)                                                     \
    FIPK_KERNEL(name##_forward_f32, CurveArgs, 256) { curve_forward<float, Curve>(p); }  \
    FIPK_KERNEL(name##_forward_bf16, CurveArgs, 256) { curve_forward<bf16, Curve>(p); }  \
    FIPK_KERNEL(name##_slope_f32, SlopeArgs, 256) { curve_slope<float, Curve>(p); }      \
    FIPK_KERNEL(name##_slope_bf16, SlopeArgs, 256) { curve_slope<bf16, Curve>(p); }

FIPK_ACTIVATION(gelu, GeluErf)
FIPK_ACTIVATION(gelu_tanh, GeluTanh)
FIPK_ACTIVATION(relu, Relu)
FIPK_ACTIVATION(tanh, Tanh)
