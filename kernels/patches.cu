// From images to the tokens of a vision transformer, and its two heads' mean.
//
//   patches_forward      y[n, (r, s), (c, i, j)] = x[n, c, r p + i, s q + j]; y [N, (H/p) (W/q), C p q], x [N, C, H, W]
//   patches_vjp          x (+)= y rearranged back; pixels that fill no patch get 0
//   prepend_forward      y[b] = t_1, .., t_k, x[b] along the sequence; x [B, S, H], t [H], y [B, k + S, H]
//   prepend_vjp          x (+)= rows k.. of each sample of y
//   prepend_token        t (+)= Σ_b y[b, 0], the samples in order; t f32
//   interpolate_forward  y = positions [k + h' w', H] of x = positions [k + h w, H] by cubic convolution, a = -3/4
//   interpolate_vjp      y (+)= its transpose of x; y f32
//   half_sum             y (+)= (a + b) / 2, b null being 0; y f32 or bf16 whatever a and b are
//
// f32 or bf16. patches and half_sum: a thread an element, the grid striding; writes are whole, reads come in runs of q
// elements (16 in ViT-B: 64 or 32 bytes). prepend: a warp a row, 16-byte packs where H and the bases allow it.
// prepend_token: a warp 32 columns, its 8 warps the samples by turns, added up in order. interpolate: a block a position,
// threads over H; the transpose visits the grid's rows and columns that the position has a part in, found from the
// weights again, so that sums have a fixed order and no scatter. Bytes (of e an element): 2 e a number moved; interpolate
// reads 16 rows a position, from the cache. FLOPs: none, but 32 H a position of interpolate. Not yet run on a GPU.
#include "reduce.cuh"
#include "walk.cuh"

struct PatchesArgs {
    void* x;
    void* y;
    u64 images;
    u32 channels;
    u32 height;
    u32 width;
    u32 patch_height;
    u32 patch_width;
    u32 add;
};
FIPK_ARGS(PatchesArgs, 48);

template <class T> FIPK_DEVICE void patches_forward(const PatchesArgs& p) {
    const u32 across = p.width / p.patch_width, down = p.height / p.patch_height;
    const u32 area = p.patch_height * p.patch_width, numbers = p.channels * area;
    const u64 all = p.images * down * across * numbers, stride = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 at = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; at < all; at += stride) {
        const u64 patch = at / numbers, row = patch / across;
        const u32 number = static_cast<u32>(at % numbers), column = static_cast<u32>(patch % across);
        const u64 n = row / down;
        const u32 r = static_cast<u32>(row % down), c = number / area, i = number / p.patch_width % p.patch_height;
        const u64 line = (n * p.channels + c) * p.height + r * p.patch_height + i;
        copy_n<T, 1>(p.y, at, p.x, line * p.width + column * p.patch_width + number % p.patch_width);
    }
}
FIPK_KERNEL(patches_forward_f32, PatchesArgs, 256) { patches_forward<float>(p); }
FIPK_KERNEL(patches_forward_bf16, PatchesArgs, 256) { patches_forward<bf16>(p); }

template <class T> FIPK_DEVICE void patches_vjp(const PatchesArgs& p) {
    const u32 across = p.width / p.patch_width, down = p.height / p.patch_height;
    const u64 all = p.images * p.channels * p.height * p.width, stride = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 at = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; at < all; at += stride) {
        const u64 line = at / p.width, plane = line / p.height, n = plane / p.channels;
        const u32 x = static_cast<u32>(at % p.width), y = static_cast<u32>(line % p.height);
        const u32 c = static_cast<u32>(plane % p.channels), r = y / p.patch_height, s = x / p.patch_width;
        float v = 0.0f;
        if (r < down && s < across) {
            const u64 patch = (n * down + r) * across + s, channel = patch * p.channels + c;
            const u64 run = channel * p.patch_height + y % p.patch_height;
            v = load<T>(p.y, run * p.patch_width + x % p.patch_width);
        }
        put<T>(p.x, at, v, p.add);
    }
}
FIPK_KERNEL(patches_vjp_f32, PatchesArgs, 256) { patches_vjp<float>(p); }
FIPK_KERNEL(patches_vjp_bf16, PatchesArgs, 256) { patches_vjp<bf16>(p); }

struct PrependArgs {
    void* x; // may be null in the forward kernel: zero
    void* tokens[4]; // likewise
    void* y;
    u64 batch;
    u64 seq;
    u64 hidden;
    u32 count;
    u32 packs;
    u32 add;
    u32 unused;
};
FIPK_ARGS(PrependArgs, 88);

template <class T, int W> FIPK_DEVICE void prepend_forward(const PrependArgs& p) {
    const u32 lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const u64 rows = p.seq + p.count, stride = static_cast<u64>(gridDim.x) * warps;
    for (u64 row = static_cast<u64>(blockIdx.x) * warps + threadIdx.x / 32; row < p.batch * rows; row += stride) {
        const u64 b = row / rows, s = row % rows;
        const void* from = p.x;
        u64 first = s < p.count ? 0 : (b * p.seq + s - p.count) * p.hidden;
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            if (k < p.count && s == k) from = p.tokens[k];
        }
        for (u64 c = lane * W; c < p.hidden; c += 32 * W) {
            float v[W];
#pragma unroll
            for (int j = 0; j < W; j++) v[j] = 0.0f;
            if (from) load_n<T>(v, from, first + c);
            store_n<T>(p.y, row * p.hidden + c, v);
        }
    }
}
template <class T> FIPK_DEVICE void prepend_forward_of(const PrependArgs& p) {
    if (p.packs) {
        prepend_forward<T, Pack<T>::SIZE>(p);
    } else {
        prepend_forward<T, 1>(p);
    }
}
FIPK_KERNEL(prepend_forward_f32, PrependArgs, 256) { prepend_forward_of<float>(p); }
FIPK_KERNEL(prepend_forward_bf16, PrependArgs, 256) { prepend_forward_of<bf16>(p); }

template <class T, int W> FIPK_DEVICE void prepend_vjp(const PrependArgs& p) {
    const u32 lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const u64 stride = static_cast<u64>(gridDim.x) * warps;
    for (u64 row = static_cast<u64>(blockIdx.x) * warps + threadIdx.x / 32; row < p.batch * p.seq; row += stride) {
        const u64 from = row + (row / p.seq + 1) * p.count;
        for (u64 c = lane * W; c < p.hidden; c += 32 * W) {
            float v[W];
            load_n<T>(v, p.y, from * p.hidden + c);
            put_n<T>(p.x, row * p.hidden + c, v, p.add);
        }
    }
}
template <class T> FIPK_DEVICE void prepend_vjp_of(const PrependArgs& p) {
    if (p.packs) {
        prepend_vjp<T, Pack<T>::SIZE>(p);
    } else {
        prepend_vjp<T, 1>(p);
    }
}
FIPK_KERNEL(prepend_vjp_f32, PrependArgs, 256) { prepend_vjp_of<float>(p); }
FIPK_KERNEL(prepend_vjp_bf16, PrependArgs, 256) { prepend_vjp_of<bf16>(p); }

// y begins at the token's own row of the first sample.
template <class T> FIPK_DEVICE void prepend_token(const PrependArgs& p, float (*sums)[32]) {
    constexpr u32 WARPS = 8;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (u64 first = blockIdx.x * 32ull; first < p.hidden; first += gridDim.x * 32ull) {
        const u64 c = first + lane;
        float sum = 0.0f;
        if (c < p.hidden) {
#pragma unroll 4
            for (u64 b = warp; b < p.batch; b += WARPS) sum += load<T>(p.y, b * (p.seq + p.count) * p.hidden + c);
        }
        sums[warp][lane] = sum;
        __syncthreads();
        if (warp == 0 && c < p.hidden) {
            float total = 0.0f;
#pragma unroll
            for (u32 k = 0; k < WARPS; k++) total += sums[k][lane];
            put<float>(p.tokens[0], c, total, p.add);
        }
        __syncthreads();
    }
}
FIPK_KERNEL(prepend_token_f32, PrependArgs, 256) {
    FIPK_SHARED(float, sums_f32, [8][32]);
    prepend_token<float>(p, sums_f32);
}
FIPK_KERNEL(prepend_token_bf16, PrependArgs, 256) {
    FIPK_SHARED(float, sums_bf16, [8][32]);
    prepend_token<bf16>(p, sums_bf16);
}

struct InterpolateArgs {
    const void* x;
    void* y;
    u64 hidden;
    u32 special;
    u32 from_rows;
    u32 from_columns;
    u32 to_rows;
    u32 to_columns;
    u32 add;
};
FIPK_ARGS(InterpolateArgs, 48);

// What cell `at` of `to` takes along one axis: `weight[i]` of cell first + i, cells beyond an end being the end's.
struct Taps {
    int first;
    float weight[4];
};
FIPK_DEVICE Taps taps(int from, int to, int at) {
    constexpr float A = -0.75f;
    // The middle of `at` among the old cells, (at + 1/2) from / to - 1/2, as a fraction of whole numbers.
    const int over = (2 * at + 1) * from - to, under = 2 * to;
    const int cell = over < 0 ? -((-over + under - 1) / under) : over / under;
    const float t = static_cast<float>(over - cell * under) / static_cast<float>(under), u = 1.0f - t;
    Taps result;
    result.first = cell - 1;
    result.weight[0] = ((A * (t + 1.0f) - 5.0f * A) * (t + 1.0f) + 8.0f * A) * (t + 1.0f) - 4.0f * A;
    result.weight[1] = ((A + 2.0f) * t - (A + 3.0f)) * t * t + 1.0f;
    result.weight[2] = ((A + 2.0f) * u - (A + 3.0f)) * u * u + 1.0f;
    result.weight[3] = ((A * (u + 1.0f) - 5.0f * A) * (u + 1.0f) + 8.0f * A) * (u + 1.0f) - 4.0f * A;
    return result;
}
FIPK_DEVICE int inside(int cell, int cells) { return cell < 0 ? 0 : cell < cells ? cell : cells - 1; }

template <class T> FIPK_DEVICE void interpolate_forward(const InterpolateArgs& p) {
    const int rows = static_cast<int>(p.from_rows), columns = static_cast<int>(p.from_columns);
    const u64 all = p.special + static_cast<u64>(p.to_rows) * p.to_columns;
    for (u64 at = blockIdx.x; at < all; at += gridDim.x) {
        if (at < p.special) {
            for (u64 c = threadIdx.x; c < p.hidden; c += blockDim.x) copy_n<T, 1>(p.y, at * p.hidden + c, p.x, at * p.hidden + c);
            continue;
        }
        const int cell = static_cast<int>(at - p.special), wide = static_cast<int>(p.to_columns);
        const Taps down = taps(rows, static_cast<int>(p.to_rows), cell / wide), across = taps(columns, wide, cell % wide);
        for (u64 c = threadIdx.x; c < p.hidden; c += blockDim.x) {
            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const u64 row = p.special + static_cast<u64>(inside(down.first + i, rows)) * p.from_columns;
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float weight = down.weight[i] * across.weight[j];
                    sum += weight * load<T>(p.x, (row + inside(across.first + j, columns)) * p.hidden + c);
                }
            }
            store<T>(p.y, at * p.hidden + c, sum);
        }
    }
}
FIPK_KERNEL(interpolate_forward_f32, InterpolateArgs, 128) { interpolate_forward<float>(p); }
FIPK_KERNEL(interpolate_forward_bf16, InterpolateArgs, 128) { interpolate_forward<bf16>(p); }

// How much cell `at` of `to` takes of cell `of`; false where it takes none of it.
FIPK_DEVICE bool part(int from, int to, int at, int of, float& weight) {
    const Taps t = taps(from, to, at);
    bool some = false;
    weight = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (inside(t.first + i, from) == of) weight += t.weight[i], some = true;
    }
    return some;
}

template <class T> FIPK_DEVICE void interpolate_vjp(const InterpolateArgs& p) {
    const int rows = static_cast<int>(p.from_rows), columns = static_cast<int>(p.from_columns);
    const int high = static_cast<int>(p.to_rows), wide = static_cast<int>(p.to_columns);
    const u64 all = p.special + static_cast<u64>(p.from_rows) * p.from_columns;
    for (u64 at = blockIdx.x; at < all; at += gridDim.x) {
        for (u64 c = threadIdx.x; c < p.hidden; c += blockDim.x) {
            float sum = 0.0f;
            if (at < p.special) {
                sum = load<T>(p.x, at * p.hidden + c);
            } else {
                const int cell = static_cast<int>(at - p.special), row = cell / columns, column = cell % columns;
                for (int r = 0; r < high; r++) {
                    float down, across;
                    if (!part(rows, high, r, row, down)) continue;
                    for (int s = 0; s < wide; s++) {
                        if (!part(columns, wide, s, column, across)) continue;
                        sum += down * across * load<T>(p.x, (p.special + static_cast<u64>(r) * wide + s) * p.hidden + c);
                    }
                }
            }
            put<float>(p.y, at * p.hidden + c, sum, p.add);
        }
    }
}
FIPK_KERNEL(interpolate_vjp_f32, InterpolateArgs, 128) { interpolate_vjp<float>(p); }
FIPK_KERNEL(interpolate_vjp_bf16, InterpolateArgs, 128) { interpolate_vjp<bf16>(p); }

struct HalfSumArgs {
    const void* a;
    const void* b;
    void* y;
    u64 n;
    u32 add;
    u32 narrow; // y is bf16
};
FIPK_ARGS(HalfSumArgs, 40);

template <class T> FIPK_DEVICE void half_sum(const HalfSumArgs& p) {
    over_elements<T>(p.n, false, [&](auto, u64 i) {
        const float v = 0.5f * (load<T>(p.a, i) + (p.b ? load<T>(p.b, i) : 0.0f));
        if (p.narrow) {
            put<bf16>(p.y, i, v, p.add);
        } else {
            put<float>(p.y, i, v, p.add);
        }
    });
}
FIPK_KERNEL(half_sum_f32, HalfSumArgs, 256) { half_sum<float>(p); }
FIPK_KERNEL(half_sum_bf16, HalfSumArgs, 256) { half_sum<bf16>(p); }
