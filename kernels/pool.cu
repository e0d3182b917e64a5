// Pools over windows of the planes of x [N, C, H, W], and what leaves out pixels.
//
//   max_pool_forward      y, and which number of its plane each was: of equal ones the first, a NaN before all
//   max_pool_jvp          dy = dx there
//   max_pool_vjp          gx (+)= Σ of gy that chose this pixel
//   average_pool_forward  y = the mean of a window, its padding's zeros counted or not; J dx is the same of dx
//   average_pool_vjp      gx (+)= Σ of gy over the windows that hold this pixel, each over its window's size
//   subsample_forward     y[n, p + c, i, j] = x[n, c, s i, s j], p channels of zeros on either side
//   subsample_vjp         gx (+)= gy rearranged back; pixels that were left out get 0
//
// f32 or bf16. A thread an element of what is written, the grid striding; average_pool_forward takes a warp an element
// where windows are large, lanes along it. Cotangents gather: the windows that hold a pixel are found by arithmetic and
// visited row by row, so that sums have a fixed order and there are no atomics.
//
// Bytes (of e an element): x once, from the cache where windows overlap, and y; 4 more an output for what max_pool chose.
// FLOPs: one a number of a window. Bound by memory, but where a thread's divisions show (some 60 instructions an element).
// Not yet run on a GPU.
#include "reduce.cuh"
#include "walk.cuh"

struct PoolArgs {
    const void* x; // or dx; gy in vjp
    void* y;       // or dy; gx in vjp
    u32* chosen;   // of max_pool
    u64 planes;
    u32 from[2]; // of x
    u32 to[2];   // of y
    u32 kernel[2];
    u32 stride[2];
    u32 padding[2];
    u32 adaptive; // windows are as many as outputs and of nearly equal size; the three above say nothing
    u32 count_padding;
    u32 add;
    u32 warps; // a warp an output
};
FIPK_ARGS(PoolArgs, 88);

// The part of an axis that a window holds, and its size with padding.
struct Window {
    u32 start;
    u32 end;
    u32 whole;
};
FIPK_DEVICE Window window(const PoolArgs& p, int axis, u32 i) {
    const u32 len = p.from[axis];
    if (p.adaptive) {
        const u64 to = p.to[axis];
        const u32 start = static_cast<u32>(static_cast<u64>(i) * len / to);
        const u32 end = static_cast<u32>((static_cast<u64>(i + 1) * len + to - 1) / to);
        return {start, end, end - start};
    }
    const u32 padding = p.padding[axis], first = i * p.stride[axis], last = first + p.kernel[axis];
    const u32 end = last < len + 2 * padding ? last : len + 2 * padding, inner = end > padding ? end - padding : 0;
    return {first > padding ? first - padding : 0, inner < len ? inner : len, end - first};
}

// The windows that hold element i of x: first .. end.
struct Holders {
    u32 first;
    u32 end;
};
FIPK_DEVICE Holders holders(const PoolArgs& p, int axis, u32 i) {
    const u32 len = p.from[axis], to = p.to[axis];
    if (p.adaptive) {
        const u64 first = static_cast<u64>(i) * to / len, end = (static_cast<u64>(i + 1) * to + len - 1) / len;
        return {static_cast<u32>(first), static_cast<u32>(end)};
    }
    const u32 at = i + p.padding[axis], kernel = p.kernel[axis], stride = p.stride[axis], end = at / stride + 1;
    return {at < kernel ? 0 : (at - kernel) / stride + 1, end < to ? end : to};
}

// An element of a tensor of planes.
struct Place {
    u64 plane;
    u32 row;
    u32 column;

    FIPK_DEVICE Place(u64 i, u32 height, u32 width) {
        if (i >> 32) {
            plane = i / width / height;
            row = static_cast<u32>(i / width % height);
            column = static_cast<u32>(i % width);
        } else {
            const u32 line = static_cast<u32>(i) / width;
            column = static_cast<u32>(i) - line * width;
            plane = line / height;
            row = line - static_cast<u32>(plane) * height;
        }
    }
};

template <class F> FIPK_DEVICE void over(u64 n, F body) {
    const u64 stride = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) body(i);
}

template <class T> FIPK_DEVICE void max_pool_forward(const PoolArgs& p) {
    over(p.planes * p.to[0] * p.to[1], [&](u64 i) {
        const Place at(i, p.to[0], p.to[1]);
        const Window rows = window(p, 0, at.row), columns = window(p, 1, at.column);
        const T* x = static_cast<const T*>(p.x) + at.plane * p.from[0] * p.from[1];
        u32 best = rows.start * p.from[1] + columns.start;
        float top = load<T>(x, best);
        for (u32 r = rows.start; r < rows.end; r++) {
            for (u32 c = columns.start; c < columns.end; c++) {
                const u32 here = r * p.from[1] + c;
                const float v = load<T>(x, here);
                if (v > top || v != v) top = v, best = here;
            }
        }
        store<T>(p.y, i, top);
        p.chosen[i] = best;
    });
}
FIPK_KERNEL(max_pool_forward_f32, PoolArgs, 256) { max_pool_forward<float>(p); }
FIPK_KERNEL(max_pool_forward_bf16, PoolArgs, 256) { max_pool_forward<bf16>(p); }

template <class T> FIPK_DEVICE void max_pool_jvp(const PoolArgs& p) {
    const u64 area = static_cast<u64>(p.to[0]) * p.to[1], from = static_cast<u64>(p.from[0]) * p.from[1];
    over(p.planes * area, [&](u64 i) { copy_n<T, 1>(p.y, i, p.x, i / area * from + p.chosen[i]); });
}
FIPK_KERNEL(max_pool_jvp_f32, PoolArgs, 256) { max_pool_jvp<float>(p); }
FIPK_KERNEL(max_pool_jvp_bf16, PoolArgs, 256) { max_pool_jvp<bf16>(p); }

template <class T> FIPK_DEVICE void max_pool_vjp(const PoolArgs& p) {
    over(p.planes * p.from[0] * p.from[1], [&](u64 i) {
        const Place at(i, p.from[0], p.from[1]);
        const Holders rows = holders(p, 0, at.row), columns = holders(p, 1, at.column);
        const u64 plane = at.plane * p.to[0] * p.to[1];
        const u32 here = at.row * p.from[1] + at.column;
        float sum = 0.0f;
        for (u32 r = rows.first; r < rows.end; r++) {
            for (u32 c = columns.first; c < columns.end; c++) {
                const u64 y = plane + static_cast<u64>(r) * p.to[1] + c;
                if (p.chosen[y] == here) sum += load<T>(p.x, y);
            }
        }
        put<T>(p.y, i, sum, p.add);
    });
}
FIPK_KERNEL(max_pool_vjp_f32, PoolArgs, 256) { max_pool_vjp<float>(p); }
FIPK_KERNEL(max_pool_vjp_bf16, PoolArgs, 256) { max_pool_vjp<bf16>(p); }

FIPK_DEVICE float share(const PoolArgs& p, const Window& r, const Window& c) {
    const u64 size = p.count_padding ? static_cast<u64>(r.whole) * c.whole
                                     : static_cast<u64>(r.end - r.start) * (c.end - c.start);
    return 1.0f / static_cast<float>(size > 0 ? size : 1);
}

template <class T> FIPK_DEVICE void average_pool_forward(const PoolArgs& p) {
    const u64 outputs = p.planes * p.to[0] * p.to[1];
    const auto mean = [&](u64 i, u32 lane, u32 lanes, auto finish) {
        const Place at(i, p.to[0], p.to[1]);
        const Window rows = window(p, 0, at.row), columns = window(p, 1, at.column);
        const T* x = static_cast<const T*>(p.x) + at.plane * p.from[0] * p.from[1];
        const u32 wide = columns.end - columns.start, numbers = rows.end > rows.start ? (rows.end - rows.start) * wide : 0;
        float sum = 0.0f;
        for (u32 k = lane; k < numbers; k += lanes) {
            sum += load<T>(x, (rows.start + k / wide) * p.from[1] + columns.start + k % wide);
        }
        finish(sum, share(p, rows, columns));
    };
    if (!p.warps) {
        over(outputs, [&](u64 i) { mean(i, 0, 1, [&](float sum, float share) { store<T>(p.y, i, sum * share); }); });
        return;
    }
    const u32 lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const u64 stride = static_cast<u64>(gridDim.x) * warps;
    for (u64 i = static_cast<u64>(blockIdx.x) * warps + threadIdx.x / 32; i < outputs; i += stride) {
        mean(i, lane, 32, [&](float sum, float share) {
            const float total = warp_sum(sum);
            if (lane == 0) store<T>(p.y, i, total * share);
        });
    }
}
FIPK_KERNEL(average_pool_forward_f32, PoolArgs, 256) { average_pool_forward<float>(p); }
FIPK_KERNEL(average_pool_forward_bf16, PoolArgs, 256) { average_pool_forward<bf16>(p); }

template <class T> FIPK_DEVICE void average_pool_vjp(const PoolArgs& p) {
    over(p.planes * p.from[0] * p.from[1], [&](u64 i) {
        const Place at(i, p.from[0], p.from[1]);
        const Holders rows = holders(p, 0, at.row), columns = holders(p, 1, at.column);
        const u64 plane = at.plane * p.to[0] * p.to[1];
        float sum = 0.0f;
        for (u32 r = rows.first; r < rows.end; r++) {
            const Window over_rows = window(p, 0, r);
            for (u32 c = columns.first; c < columns.end; c++) {
                const float part = share(p, over_rows, window(p, 1, c));
                sum = fmaf(part, load<T>(p.x, plane + static_cast<u64>(r) * p.to[1] + c), sum);
            }
        }
        put<T>(p.y, i, sum, p.add);
    });
}
FIPK_KERNEL(average_pool_vjp_f32, PoolArgs, 256) { average_pool_vjp<float>(p); }
FIPK_KERNEL(average_pool_vjp_bf16, PoolArgs, 256) { average_pool_vjp<bf16>(p); }

struct SubsampleArgs {
    void* x;
    void* y;
    u64 batch;
    u32 channels;
    u32 from[2];
    u32 to[2];
    u32 stride;
    u32 pad;
    u32 add;
};
FIPK_ARGS(SubsampleArgs, 56);

template <class T> FIPK_DEVICE void subsample_forward(const SubsampleArgs& p) {
    const u32 channels = p.channels + 2 * p.pad;
    over(p.batch * channels * p.to[0] * p.to[1], [&](u64 i) {
        const Place at(i, p.to[0], p.to[1]);
        const u32 channel = static_cast<u32>(at.plane % channels);
        if (channel < p.pad || channel - p.pad >= p.channels) return store<T>(p.y, i, 0.0f);
        const u64 line = (at.plane / channels * p.channels + channel - p.pad) * p.from[0] + at.row * p.stride;
        copy_n<T, 1>(p.y, i, p.x, line * p.from[1] + at.column * p.stride);
    });
}
FIPK_KERNEL(subsample_forward_f32, SubsampleArgs, 256) { subsample_forward<float>(p); }
FIPK_KERNEL(subsample_forward_bf16, SubsampleArgs, 256) { subsample_forward<bf16>(p); }

template <class T> FIPK_DEVICE void subsample_vjp(const SubsampleArgs& p) {
    over(p.batch * p.channels * p.from[0] * p.from[1], [&](u64 i) {
        const Place at(i, p.from[0], p.from[1]);
        const u64 plane = at.plane / p.channels * (p.channels + 2 * p.pad) + p.pad + at.plane % p.channels;
        const u64 line = plane * p.to[0] + at.row / p.stride;
        const bool taken = at.row % p.stride == 0 && at.column % p.stride == 0;
        put<T>(p.x, i, taken ? load<T>(p.y, line * p.to[1] + at.column / p.stride) : 0.0f, p.add);
    });
}
FIPK_KERNEL(subsample_vjp_f32, SubsampleArgs, 256) { subsample_vjp<float>(p); }
FIPK_KERNEL(subsample_vjp_bf16, SubsampleArgs, 256) { subsample_vjp<bf16>(p); }
