// Curves of one variable with their slopes, as the host has them (src/ops/math.rs, activation.rs): the same forms and
// the same coefficients, so that the two differ by roundings alone. NaN comes out as NaN.
#pragma once
#include "fipk.cuh"

// (min(|x|, 14.5), e^(-x²/2)); the rounding of x² is put back.
FIPK_DEVICE float gauss(float x, float* bounded) {
    float t = fabsf(x) > 14.5f ? 14.5f : fabsf(x);
    float square = t * t;
    float lost = fmaf(t, t, -square);
    float e = expf(-0.5f * square);
    *bounded = t;
    return fmaf(e, -0.5f * lost, e);
}

// Φ(x), and φ(x), which it shares an exponential with: e^(-x²/2) times a rational fit of Mills' ratio keeps the digits
// of both tails, where ½(1 + erf) would lose those of one.
FIPK_DEVICE float normal_cdf(float x, float* density) {
    float t, e = gauss(x, &t);
    float p = fmaf(fmaf(fmaf(fmaf(0.003991062f, t, 0.03980078f), t, 0.18078165f), t, 0.435007f), t, 0.5f);
    float q = fmaf(fmaf(fmaf(0.010003963f, t, 0.09977329f), t, 0.46298832f), t, 1.1923506f);
    q = fmaf(fmaf(q, t, 1.6678988f), t, 1.0f);
    float tail = e * p / q;
    *density = 0.3989423f * e;
    return x > 0.0f ? 1.0f - tail : tail;
}

// x Φ(x).
struct GeluErf {
    static FIPK_DEVICE float value(float x) {
        float density;
        // Φ is 0 from here on; the bound keeps -inf from making a NaN of it.
        float bounded = x < -20.0f ? -20.0f : x;
        return bounded * normal_cdf(x, &density);
    }
    // Φ(x) + x φ(x).
    static FIPK_DEVICE float slope(float x) {
        float density, cdf = normal_cdf(x, &density);
        float bounded = fabsf(x) > 20.0f ? 20.0f : x;
        return fmaf(bounded, density, cdf);
    }
};

// ½ x (1 + tanh u), u = √(2/π)(x + 0.044715 x³).
struct GeluTanh {
    static constexpr float C = 0.7978846f, A = 0.044715f;
    // e^(-2u), x being within ±10: 1/(1 + e^(-2u)) is ½(1 + tanh u) with all its digits.
    static FIPK_DEVICE float power(float x) { return expf(-2.0f * C * x * fmaf(A * x, x, 1.0f)); }
    static FIPK_DEVICE float bound(float x) {
        float t = x > 10.0f ? 10.0f : x;
        return t < -10.0f ? -10.0f : t;
    }
    static FIPK_DEVICE float value(float x) {
        float bounded = x < -10.0f ? -10.0f : x;
        return bounded / (1.0f + power(bound(x)));
    }
    static FIPK_DEVICE float slope(float x) {
        float t = bound(x), e = power(t), h = 1.0f / (1.0f + e);
        float inner = 2.0f * C * fmaf(3.0f * A * t, t, 1.0f);
        return fmaf(t * inner * h, e * h, h);
    }
};

struct Relu {
    static FIPK_DEVICE float value(float x) { return x < 0.0f ? 0.0f : x; }
    static FIPK_DEVICE float slope(float x) { return x > 0.0f ? 1.0f : 0.0f; }
};

// Its slope is taken from its value.
struct Tanh {
    static FIPK_DEVICE float value(float x) { return tanhf(x); }
    static FIPK_DEVICE float slope(float y) { return (1.0f - y) * (1.0f + y); }
};
