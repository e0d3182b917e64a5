// What all kernels of matrix products share: their arguments, and what is done to a sum before it is stored.
//
//     z = α Σ A B + bias + residual;  pre = z;  y = act(z), or z act'(slope);  C = y, or C + y
//
// each of them where it is asked for. `residual`, `pre` and `slope` lie as C does and are of its type. `slope` is what
// the activation's derivative is taken from: z, but for tanh y, as in pointwise.cu. All of it in f32; z is rounded where
// it is stored and not on its way to y.
#pragma once
#include "curves.cuh"
#include "quad.cuh"
#include "walk.cuh"

// Bits of `epilogue`.
constexpr u32 ADD = 1;               // C is added to
constexpr u32 BF16 = 2;              // C is bf16
constexpr u32 BIAS_GRADIENT_ADD = 4; // the bias's gradient is added to
constexpr int CURVE_SHIFT = 8;       // from here on, which activation: 0 none, 1 gelu, 2 gelu_tanh, 3 relu, 4 tanh

struct GemmArgs {
    const void* a[2];
    const void* b[2];
    void* c;
    const float* bias; // [n], or null
    const void* residual;
    const void* slope;
    void* pre;
    float* bias_gradient; // tn: [m], the sums of op(A)'s rows; or null
    float* partial;       // [split, m, n], then [split, m] of the bias's gradient
    u64 m;
    u64 n;
    u64 k;
    u64 lda;
    u64 ldb;
    u64 ldc;
    u32 pairs;
    u32 split;
    u32 epilogue;
    float alpha;
};
FIPK_ARGS(GemmArgs, 152);

// Call f with the curve of this number; not with none.
template <class F> FIPK_DEVICE void with_curve(u32 number, F f) {
    switch (number) {
    case 1: return f(GeluErf());
    case 2: return f(GeluTanh());
    case 3: return f(Relu());
    case 4: return f(Tanh());
    default: return;
    }
}

// W neighbours: one, four of any type, or whole packs.
template <class T, int W> FIPK_DEVICE void take(float (&v)[W], const void* base, u64 i) {
    if constexpr (W == 4) {
        const Quad x = load_quad<T>(base, i);
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] = x.v[j];
    } else {
        load_n<T>(v, base, i);
    }
}
template <class T, int W> FIPK_DEVICE void leave(void* base, u64 i, const float (&v)[W]) {
    if constexpr (W == 4) {
        store_quad<T>(base, i, {{v[0], v[1], v[2], v[3]}});
    } else {
        store_n<T>(base, i, v);
    }
}

// z of W neighbours of a row of C, from their sums.
template <class T, int W> FIPK_DEVICE void to_z(const GemmArgs& p, u64 at, u64 column, float (&v)[W]) {
    float other[W];
#pragma unroll
    for (int j = 0; j < W; j++) v[j] *= p.alpha;
    if (p.bias) {
        take<float>(other, p.bias, column);
#pragma unroll
        for (int j = 0; j < W; j++) v[j] += other[j];
    }
    if (p.residual) {
        take<T>(other, p.residual, at);
#pragma unroll
        for (int j = 0; j < W; j++) v[j] += other[j];
    }
    if (p.pre) leave<T>(p.pre, at, v);
}

// From there to C.
template <class T, int W> FIPK_DEVICE void from_z(const GemmArgs& p, u64 at, float (&v)[W]) {
    float other[W];
    const u32 curve = p.epilogue >> CURVE_SHIFT;
    if (curve && p.slope) {
        take<T>(other, p.slope, at);
        with_curve(curve, [&](auto f) {
#pragma unroll
            for (int j = 0; j < W; j++) v[j] *= decltype(f)::slope(other[j]);
        });
    } else if (curve) {
        with_curve(curve, [&](auto f) {
#pragma unroll
            for (int j = 0; j < W; j++) v[j] = decltype(f)::value(v[j]);
        });
    }
    if (p.epilogue & ADD) {
        take<T>(other, p.c, at);
#pragma unroll
        for (int j = 0; j < W; j++) v[j] += other[j];
    }
    leave<T>(p.c, at, v);
}

template <int W> FIPK_DEVICE void finish_all(const GemmArgs& p, u64 row, u64 column, float (&v)[W]) {
    const u64 at = row * p.ldc + column;
    if (p.epilogue & BF16) {
        to_z<bf16>(p, at, column, v);
        from_z<bf16>(p, at, v);
    } else {
        to_z<float>(p, at, column, v);
        from_z<float>(p, at, v);
    }
}

// Whether W neighbours of a row of C, of all that lies as it does and of the bias can be taken together.
template <int W> FIPK_DEVICE bool finish_aligned(const GemmArgs& p) {
    const u64 bases = reinterpret_cast<u64>(p.c) | reinterpret_cast<u64>(p.residual) | reinterpret_cast<u64>(p.slope) |
                      reinterpret_cast<u64>(p.pre);
    const u64 width = p.epilogue & BF16 ? 2 * W : 4 * W, bytes = width < 16 ? width : 16;
    return p.ldc % W == 0 && bases % bytes == 0 && reinterpret_cast<u64>(p.bias) % 16 == 0;
}

// Finish W neighbours (4 or 8), of which those in column n and beyond do not exist, from their sums in shared memory,
// which are aligned to 16 bytes.
template <int W> FIPK_DEVICE void finish(const GemmArgs& p, u64 row, u64 column, const float* sums, bool aligned) {
    if (aligned && column + W <= p.n) {
        float v[W];
#pragma unroll
        for (int j = 0; j < W; j += 4) {
            const Quad x = load_quad<float>(sums, j);
#pragma unroll
            for (int i = 0; i < 4; i++) v[j + i] = x.v[i];
        }
        return finish_all<W>(p, row, column, v);
    }
#pragma unroll 1
    for (int j = 0; j < W && column + j < p.n; j++) {
        float v[1] = {sums[j]};
        finish_all<1>(p, row, column + j, v);
    }
}

// The same for a part of the sum: as it is.
template <int W>
FIPK_DEVICE void finish_part(const GemmArgs& p, u64 row, u64 column, const float* sums, u64 part = blockIdx.y) {
    const u64 at = (part * p.m + row) * p.n + column;
    const bool aligned = rows_aligned<float>(p.partial, p.n, 4);
#pragma unroll
    for (int j = 0; j < W; j += 4) {
        if (column + j < p.n) {
            put_quad<float>(p.partial, at + j, load_quad<float>(sums, j), p.n - column - j, aligned, false);
        }
    }
}

// The sum of a row of op(A), or this part of it.
FIPK_DEVICE void finish_bias_gradient(const GemmArgs& p, u64 row, float sum, u64 part = blockIdx.y) {
    if (p.split > 1) {
        p.partial[p.split * p.m * p.n + part * p.m + row] = sum;
    } else {
        put<float>(p.bias_gradient, row, p.alpha * sum, p.epilogue & BIAS_GRADIENT_ADD);
    }
}
