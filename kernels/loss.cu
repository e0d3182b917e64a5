// Losses against labels and targets, and the sum over rows that every loss ends in.
//
//   cross_entropy  y = Σ_r w_r (log Σ_k exp z_rk - z_r,label)
//   squared_error  y = Σ_r w_r |z_r - t_r|² / C
//   sum_losses     y = Σ_r values[r]
//
// z and its tangent and cotangent [rows, C], f32 or bf16; labels [rows] i32; t and its own [rows, C], weights [rows],
// y and theirs [1], f32; saved [rows, 2] holds a row's largest score m and log Σ exp(z - m) of cross_entropy.
//
// A block a row. Cross-entropy takes its exponentials in f32, of differences whose rounding is put back, and sums them
// in f64; what belongs to the label is taken in f64, where 1 - p would lose its digits. The row is read once, in packs
// even where its length is odd. Squared errors are f64 throughout. Bytes (of e an element, n = rows C): forward e n,
// jvp 2 e n, vjp 2 e n, squared_error 4 n more for t; rows of weight 0 cost nothing but zeros. FLOPs: about 20 n, 3 n.
// Not yet run on a GPU.
#include "loss.cuh"

// e^(a - b), in f32, with what the difference loses put back.
FIPK_DEVICE float exp_difference(float a, float b) {
    const float d = a - b, back = d - a;
    const float lost = (a - (d - back)) - (b + back);
    const float e = expf(d);
    // Infinities make NaN of `lost`.
    return fabsf(d) < 104.0f ? fmaf(e, lost, e) : e;
}

struct CrossEntropyArgs {
    const void* z;
    const int* labels;
    const void* weights;
    float* saved;
    const void* dz;
    const void* gy;
    void* out; // values of rows, or the cotangent of z
    u64 rows;
    u64 cols;
    u64 add;
};
FIPK_ARGS(CrossEntropyArgs, 80);

template <class T> FIPK_DEVICE void cross_entropy_forward(const CrossEntropyArgs& p) {
    FIPK_SHARED(double, shared, [32]);
    over_losses(p.weights, p.rows, p.out, [&](u64 r) {
        const u64 row = r * p.cols;
        float top = -INFINITY;
        double sum = 0.0;
        over_row<T>(row, p.cols, aligned(p.z), [&](auto width, u64 c) {
            constexpr int W = decltype(width)::value;
            float z[W], largest = top;
            load_n<T>(z, p.z, row + c);
#pragma unroll
            for (int k = 0; k < W; k++) largest = z[k] > largest ? z[k] : largest;
            if (largest > top) {
                sum *= exp(static_cast<double>(top) - largest);
                top = largest;
            }
#pragma unroll
            for (int k = 0; k < W; k++) sum += exp_difference(z[k], top);
        });
        PartialSum part;
        part.top = top, part.sum = sum;
        const LogSum all = join(part, shared);
        if (threadIdx.x == 0) {
            p.saved[2 * r] = static_cast<float>(all.top);
            p.saved[2 * r + 1] = static_cast<float>(all.log_sum);
        }
        return all.top - load<T>(p.z, row + p.labels[r]) + all.log_sum;
    });
    // Rows that do not count leave zeros.
    const u64 stride = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 r = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; r < p.rows; r += stride) {
        if (load<float>(p.weights, r) == 0.0f) p.saved[2 * r] = p.saved[2 * r + 1] = 0.0f;
    }
}

// A row's softmax from what was saved.
struct Slopes {
    float top, inverse, at_label;
    u64 label;
    template <class T> static FIPK_DEVICE Slopes of(const CrossEntropyArgs& p, u64 r) {
        Slopes s;
        s.top = p.saved[2 * r];
        s.label = static_cast<u64>(p.labels[r]);
        const double log_sum = p.saved[2 * r + 1], z = load<T>(p.z, r * p.cols + s.label);
        s.inverse = static_cast<float>(exp(-log_sum));
        s.at_label = static_cast<float>(expm1(z - s.top - log_sum));
        return s;
    }
    // p_c, less 1 at the label.
    FIPK_DEVICE float at(float z, u64 c) const { return c == label ? at_label : exp_difference(z, top) * inverse; }
};

template <class T> FIPK_DEVICE void cross_entropy_jvp(const CrossEntropyArgs& p) {
    FIPK_SHARED(double, shared, [32]);
    over_losses(p.weights, p.rows, p.out, [&](u64 r) {
        const u64 row = r * p.cols;
        const Slopes slopes = Slopes::of<T>(p, r);
        double sum = 0.0;
        over_row<T>(row, p.cols, aligned(p.z, p.dz), [&](auto width, u64 c) {
            constexpr int W = decltype(width)::value;
            float z[W], dz[W];
            load_n<T>(z, p.z, row + c);
            load_n<T>(dz, p.dz, row + c);
#pragma unroll
            for (int k = 0; k < W; k++) sum += static_cast<double>(slopes.at(z[k], c + k)) * dz[k];
        });
        return block_sum(sum, shared);
    });
}

template <class T> FIPK_DEVICE void cross_entropy_vjp(const CrossEntropyArgs& p) {
    over_gradients<T>(p.weights, p.gy, p.rows, p.cols, p.out, p.add, [&](u64 r, double scale) {
        const u64 row = r * p.cols;
        const Slopes slopes = Slopes::of<T>(p, r);
        const float by = static_cast<float>(scale);
        over_row<T>(row, p.cols, aligned(p.z, p.out), [&](auto width, u64 c) {
            constexpr int W = decltype(width)::value;
            float z[W];
            load_n<T>(z, p.z, row + c);
#pragma unroll
            for (int k = 0; k < W; k++) z[k] = by * slopes.at(z[k], c + k);
            put_n<T>(p.out, row + c, z, p.add);
        });
    });
}

FIPK_KERNEL(cross_entropy_forward_f32, CrossEntropyArgs, LOSS_THREADS) { cross_entropy_forward<float>(p); }
FIPK_KERNEL(cross_entropy_forward_bf16, CrossEntropyArgs, LOSS_THREADS) { cross_entropy_forward<bf16>(p); }
FIPK_KERNEL(cross_entropy_jvp_f32, CrossEntropyArgs, LOSS_THREADS) { cross_entropy_jvp<float>(p); }
FIPK_KERNEL(cross_entropy_jvp_bf16, CrossEntropyArgs, LOSS_THREADS) { cross_entropy_jvp<bf16>(p); }
FIPK_KERNEL(cross_entropy_vjp_f32, CrossEntropyArgs, LOSS_THREADS) { cross_entropy_vjp<float>(p); }
FIPK_KERNEL(cross_entropy_vjp_bf16, CrossEntropyArgs, LOSS_THREADS) { cross_entropy_vjp<bf16>(p); }

template <class T> FIPK_DEVICE double difference(const void* z, const void* t, u64 i) {
    return static_cast<double>(load<T>(z, i)) - load<float>(t, i);
}

template <class T> FIPK_DEVICE void squared_error_forward(const PairArgs& p) {
    FIPK_SHARED(double, shared, [32]);
    over_losses(p.weights, p.rows, p.values, [&](u64 r) {
        const double sum = row_sum(p.cols, shared, [&](u64 c) {
            const double d = difference<T>(p.z, p.t, r * p.cols + c);
            return d * d;
        });
        return sum / static_cast<double>(p.cols);
    });
}

template <class T> FIPK_DEVICE void squared_error_jvp(const PairArgs& p) {
    FIPK_SHARED(double, shared, [32]);
    over_losses(p.weights, p.rows, p.values, [&](u64 r) {
        const double sum = row_sum(p.cols, shared, [&](u64 c) {
            const u64 i = r * p.cols + c;
            const double dz = p.dz ? load<T>(p.dz, i) : 0.0f, dt = p.dt ? load<float>(p.dt, i) : 0.0f;
            return difference<T>(p.z, p.t, i) * (dz - dt);
        });
        return 2.0 * sum / static_cast<double>(p.cols);
    });
}

template <class T> FIPK_DEVICE void squared_error_vjp(const PairArgs& p) {
    const double cols = static_cast<double>(p.cols);
    if (p.gz) {
        over_gradients<T>(p.weights, p.gy, p.rows, p.cols, p.gz, p.add_z, [&](u64 r, double scale) {
            for (u64 i = r * p.cols + threadIdx.x; i < (r + 1) * p.cols; i += blockDim.x) {
                put<T>(p.gz, i, static_cast<float>(scale * 2.0 * difference<T>(p.z, p.t, i) / cols), p.add_z);
            }
        });
    }
    if (p.gt) {
        over_gradients<float>(p.weights, p.gy, p.rows, p.cols, p.gt, p.add_t, [&](u64 r, double scale) {
            for (u64 i = r * p.cols + threadIdx.x; i < (r + 1) * p.cols; i += blockDim.x) {
                put<float>(p.gt, i, static_cast<float>(scale * -2.0 * difference<T>(p.z, p.t, i) / cols), p.add_t);
            }
        });
    }
}

FIPK_KERNEL(squared_error_forward_f32, PairArgs, LOSS_THREADS) { squared_error_forward<float>(p); }
FIPK_KERNEL(squared_error_forward_bf16, PairArgs, LOSS_THREADS) { squared_error_forward<bf16>(p); }
FIPK_KERNEL(squared_error_jvp_f32, PairArgs, LOSS_THREADS) { squared_error_jvp<float>(p); }
FIPK_KERNEL(squared_error_jvp_bf16, PairArgs, LOSS_THREADS) { squared_error_jvp<bf16>(p); }
FIPK_KERNEL(squared_error_vjp_f32, PairArgs, LOSS_THREADS) { squared_error_vjp<float>(p); }
FIPK_KERNEL(squared_error_vjp_bf16, PairArgs, LOSS_THREADS) { squared_error_vjp<bf16>(p); }

struct SumLossesArgs {
    const double* values;
    float* y;
    u64 rows;
};
FIPK_ARGS(SumLossesArgs, 24);

// One block.
FIPK_KERNEL(sum_losses, SumLossesArgs, 1024) {
    FIPK_SHARED(double, shared, [32]);
    const double sum = row_sum(p.rows, shared, [&](u64 r) { return p.values[r]; });
    if (threadIdx.x == 0) *p.y = static_cast<float>(sum);
}
