// Plain operations on vectors of weight space, and random numbers.
//
//     axpy      y = y + a x                       12 bytes a float
//     scale     x = a x                            8
//     narrow    y = bf16(x), widen  y = float(x)   6
//     dot       sum x y in f64                     8, or 4 where both are the same vector
//     uniform, normal: Philox, as src/rng.rs       4
//
// (Fill and plain copies are the device's own.) All are bound by memory: a thread takes 16 bytes a load, and blocks
// stride by the grid. Ranges that do not start on 16 bytes go element by element. axpy and scale round as the host does
// and are equal to it bit for bit. The dot product cuts its range into chunks of 4096 from the range's start, sums each
// in f64 (16 products a thread, then the block's fixed tree) and the chunks by one block: its result depends on the
// range alone. Uniform numbers equal the host's bit for bit; normal ones to the rounding of f64 logarithm and cosine,
// so in f32 nearly always. Not yet run on a GPU.
#include "philox.cuh"
#include "rounded.cuh"
#include "tiles.cuh"

FIPK_DEVICE u64 thread_index() { return static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; }
FIPK_DEVICE u64 grid_threads() { return static_cast<u64>(gridDim.x) * blockDim.x; }
FIPK_DEVICE bool on_16_bytes(const void* at) { return (reinterpret_cast<u64>(at) & 15) == 0; }

struct AxpyArgs {
    const float* x;
    float* y;
    u64 n;
    float a;
    u32 reserved;
};
FIPK_ARGS(AxpyArgs, 32);

FIPK_KERNEL(flat_axpy_f32, AxpyArgs, 256) {
    const u64 packs = on_16_bytes(p.x) && on_16_bytes(p.y) ? p.n / 4 : 0;
    for (u64 i = thread_index(); i < packs; i += grid_threads()) {
        const Pack<float> x = load_pack<float>(p.x, 4 * i);
        Pack<float> y = load_pack<float>(p.y, 4 * i);
#pragma unroll
        for (int j = 0; j < 4; ++j) y.v[j] = add(y.v[j], mul(p.a, x.v[j]));
        store_pack<float>(p.y, 4 * i, y);
    }
    for (u64 i = 4 * packs + thread_index(); i < p.n; i += grid_threads()) p.y[i] = add(p.y[i], mul(p.a, p.x[i]));
}

struct ScaleArgs {
    float* x;
    u64 n;
    float a;
    u32 reserved;
};
FIPK_ARGS(ScaleArgs, 24);

FIPK_KERNEL(flat_scale_f32, ScaleArgs, 256) {
    const u64 packs = on_16_bytes(p.x) ? p.n / 4 : 0;
    for (u64 i = thread_index(); i < packs; i += grid_threads()) {
        Pack<float> x = load_pack<float>(p.x, 4 * i);
#pragma unroll
        for (int j = 0; j < 4; ++j) x.v[j] = mul(p.a, x.v[j]);
        store_pack<float>(p.x, 4 * i, x);
    }
    for (u64 i = 4 * packs + thread_index(); i < p.n; i += grid_threads()) p.x[i] = mul(p.a, p.x[i]);
}

struct CastArgs {
    const void* x;
    void* y;
    u64 n;
};
FIPK_ARGS(CastArgs, 24);

// Eight at a time: two packs of float against one of bf16.
FIPK_KERNEL(flat_narrow_bf16, CastArgs, 256) {
    const u64 packs = on_16_bytes(p.x) && on_16_bytes(p.y) ? p.n / 8 : 0;
    for (u64 i = thread_index(); i < packs; i += grid_threads()) {
        const Pack<float> low = load_pack<float>(p.x, 8 * i), high = load_pack<float>(p.x, 8 * i + 4);
        store_pack<bf16>(p.y, 8 * i,
                         {{low.v[0], low.v[1], low.v[2], low.v[3], high.v[0], high.v[1], high.v[2], high.v[3]}});
    }
    for (u64 i = 8 * packs + thread_index(); i < p.n; i += grid_threads()) store<bf16>(p.y, i, load<float>(p.x, i));
}

FIPK_KERNEL(flat_widen_bf16, CastArgs, 256) {
    const u64 packs = on_16_bytes(p.x) && on_16_bytes(p.y) ? p.n / 8 : 0;
    for (u64 i = thread_index(); i < packs; i += grid_threads()) {
        const Pack<bf16> x = load_pack<bf16>(p.x, 8 * i);
        store_pack<float>(p.y, 8 * i, {{x.v[0], x.v[1], x.v[2], x.v[3]}});
        store_pack<float>(p.y, 8 * i + 4, {{x.v[4], x.v[5], x.v[6], x.v[7]}});
    }
    for (u64 i = 8 * packs + thread_index(); i < p.n; i += grid_threads()) store<float>(p.y, i, load<bf16>(p.x, i));
}

struct DotArgs {
    const float* x;
    const float* y;
    double* parts;  // one a chunk
    u64 n;
};
FIPK_ARGS(DotArgs, 32);

FIPK_KERNEL(flat_dot_f32, DotArgs, 256) {
    FIPK_SHARED(double, shared, [32]);
    const bool packs = on_16_bytes(p.x) && on_16_bytes(p.y);
    const bool same = p.x == p.y;
    const u64 chunks = (p.n + TILE - 1) / TILE;
    for (u64 c = blockIdx.x; c < chunks; c += gridDim.x) {
        const u64 start = c * TILE, end = start + TILE < p.n ? start + TILE : p.n;
        double sum = 0.0;
        for (u64 i = start + 4 * threadIdx.x; i < end; i += 4 * blockDim.x) {
            Pack<float> x = {{0.0f, 0.0f, 0.0f, 0.0f}}, y = x;
            if (packs && i + 4 <= end) {
                x = load_pack<float>(p.x, i);
                y = same ? x : load_pack<float>(p.y, i);
            } else {
#pragma unroll
                for (u32 j = 0; j < 4; ++j) {
                    if (i + j < end) x.v[j] = p.x[i + j], y.v[j] = p.y[i + j];
                }
            }
            // A product of two floats is exact in f64.
#pragma unroll
            for (int j = 0; j < 4; ++j) sum += static_cast<double>(x.v[j]) * static_cast<double>(y.v[j]);
        }
        sum = block_sum(sum, shared);
        if (threadIdx.x == 0) p.parts[c] = sum;
    }
}

struct TotalArgs {
    const double* parts;
    double* total;
    u64 n;
};
FIPK_ARGS(TotalArgs, 24);

// One block.
FIPK_KERNEL(flat_total_f64, TotalArgs, 1024) {
    FIPK_SHARED(double, total_shared, [32]);
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < p.n; i += blockDim.x) sum += p.parts[i];
    sum = block_sum(sum, total_shared);
    if (threadIdx.x == 0 && blockIdx.x == 0) *p.total = sum;
}

struct RandomArgs {
    float* y;
    u64 n;
    u64 seed;
    u64 stream;
    u64 position;  // words drawn before
};
FIPK_ARGS(RandomArgs, 40);

// A thread takes the four words of a counter, as far as they are wanted.
FIPK_KERNEL(flat_uniform_f32, RandomArgs, 256) {
    const u64 first = p.position / 4, counters = p.n == 0 ? 0 : (p.position + p.n - 1) / 4 - first + 1;
    for (u64 c = thread_index(); c < counters; c += grid_threads()) {
        const Words words = philox(first + c, p.stream, p.seed);
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            const u64 word = 4 * (first + c) + j;
            if (word >= p.position && word - p.position < p.n) {
                p.y[word - p.position] = static_cast<float>(words.v[j] >> 8) * (1.0f / 16777216.0f);
            }
        }
    }
}

// Box and Muller, one of the two values: number i is made of words 2 i and 2 i + 1.
FIPK_KERNEL(flat_normal_f32, RandomArgs, 256) {
    for (u64 i = thread_index(); i < p.n; i += grid_threads()) {
        const u64 at = p.position + 2 * i;
        const Words words = philox(at / 4, p.stream, p.seed);
        const u32 k = static_cast<u32>(at % 4);
        const u32 first = k == 0 ? words.v[0] : k == 1 ? words.v[1] : k == 2 ? words.v[2] : words.v[3];
        u32 second = k == 0 ? words.v[1] : k == 1 ? words.v[2] : words.v[3];
        if (k == 3) second = philox(at / 4 + 1, p.stream, p.seed).v[0];
        const double u = (static_cast<double>(first) + 1.0) / 4294967296.0;
        const double v = static_cast<double>(second) / 4294967296.0;
        p.y[i] = static_cast<float>(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
    }
}
