// Distances between two outputs: y = Σ_r w_r d(z_r, t_r), with p = softmax z and q = softmax t of a row,
//
//   euclidean      ½ |z - t|²            bhattacharyya  -log Σ √(p q)
//   kl             Σ q (log q - log p)   hellinger      1 - Σ √(p q)
//
// z (student) and its tangent and cotangent [rows, C], f32 or bf16; t (teacher) and its own [rows, C], weights [rows],
// y and theirs [1], f32. A block a row, f64 throughout, p and q met as logarithms alone. As on the host
// (src/ops/distance.rs) each d is exactly 0 with a gradient of exactly 0 at z = t and keeps its digits near it, since
// every sum there is one of squares.
//
// A row is read once for both softmaxes and once more for each of: d, and the gradient or the product with tangents;
// the second time from the cache. Bytes (of e an element, n = rows C): (e + 4) n forward, twice that jvp, 2 e n + 4 n
// vjp by z. FLOPs: 4 f64 exponentials an element. Not yet run on a GPU.
#include "loss.cuh"

enum Kind : u32 { EUCLIDEAN, BHATTACHARYYA, KL, HELLINGER };

// A row of a pair, its softmaxes, and what slopes need of its distance.
template <class T> struct Pair {
    const PairArgs& p;
    u64 row;
    double* shared;
    LogSum student, teacher;
    double d = 0.0, half = 0.5; // KL: the distance. Hellinger and Bhattacharyya: the latter, and ½ Σ √(p q) or ½

    FIPK_DEVICE double z(u64 c) const { return load<T>(p.z, row + c); }
    FIPK_DEVICE double t(u64 c) const { return load<float>(p.t, row + c); }
    FIPK_DEVICE double log_p(u64 c) const { return student.log_share(z(c)); }
    FIPK_DEVICE double log_q(u64 c) const { return teacher.log_share(t(c)); }

    FIPK_DEVICE Pair(const PairArgs& args, u64 r, double* shared_) : p(args), row(r * args.cols), shared(shared_) {
        if (p.kind == EUCLIDEAN) return;
        student = row_log_sum(p.cols, shared, [&](u64 c) { return z(c); });
        teacher = row_log_sum(p.cols, shared, [&](u64 c) { return t(c); });
    }

    // Σ q (log q - log p) as Σ (p - q - q log(p/q)), whose terms are all positive: Σ (p - q) is 0.
    FIPK_DEVICE double kl() const {
        return row_sum(p.cols, shared, [&](u64 c) {
            const double q = log_q(c), d = log_p(c) - q;
            // Where p/q is near 1, e^d - 1 - d keeps the digits; far from it, it could overflow.
            return fabs(d) < 1.0 ? exp(q) * (expm1(d) - d) : exp(q + d) - exp(q) * (1.0 + d);
        });
    }
    // 1 - Σ √(p q) as ½ Σ (√p - √q)².
    FIPK_DEVICE double hellinger() const {
        return 0.5 * row_sum(p.cols, shared, [&](u64 c) {
            const double root = exp(0.5 * log_p(c)) - exp(0.5 * log_q(c));
            return root * root;
        });
    }
    // -log Σ √(p q): from the Hellinger distance where the two are close, else by its definition.
    FIPK_DEVICE double bhattacharyya() const {
        const double h = hellinger();
        if (h < 0.5) return -log1p(-h);
        const LogSum roots = row_log_sum(p.cols, shared, [&](u64 c) { return 0.5 * (log_p(c) + log_q(c)); });
        return -(roots.top + roots.log_sum);
    }

    FIPK_DEVICE double value() const {
        switch (p.kind) {
        case EUCLIDEAN:
            return 0.5 * row_sum(p.cols, shared, [&](u64 c) { return (z(c) - t(c)) * (z(c) - t(c)); });
        case KL: return kl();
        case HELLINGER: return hellinger();
        default: return bhattacharyya();
        }
    }

    // To be called before slopes are asked for, by the whole block.
    FIPK_DEVICE void prepare(bool of_teacher) {
        if (p.kind == KL && of_teacher) d = kl();
        if (p.kind == HELLINGER || p.kind == BHATTACHARYYA) d = bhattacharyya();
        if (p.kind == HELLINGER) half = 0.5 * exp(-d);
    }
    // With r = √(p q) / Σ √(p q): -log Σ √(p q) has the slope ½ (p - r), and 1 - Σ √(p q) that times Σ √(p q).
    FIPK_DEVICE double student_slope(u64 c) const {
        if (p.kind == EUCLIDEAN) return z(c) - t(c);
        const double lp = log_p(c), lq = log_q(c);
        return p.kind == KL ? exp(lp) - exp(lq) : half * (exp(lp) - exp(0.5 * (lp + lq) + d));
    }
    FIPK_DEVICE double teacher_slope(u64 c) const {
        if (p.kind == EUCLIDEAN) return t(c) - z(c);
        const double lp = log_p(c), lq = log_q(c);
        return p.kind == KL ? exp(lq) * ((lq - lp) - d) : half * (exp(lq) - exp(0.5 * (lp + lq) + d));
    }
};

template <class T> FIPK_DEVICE void distance_forward(const PairArgs& p) {
    FIPK_SHARED(double, shared, [32]);
    over_losses(p.weights, p.rows, p.values, [&](u64 r) { return Pair<T>(p, r, shared).value(); });
}

template <class T> FIPK_DEVICE void distance_jvp(const PairArgs& p) {
    FIPK_SHARED(double, shared, [32]);
    over_losses(p.weights, p.rows, p.values, [&](u64 r) {
        Pair<T> pair(p, r, shared);
        pair.prepare(p.dt != nullptr);
        return row_sum(p.cols, shared, [&](u64 c) {
            const double along_z = p.dz ? pair.student_slope(c) * load<T>(p.dz, pair.row + c) : 0.0;
            const double along_t = p.dt ? pair.teacher_slope(c) * load<float>(p.dt, pair.row + c) : 0.0;
            return along_z + along_t;
        });
    });
}

template <class T> FIPK_DEVICE void distance_vjp(const PairArgs& p) {
    FIPK_SHARED(double, shared, [32]);
    if (p.gz) {
        over_gradients<T>(p.weights, p.gy, p.rows, p.cols, p.gz, p.add_z, [&](u64 r, double scale) {
            Pair<T> pair(p, r, shared);
            pair.prepare(false);
            for (u64 c = threadIdx.x; c < p.cols; c += blockDim.x) {
                put<T>(p.gz, pair.row + c, static_cast<float>(scale * pair.student_slope(c)), p.add_z);
            }
        });
    }
    if (p.gt) {
        over_gradients<float>(p.weights, p.gy, p.rows, p.cols, p.gt, p.add_t, [&](u64 r, double scale) {
            Pair<T> pair(p, r, shared);
            pair.prepare(true);
            for (u64 c = threadIdx.x; c < p.cols; c += blockDim.x) {
                put<float>(p.gt, pair.row + c, static_cast<float>(scale * pair.teacher_slope(c)), p.add_t);
            }
        });
    }
}

FIPK_KERNEL(distance_forward_f32, PairArgs, LOSS_THREADS) { distance_forward<float>(p); }
FIPK_KERNEL(distance_forward_bf16, PairArgs, LOSS_THREADS) { distance_forward<bf16>(p); }
FIPK_KERNEL(distance_jvp_f32, PairArgs, LOSS_THREADS) { distance_jvp<float>(p); }
FIPK_KERNEL(distance_jvp_bf16, PairArgs, LOSS_THREADS) { distance_jvp<bf16>(p); }
FIPK_KERNEL(distance_vjp_f32, PairArgs, LOSS_THREADS) { distance_vjp<float>(p); }
FIPK_KERNEL(distance_vjp_bf16, PairArgs, LOSS_THREADS) { distance_vjp<bf16>(p); }
