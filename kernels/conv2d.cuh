// Convolutions of images [N, C, H, W] as products that are never laid out: what the kernels of conv2d.cu (FMAs in f32) and
// conv2d_mma.cu (tensor cores, bf16) share, which is all but their tiles.
//
//   conv2d         y[n, o, i, j] (+)= b[o] + Σ_{c, r, s} W[o, c, r, s] x[n, c, i S - P + r D, j S - P + s D]; of two pairs
//                  (dx, W) and (x, dW) it is the tangent, added up before it is rounded. Turned, it is the cotangent of x:
//                  gx[n, c, h, w] (+)= Σ_{o, r, s} W[o, c, r, s] gy[n, o, (h + P - r D) / S, (w + P - s D) / S], where
//                  the division leaves nothing over
//   conv2d_weight  g[part, o, c, r, s] (+)= Σ_{n, i, j} gy[n, o, i, j] x[n, c, i S - P + r D, j S - P + s D] over a part
//                  of the pixels; sum_rows adds the parts up in order
//
// x, y and W are f32 or bf16 by the kernel's name, b and g f32, sums f32. Any stride, padding, dilation and number of
// groups. No atomics: every element is one block's sum, in the order of its terms, whatever the device.
//
// A block of 256 threads makes a tile of channels x pixels (in conv2d_weight of channels x taps). Slices of DEPTH terms lie
// in shared memory in two buffers: while one is multiplied, the next is on its way through registers. Of conv2d a term is a
// tap (c, r, s): what it adds to a pixel's place is worked out once a slice, by as many threads as it has terms, which step
// from tap to tap without dividing; a pixel's own place is known once a block. Of conv2d_weight a term is a pixel, and all
// step. A turned convolution falls into S x S phases, each of every S-th row and column and of those taps that reach it, so
// that none is multiplied by a zero of the stride. Loads run along rows of an image, an element a thread, since taps align
// to nothing; what is beyond an edge is 0. Results pass through shared memory, so that stores run along rows too.
//
// 2 N O H' W' C/G kh kw FLOPs a pair. Bytes: x and y once, x again for every 64 output channels, from L2. Groups of few
// channels (depthwise: one) leave most of a tile idle. Not yet run on a GPU.
//
// A tile has Type, ROWS, COLUMNS, DEPTH and FLOATS, `shared` memory of as many, put_a and put_b of one number, put_column of
// some of a column, multiply of a buffer, and lay_results.
#pragma once
#include "vector.cuh"

constexpr int THREADS = 256;
// Of a place: outside of every image.
constexpr int FAR = 1 << 30;

// After a barrier: hand over result (row, threadIdx.x % COLUMNS) for every row that this thread has of that column.
template <class Tile, class F> FIPK_DEVICE void results(const Tile& tile, F each) {
    const int line = tile.lay_results();
    __syncthreads();
#pragma unroll 4
    for (int row = threadIdx.x / Tile::COLUMNS; row < Tile::ROWS; row += THREADS / Tile::COLUMNS) {
        each(row, tile.shared[row * line + threadIdx.x % Tile::COLUMNS]);
    }
}

// A number in base (across, down, ..) that is stepped by a fixed step without dividing.
struct Digits {
    int low;
    int middle;
    int high;

    FIPK_DEVICE Digits(u32 number, u32 across, u32 down)
        : low(static_cast<int>(number % across)), middle(static_cast<int>(number / across % down)),
          high(static_cast<int>(number / across / down)) {}
    FIPK_DEVICE void add(const Digits& step, int across, int down) {
        low += step.low;
        middle += step.middle;
        high += step.high;
        if (low >= across) low -= across, middle++;
        if (middle >= down) middle -= down, high++;
    }
};

// ---- y, its tangent, and the cotangent of x.

struct Conv2dArgs {
    const void* x[2]; // [batch, groups, channels, from]
    const void* w[2];
    const float* bias; // [groups, rows], or null
    void* y;           // [batch, groups, rows, to]
    u64 batch;
    u32 groups;
    u32 rows;     // channels of a group that are written
    u32 channels; // and that are summed over
    u32 from[2];
    u32 to[2];
    u32 kernel[2];
    u32 stride[2];
    u32 padding[2];
    u32 dilation[2];
    u32 tap_step[2]; // turned: from one tap that reaches a phase to the next
    u32 row_step;    // in w, from a row to the next
    u32 channel_step;
    u32 pairs;
    u32 turned;
    u32 add;
};
FIPK_ARGS(Conv2dArgs, 144);

// One axis as a block has it. Output i of a phase is element phase + i every of y; its tap q is tap + q tap_step of the
// kernel, and reads element i step + place + q apart of x.
struct Axis {
    int outputs;
    int phase;
    int every;
    int step;
    int place;
    int apart;
    int taps;
    int tap;
    int tap_step;
};

FIPK_DEVICE u32 phases(const Conv2dArgs& p, int axis) {
    return !p.turned ? 1 : p.stride[axis] < p.to[axis] ? p.stride[axis] : p.to[axis];
}

FIPK_DEVICE Axis axis_of(const Conv2dArgs& p, int axis, int phase) {
    const int to = static_cast<int>(p.to[axis]), kernel = static_cast<int>(p.kernel[axis]);
    const int stride = static_cast<int>(p.stride[axis]), padding = static_cast<int>(p.padding[axis]);
    const int dilation = static_cast<int>(p.dilation[axis]);
    if (!p.turned) return {to, 0, 1, stride, -padding, dilation, kernel, 0, 1};
    const int most = kernel < stride ? kernel : stride, step = static_cast<int>(p.tap_step[axis]);
    int tap = 0;
    while (tap < most && (phase + padding - tap * dilation) % stride != 0) tap++;
    const int taps = tap < most ? (kernel - 1 - tap) / step + 1 : 0;
    const int place = (phase + padding - tap * dilation) / stride;
    return {(to - phase + stride - 1) / stride, phase, stride, 1, place, -(step * dilation / stride), taps, tap, step};
}

// What a tap adds: to the place in a row of w (-1: there is no such tap), to a pixel's row and column, and to its place.
FIPK_DEVICE int4 tap_at(const Conv2dArgs& p, const Axis& h, const Axis& w, const Digits& at) {
    if (at.high >= static_cast<int>(p.channels)) return make_int4(-1, 0, FAR, 0);
    const int weight = (h.tap + at.middle * h.tap_step) * static_cast<int>(p.kernel[1]) + w.tap + at.low * w.tap_step;
    const int row = at.middle * h.apart, column = at.low * w.apart;
    const int line = at.high * static_cast<int>(p.from[0]) + row;
    return make_int4(at.high * static_cast<int>(p.channel_step) + weight, row, column,
                     line * static_cast<int>(p.from[1]) + column);
}

// taps: [2, DEPTH].
template <class Tile> FIPK_DEVICE void conv2d(const Conv2dArgs& p, float* shared, int4* taps) {
    typedef typename Tile::Type T;
    constexpr int ROWS = Tile::ROWS, COLUMNS = Tile::COLUMNS, DEPTH = Tile::DEPTH;
    constexpr int A = DEPTH * ROWS / THREADS, B = DEPTH * COLUMNS / THREADS;
    Tile tile(shared);

    // Tiles of rows are neighbours: they read the same pixels.
    const u32 row_tiles = (p.rows + ROWS - 1) / ROWS, across = phases(p, 1), all_phases = phases(p, 0) * across;
    const u32 first_row = blockIdx.x % row_tiles * ROWS, phase = blockIdx.x / row_tiles % all_phases;
    const u32 group = blockIdx.x / row_tiles / all_phases % p.groups;
    const u64 first_pixel = static_cast<u64>(blockIdx.x / row_tiles / all_phases / p.groups) * COLUMNS;
    const Axis h = axis_of(p, 0, static_cast<int>(phase / across)), w = axis_of(p, 1, static_cast<int>(phase % across));
    const u32 outputs = static_cast<u32>(h.outputs) * static_cast<u32>(w.outputs);
    if (first_pixel >= p.batch * outputs) return;

    // This thread's pixel, of loads and of stores.
    const u64 pixel = first_pixel + threadIdx.x % COLUMNS, image = pixel / outputs;
    const bool there = image < p.batch;
    const int i = static_cast<int>(pixel % outputs) / w.outputs, j = static_cast<int>(pixel % outputs) % w.outputs;
    const int height = static_cast<int>(p.from[0]), width = static_cast<int>(p.from[1]);
    const int row = there ? i * h.step + h.place : -FAR, column = j * w.step + w.place;
    const u64 from = (image * p.groups + group) * p.channels * p.from[0] * p.from[1];
    const int place = there ? row * width + column : 0;

    const int first_term = threadIdx.x / COLUMNS * B;
    // And its place in slices of w.
    const int k = threadIdx.x % DEPTH, line = threadIdx.x / DEPTH;
    const u64 weights = static_cast<u64>(group) * p.rows * p.channels * p.kernel[0] * p.kernel[1];

    const int depth = h.taps * w.taps;
    const int slices = (static_cast<int>(p.channels) * depth + DEPTH - 1) / DEPTH, all = slices * static_cast<int>(p.pairs);
    const int low = w.taps > 0 ? w.taps : 1, middle = h.taps > 0 ? h.taps : 1;
    const Digits first(threadIdx.x, low, middle), step(DEPTH, low, middle);
    Digits at = first;
    // By the first threads, slice after slice.
    const auto lay_taps = [&](int slice) {
        if (threadIdx.x >= DEPTH || slice >= all) return;
        if (slice == slices) at = first;
        taps[slice % 2 * DEPTH + threadIdx.x] = tap_at(p, h, w, at);
        at.add(step, low, middle);
    };
    T next_a[A], next_b[B];
    const T zero = from_float<T>(0.0f);
    const auto fetch = [&](int slice) {
        const bool second = slice >= slices;
        const T* x = static_cast<const T*>(second ? p.x[1] : p.x[0]) + from;
        const T* own = static_cast<const T*>(second ? p.w[1] : p.w[0]) + weights;
        const int tap = taps[slice % 2 * DEPTH + k].x;
#pragma unroll
        for (int n = 0; n < A; n++) {
            const u32 r = first_row + line + n * (THREADS / DEPTH);
            next_a[n] = tap >= 0 && r < p.rows ? own[static_cast<u64>(r) * p.row_step + tap] : zero;
        }
#pragma unroll
        for (int n = 0; n < B; n++) {
            const int4 tap = taps[slice % 2 * DEPTH + first_term + n];
            const int r = row + tap.y, c = column + tap.z;
            const bool inside = r >= 0 && r < height && c >= 0 && c < width;
            next_b[n] = inside ? x[place + tap.w] : zero;
        }
    };
    const auto lay = [&](int buffer) {
#pragma unroll
        for (int n = 0; n < A; n++) tile.put_a(buffer, k, line + n * (THREADS / DEPTH), next_a[n]);
        tile.put_column(buffer, first_term, threadIdx.x % COLUMNS, next_b);
    };

    lay_taps(0);
    lay_taps(1);
    __syncthreads();
    if (all > 0) {
        fetch(0);
        lay(0);
    }
    __syncthreads();
    for (int slice = 0; slice < all; slice++) {
        if (slice + 1 < all) fetch(slice + 1);
        // These places were last read for slice `slice`, before the barrier that ended the turn before.
        lay_taps(slice + 2);
        tile.multiply(slice % 2);
        if (slice + 1 < all) lay((slice + 1) % 2);
        __syncthreads();
    }

    const int out = (h.phase + i * h.every) * static_cast<int>(p.to[1]) + w.phase + j * w.every;
    results(tile, [&](int r, float v) {
        const u32 channel = group * p.rows + first_row + r;
        if (!there || first_row + r >= p.rows) return;
        if (p.bias) v += p.bias[channel];
        const u64 plane = image * p.groups * p.rows + channel;
        put<T>(p.y, plane * p.to[0] * p.to[1] + out, v, p.add);
    });
}

// ---- The cotangent of W.

struct Conv2dWeightArgs {
    const void* x;  // [batch, groups, channels, from]
    const void* gy; // [batch, groups, rows, to]
    float* g;       // [parts, groups, rows, channels, kernel]
    u64 batch;
    u32 groups;
    u32 rows;
    u32 channels;
    u32 from[2];
    u32 to[2];
    u32 kernel[2];
    u32 stride[2];
    u32 padding[2];
    u32 dilation[2];
    u32 parts;
    u32 add;
    u32 unused;
};
FIPK_ARGS(Conv2dWeightArgs, 104);

// taps: [COLUMNS].
template <class Tile> FIPK_DEVICE void conv2d_weight(const Conv2dWeightArgs& p, float* shared, int4* taps) {
    typedef typename Tile::Type T;
    constexpr int ROWS = Tile::ROWS, COLUMNS = Tile::COLUMNS, DEPTH = Tile::DEPTH;
    constexpr int STEP = THREADS / DEPTH; // from a thread's row (tap) to its next
    constexpr int A = ROWS / STEP, B = COLUMNS / STEP;
    Tile tile(shared);
    const u32 area = p.kernel[0] * p.kernel[1], all_taps = p.channels * area;
    const u32 row_tiles = (p.rows + ROWS - 1) / ROWS, tap_tiles = (all_taps + COLUMNS - 1) / COLUMNS;
    const u32 first_tap = blockIdx.x % tap_tiles * COLUMNS, first_row = blockIdx.x / tap_tiles % row_tiles * ROWS;
    const u32 group = blockIdx.x / tap_tiles / row_tiles;
    const int height = static_cast<int>(p.from[0]), width = static_cast<int>(p.from[1]);
    const int down = static_cast<int>(p.to[0]), across = static_cast<int>(p.to[1]);

    // What each tap adds to a pixel's row, its column and its place.
    for (u32 t = threadIdx.x; t < COLUMNS; t += THREADS) {
        const u32 tap = first_tap + t;
        const int r = static_cast<int>(tap % area / p.kernel[1] * p.dilation[0]) - static_cast<int>(p.padding[0]);
        const int s = static_cast<int>(tap % p.kernel[1] * p.dilation[1]) - static_cast<int>(p.padding[1]);
        const int line = static_cast<int>(tap / area) * height + r;
        taps[t] = tap < all_taps ? make_int4(r, s, line * width + s, 0) : make_int4(0, FAR, 0, 0);
    }

    // The slices of this part, and this thread's pixel of each.
    const u64 pixels = p.batch * p.to[0] * p.to[1], slices = (pixels + DEPTH - 1) / DEPTH;
    const u64 begin = slices * blockIdx.y / p.parts, end = slices * (blockIdx.y + 1) / p.parts;
    const int k = threadIdx.x % DEPTH, line = threadIdx.x / DEPTH;
    const u32 plane = p.to[0] * p.to[1];
    const u64 start = begin * DEPTH + k;
    u64 image = start / plane;
    Digits at(static_cast<u32>(start % plane), p.to[1], p.to[0]);
    const Digits step(DEPTH, p.to[1], p.to[0]);

    T next_a[A], next_b[B];
    const T zero = from_float<T>(0.0f);
    const auto fetch = [&] {
        const bool there = image < p.batch;
        const u64 base = image * p.groups + group;
        const u64 own = (base * p.rows + first_row) * plane + static_cast<u32>(at.middle * across + at.low);
#pragma unroll
        for (int n = 0; n < A; n++) {
            const u32 r = line + n * STEP;
            const bool valid = there && first_row + r < p.rows;
            next_a[n] = valid ? static_cast<const T*>(p.gy)[own + static_cast<u64>(r) * plane] : zero;
        }
        const T* x = static_cast<const T*>(p.x) + base * p.channels * p.from[0] * p.from[1];
        const int row = at.middle * static_cast<int>(p.stride[0]), column = at.low * static_cast<int>(p.stride[1]);
        const int place = row * width + column;
#pragma unroll
        for (int n = 0; n < B; n++) {
            const int4 tap = taps[line + n * STEP];
            const int r = row + tap.x, c = column + tap.y;
            const bool inside = there && r >= 0 && r < height && c >= 0 && c < width;
            next_b[n] = inside ? x[place + tap.z] : zero;
        }
        at.add(step, across, down);
        image += static_cast<u64>(at.high);
        at.high = 0;
    };
    const auto lay = [&](int buffer) {
#pragma unroll
        for (int n = 0; n < A; n++) tile.put_a(buffer, k, line + n * STEP, next_a[n]);
#pragma unroll
        for (int n = 0; n < B; n++) tile.put_b(buffer, k, line + n * STEP, next_b[n]);
    };

    __syncthreads();
    if (begin < end) {
        fetch();
        lay(0);
    }
    __syncthreads();
    int buffer = 0;
    for (u64 slice = begin; slice < end; slice++, buffer ^= 1) {
        if (slice + 1 < end) fetch();
        tile.multiply(buffer);
        if (slice + 1 < end) lay(buffer ^ 1);
        __syncthreads();
    }

    const u32 tap = first_tap + threadIdx.x % COLUMNS;
    const u64 part = static_cast<u64>(blockIdx.y) * p.groups * p.rows;
    results(tile, [&](int r, float v) {
        if (tap >= all_taps || first_row + r >= p.rows) return;
        put<float>(p.g, (part + group * p.rows + first_row + r) * all_taps + tap, v, p.add);
    });
}

// conv2d_<tile>_<type>, conv2d_weight_<tile>_<type>.
#define CONV2D(rows, columns, name, ...)                                                          \
    FIPK_KERNEL_BLOCKS(conv2d_##rows##x##columns##_##name, Conv2dArgs, THREADS, 2) {              \
        typedef __VA_ARGS__ Tile;                                                                 \
        FIPK_SHARED(float, tiles_##rows##_##name, [Tile::FLOATS]);                                \
        FIPK_SHARED(int4, taps_##rows##_##name, [2 * Tile::DEPTH]);                               \
        conv2d<Tile>(p, tiles_##rows##_##name, taps_##rows##_##name);                             \
    }                                                                                             \
    FIPK_KERNEL_BLOCKS(conv2d_weight_##rows##x##columns##_##name, Conv2dWeightArgs, THREADS, 2) { \
        typedef __VA_ARGS__ Tile;                                                                 \
        FIPK_SHARED(float, weight_tiles_##rows##_##name, [Tile::FLOATS]);                         \
        FIPK_SHARED(int4, weight_taps_##rows##_##name, [Tile::COLUMNS]);                          \
        conv2d_weight<Tile>(p, weight_tiles_##rows##_##name, weight_taps_##rows##_##name);        \
    }
