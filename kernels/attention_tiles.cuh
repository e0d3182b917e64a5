// Pieces of attention.cu's kernels: where a block stands, 64 x 64 tiles of scores, and 64 rows of sums over them.
#pragma once
#include "attention_args.cuh"
#include "quad.cuh"

constexpr int THREADS = 256;
// Rows and columns of a tile of scores.
constexpr int SIDE = 64;
// Columns of a head that lie in shared memory at a time for scores.
constexpr int DEPTH = 32;

// What a block works on.
struct Head {
    u64 sample;
    u64 seq;
    u64 dim;
    u64 width;   // how far rows stand apart: H D
    u64 at;      // of the head's first row in [B, S, H D]
    u64 lse;     // of its first row in [B, H, S]
    u64 row0;    // the first of the block's rows
    u64 column0; // the first of its columns of the head
    float scale;

    template <class T> FIPK_DEVICE bool aligned(const void* base) const {
        return rows_aligned<T>(base, width, 4) && dim % 4 == 0;
    }
};

template <int WIDTH> FIPK_DEVICE Head head_of_block(const Axes& axes) {
    const u64 tiles = (axes.seq + SIDE - 1) / SIDE;
    const u64 tile = blockIdx.x % tiles, head_block = blockIdx.x / tiles;
    const u64 column_block = head_block % axes.column_blocks, task = head_block / axes.column_blocks;
    const u64 sample = task / axes.heads, head = task % axes.heads;
    const u64 width = static_cast<u64>(axes.heads) * axes.dim;
    return {sample,
            axes.seq,
            axes.dim,
            width,
            sample * axes.seq * width + head * axes.dim,
            task * axes.seq,
            tile * SIDE,
            column_block * WIDTH,
            axes.scale};
}

// A thread's first row and column of a tile; it has four of each.
FIPK_DEVICE int tile_row() { return threadIdx.x / 16 * 4; }
FIPK_DEVICE int tile_column() { return threadIdx.x % 16 * 4; }

// Over the 16 threads that share rows of a tile.
FIPK_DEVICE float row_sum(float v) {
#pragma unroll
    for (int step = 8; step > 0; step >>= 1) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}
FIPK_DEVICE float row_max(float v) {
#pragma unroll
    for (int step = 8; step > 0; step >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
    return v;
}

struct Attended {
    u64 end;    // one past the last key of the sample to attend to
    bool alone; // whether it is the only one: the probabilities are then 1 whatever the scores
};

FIPK_DEVICE Attended attended_keys(const int* mask, u64 seq) {
    FIPK_SHARED(int2, parts, [THREADS / 32]);
    int end = 0, count = 0;
    for (u64 key = threadIdx.x; key < seq; key += THREADS) {
        if (mask[key] != 0) end = static_cast<int>(key) + 1, count++;
    }
    end = __reduce_max_sync(0xffffffffu, end);
    count = __reduce_add_sync(0xffffffffu, count);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = make_int2(end, count);
    __syncthreads();
    end = count = 0;
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; warp++) {
        end = max(end, parts[warp].x);
        count += parts[warp].y;
    }
    return {static_cast<u64>(end), count == 1};
}

// slice[d][row]: 64 rows of x from row0 by DEPTH columns from d0, turned; 0 beyond either end. The exclusive-or sends
// what a warp writes at a time to distinct banks, and leaves groups of four rows together.
template <class T>
FIPK_DEVICE void lay_turned(const Head& h, const void* x, u64 row0, u64 d0, bool aligned, float* slice) {
#pragma unroll
    for (int i = 0; i < SIDE * DEPTH / 4 / THREADS; i++) {
        const int quad = i * THREADS + threadIdx.x;
        const int row = quad / (DEPTH / 4), d = quad % (DEPTH / 4) * 4;
        const bool there = row0 + row < h.seq && d0 + d < h.dim;
        const Quad v = load_quad<T>(x, h.at + (row0 + row) * h.width + d0 + d, there ? h.dim - d0 - d : 0, aligned);
#pragma unroll
        for (int j = 0; j < 4; j++) slice[(d + j) * SIDE + (row ^ d)] = v.v[j];
    }
}

// sum[i][j] += Σ_d a[row0 + i][d] b[column0 + j][d].
template <class T>
FIPK_DEVICE void add_scores(const Head& h, const void* a, u64 row0, const void* b, u64 column0, float* stage,
                            float (&sum)[4][4]) {
    const bool aligned_a = h.aligned<T>(a), aligned_b = h.aligned<T>(b);
    const int row = tile_row(), column = tile_column();
    for (u64 d0 = 0; d0 < h.dim; d0 += DEPTH) {
        __syncthreads();
        lay_turned<T>(h, a, row0, d0, aligned_a, stage);
        lay_turned<T>(h, b, column0, d0, aligned_b, stage + DEPTH * SIDE);
        __syncthreads();
#pragma unroll 4
        for (int d = 0; d < DEPTH; d++) {
            const int turn = d & ~3;
            const Quad x = load_quad<float>(stage, d * SIDE + (row ^ turn));
            const Quad y = load_quad<float>(stage, (DEPTH + d) * SIDE + (column ^ turn));
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] += x.v[i] * y.v[j];
            }
        }
    }
}

// Lay a tile down as weights[column][row], once nobody reads the one before.
FIPK_DEVICE void lay_weights(const float (&tile)[4][4], float* weights) {
    const int row = tile_row(), column = tile_column();
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const Quad rows = {{tile[0][j], tile[1][j], tile[2][j], tile[3][j]}};
        store_quad<float>(weights, (column + j) * SIDE + (row ^ column), rows);
    }
}

// 64 rows by WIDTH columns of sums, in chunks of 64 or 32 columns: four rows by four or two columns a thread.
template <class T, int WIDTH> struct Rows {
    static constexpr int CHUNK = WIDTH % 64 == 0 ? 64 : 32;
    static constexpr int CHUNKS = WIDTH / CHUNK;
    static constexpr int COLUMNS = CHUNK / 16;
    float sum[CHUNKS][4][COLUMNS] = {};

    static FIPK_DEVICE int first_column(int chunk) { return chunk * CHUNK + threadIdx.x % 16 * COLUMNS; }

    // sum[i][c] += Σ_j weights[j][i] x[from + j][c].
    FIPK_DEVICE void add(const Head& h, const float* weights, const void* x, u64 from, float* stage) {
        const bool aligned = h.aligned<T>(x);
        const int row = tile_row();
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            const u64 column0 = h.column0 + chunk * CHUNK;
            if (column0 >= h.dim) break;
            __syncthreads();
#pragma unroll
            for (int i = 0; i < SIDE * CHUNK / 4 / THREADS; i++) {
                const int quad = i * THREADS + threadIdx.x;
                const u64 token = from + quad / (CHUNK / 4), column = column0 + quad % (CHUNK / 4) * 4;
                const u64 valid = token < h.seq && column < h.dim ? h.dim - column : 0;
                store_quad<float>(stage, quad * 4, load_quad<T>(x, h.at + token * h.width + column, valid, aligned));
            }
            __syncthreads();
#pragma unroll 4
            for (int k = 0; k < SIDE; k++) {
                const Quad w = load_quad<float>(weights, k * SIDE + (row ^ (k & ~3)));
                float v[COLUMNS];
                const float* at = stage + k * CHUNK + threadIdx.x % 16 * COLUMNS;
                if constexpr (COLUMNS == 4) {
                    const float4 four = *reinterpret_cast<const float4*>(at);
                    v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
                } else {
                    const float2 two = *reinterpret_cast<const float2*>(at);
                    v[0] = two.x, v[1] = two.y;
                }
#pragma unroll
                for (int i = 0; i < 4; i++) {
#pragma unroll
                    for (int j = 0; j < COLUMNS; j++) sum[chunk][i][j] += w.v[i] * v[j];
                }
            }
        }
    }

    FIPK_DEVICE void scale_row(int i, float by) {
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) sum[chunk][i][j] *= by;
        }
    }

    // row i -= by · the other's row i.
    FIPK_DEVICE void subtract_row(int i, float by, const Rows& other) {
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) sum[chunk][i][j] -= by * other.sum[chunk][i][j];
        }
    }

    FIPK_DEVICE void put_all(const Head& h, void* y, bool add) const {
        const bool aligned = h.aligned<T>(y);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const u64 row = h.row0 + tile_row() + i;
            if (row >= h.seq) break;
#pragma unroll
            for (int chunk = 0; chunk < CHUNKS; chunk++) {
                const u64 column = h.column0 + first_column(chunk), at = h.at + row * h.width + column;
                if (column >= h.dim) break;
                const u64 valid = h.dim - column;
                if constexpr (COLUMNS == 4) {
                    const float* v = sum[chunk][i];
                    put_quad<T>(y, at, {{v[0], v[1], v[2], v[3]}}, valid, aligned, add);
                } else {
                    put<T>(y, at, sum[chunk][i][0], add);
                    if (valid > 1) put<T>(y, at + 1, sum[chunk][i][1], add);
                }
            }
        }
    }
};

// Which of a thread's four keys from `key` on are attended to.
FIPK_DEVICE void attended(const int* mask, u64 key, u64 keys, bool (&on)[4]) {
#pragma unroll
    for (int j = 0; j < 4; j++) on[j] = key + j < keys && mask[key + j] != 0;
}

// A thread's four of the numbers of [B, H, S] from row `from` of the head on; 0 beyond its end.
FIPK_DEVICE void load_rows(const float* x, const Head& h, u64 from, float (&v)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = from + i < h.seq ? x[h.lse + from + i] : 0.0f;
}

// What a block has in shared memory.
#define TILES                                      \
    FIPK_SHARED(float, stage, [2 * DEPTH * SIDE]); \
    FIPK_SHARED(float, weights, [SIDE * SIDE])
