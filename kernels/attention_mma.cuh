// Pieces of attention on the tensor cores of a warp (attention_mma.cu, attention_mma_vjp.cu): swizzled tiles in shared
// memory, the copies that fill them, products of fragments, and the mask.
//
// A block of 4 warps owns rows of one head of one sample, 16 a warp (or 32), and goes through the other axis in tiles
// of KEYS rows, two of them in shared memory: while one is multiplied, cp.async brings the next. WIDTH is D rounded up
// to a kernel that there is; the columns that D lacks are zeros. Sums lie in registers as mma lays them out (ptx.cuh):
// with g = lane / 4 and t = lane % 4, d[n][i] is row g + 8 (i / 2), column 8 n + 2 t + i % 2, of a warp's 16 rows.
#pragma once
#include "attention_args.cuh"
#include "ptx.cuh"
#include "vector.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
// Tiles in shared memory at a time.
constexpr int STAGES = 2;
constexpr float LOG2_E = 1.4426950408889634f;

// What a block works on.
struct Head {
    u64 at;    // of the head's first row in [B, S, H D]
    u64 lse;   // of its first row in [B, H, S]
    u64 mask;  // of its sample's first key in [B, S]
    u64 width; // how far rows stand apart: H D
    int seq;
    int dim;
    int row0; // the first of the block's rows
};

FIPK_DEVICE Head head_of_block(const Axes& axes, int rows) {
    const int seq = static_cast<int>(axes.seq), tiles = (seq + rows - 1) / rows;
    const int tile = blockIdx.x % tiles, task = blockIdx.x / tiles;
    const u64 sample = task / axes.heads, head = task % axes.heads;
    const u64 width = static_cast<u64>(axes.heads) * axes.dim;
    return {sample * seq * width + head * axes.dim, static_cast<u64>(task) * seq, sample * seq, width, seq,
            static_cast<int>(axes.dim), tile * rows};
}

// ---- Tiles: rows of WIDTH numbers in shared memory.

// Chunks of 16 bytes change places within their row so that those of eight rows in one column, which ldmatrix reads at a
// time, fall into distinct banks: the banks are 8 chunks wide, and what a row's length shares with 8, the exclusive-or
// makes up for.
template <int WIDTH> struct Tile {
    static constexpr int CHUNKS = WIDTH / 8;
    static_assert(WIDTH % 16 == 0, "the exclusive-or stays within an even number of chunks");
    static FIPK_DEVICE int turn(int row) {
        return CHUNKS % 8 == 0 ? row & 7 : CHUNKS % 4 == 0 ? row >> 1 & 3 : row >> 2 & 1;
    }
    // In bytes, which spares the compiler a shift at every use.
    static FIPK_DEVICE int place(int row, int chunk) { return row * (2 * WIDTH) + (chunk ^ turn(row)) * 16; }
    static FIPK_DEVICE const char* at(const bf16* tile, int row, int chunk) {
        return reinterpret_cast<const char*>(tile) + place(row, chunk);
    }
};

// A thread's share of every copy: the same chunk of every STEP-th row. STEP is a multiple of 8, so that the chunk's
// place is the same in each.
template <int WIDTH> struct Courier {
    static constexpr int CHUNKS = Tile<WIDTH>::CHUNKS;
    static constexpr int STEP = THREADS / (8 * CHUNKS) * 8;
    u64 from; // of its first chunk from the tensor's start, in elements
    u64 width;
    int seq, row, to; // `to`: of its first chunk from the tile's start, in bytes
    bool inside;

    FIPK_DEVICE explicit Courier(const Head& h) : width(h.width), seq(h.seq) {
        const int chunk = threadIdx.x % CHUNKS;
        row = threadIdx.x / CHUNKS;
        to = Tile<WIDTH>::place(row, chunk);
        from = h.at + row * width + chunk * 8;
        inside = chunk * 8 < h.dim;
    }
    // Start to bring rows first .. first + ROWS of x; zeros from row `end` on.
    template <int ROWS> FIPK_DEVICE void fetch(bf16* tile, const void* x, int first, int end) const {
        static_assert(ROWS % 8 == 0, "whole steps, or a part of the last one");
        if (row >= STEP) return;
        const bf16* at = static_cast<const bf16*>(x) + (from + static_cast<u64>(first) * width);
#pragma unroll
        for (int step = 0; step < ROWS; step += STEP) {
            if (ROWS % STEP != 0 && row + step >= ROWS) break;
            cp_async_16(reinterpret_cast<char*>(tile) + to + step * WIDTH * 2, at + static_cast<u64>(step) * width,
                        inside && first + row + step < end);
        }
    }
    template <int ROWS> FIPK_DEVICE void fetch(bf16* tile, const void* x, int first) const {
        fetch<ROWS>(tile, x, first, seq);
    }
};

// ---- Fragments.

// 16 rows by columns 16 k .. 16 k + 15 of a tile: A of a product.
template <int WIDTH> FIPK_DEVICE void load_a(u32 (&a)[4], const bf16* rows, int k) {
    const int lane = threadIdx.x % 32;
    ldmatrix_x4(a, Tile<WIDTH>::at(rows, lane % 16, 2 * k ^ lane / 16));
}
// The same of Bᵀ: two B, of 8 rows of the tile each (b[0], b[1], and b[2], b[3]).
template <int WIDTH> FIPK_DEVICE void load_b_of_rows(u32 (&b)[4], const bf16* rows, int k) {
    const int lane = threadIdx.x % 32;
    ldmatrix_x4(b, Tile<WIDTH>::at(rows, lane % 8 + lane / 16 * 8, 2 * k ^ lane / 8 % 2));
}
// The same of B itself: two B, of 8 columns each.
template <int WIDTH> FIPK_DEVICE void load_b_of_columns(u32 (&b)[4], const bf16* rows, int k) {
    const int lane = threadIdx.x % 32;
    ldmatrix_x4_trans(b, Tile<WIDTH>::at(rows, lane % 16, 2 * k ^ lane / 16));
}

// COUNT operands of 16 rows each, held in registers or, where those are too few, read again from their tiles.
template <int WIDTH, int COUNT, bool HELD> struct Operands {
    static constexpr int STEPS = WIDTH / 16;
    u32 held[HELD ? STEPS : 1][COUNT][4];
    const bf16* rows[COUNT];

    // Once the tiles are there.
    FIPK_DEVICE void hold() {
        if constexpr (HELD) {
#pragma unroll
            for (int k = 0; k < STEPS; k++) load<0, COUNT>(held[k], k);
        }
    }
    template <int FROM, int N> FIPK_DEVICE void load(u32 (&a)[COUNT][4], int k) const {
#pragma unroll
        for (int i = FROM; i < FROM + N; i++) load_a<WIDTH>(a[i], rows[i], k);
    }
};

// d[TO + i] += a[FROM + i] B for two B side by side, i < N.
template <int FROM, int TO, int N, int A, int D, int TILES>
FIPK_DEVICE void multiply(float (&d)[D][TILES][4], const u32 (&a)[A][4], const u32 (&b)[4], int pair) {
    const u32 b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
#pragma unroll
    for (int i = 0; i < N; i++) {
        mma_bf16(d[TO + i][2 * pair], a[FROM + i], b0);
        mma_bf16(d[TO + i][2 * pair + 1], a[FROM + i], b1);
    }
}

// s[TO + i] += a[FROM + i] xᵀ: 16 rows by the rows of a tile of x, which are read once for all i < N.
template <int FROM, int TO, int N, int WIDTH, int A, bool HELD, int D, int TILES>
FIPK_DEVICE void add_scores(float (&s)[D][TILES][4], Operands<WIDTH, A, HELD>& a, const bf16* x) {
#pragma unroll
    for (int k = 0; k < WIDTH / 16; k++) {
        if constexpr (!HELD) a.template load<FROM, N>(a.held[0], k);
#pragma unroll
        for (int pair = 0; pair < TILES / 2; pair++) {
            u32 b[4];
            load_b_of_rows<WIDTH>(b, x + pair * 16 * WIDTH, k);
            multiply<FROM, TO, N>(s, a.held[HELD ? k : 0], b, pair);
        }
    }
}

// out[TO + i] += w[FROM + i] x: weights of 16 rows by the rows of a tile of x, times these rows.
template <int FROM, int TO, int N, int WIDTH, int STEPS, int A, int D>
FIPK_DEVICE void add_rows(float (&out)[D][WIDTH / 8][4], const u32 (&w)[STEPS][A][4], const bf16* x) {
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
#pragma unroll
        for (int pair = 0; pair < WIDTH / 16; pair++) {
            u32 b[4];
            load_b_of_columns<WIDTH>(b, x + k * 16 * WIDTH, pair);
            multiply<FROM, TO, N>(out, w[k], b, pair);
        }
    }
}

// A tile of sums, rounded to bf16, as weights of the next product: an accumulator's layout is an operand's.
template <int AT, int STEPS, int A>
FIPK_DEVICE void to_weights(u32 (&w)[STEPS][A][4], const float (&s)[2 * STEPS][4]) {
#pragma unroll
    for (int n = 0; n < 2 * STEPS; n++) {
        w[n / 2][AT][n % 2 * 2] = bf16_pair(s[n][0], s[n][1]);
        w[n / 2][AT][n % 2 * 2 + 1] = bf16_pair(s[n][2], s[n][3]);
    }
}

// ---- Rows of sums: a thread has parts of two, g and g + 8, which it shares with three neighbours.

FIPK_DEVICE float row_sum(float v) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}
FIPK_DEVICE float row_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

template <int TILES> FIPK_DEVICE void scale_row(float (&d)[TILES][4], int half, float by) {
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        d[n][2 * half] *= by;
        d[n][2 * half + 1] *= by;
    }
}

// A thread's two of the numbers of [B, H, S], for 16 rows from `row`; 0 beyond the end.
FIPK_DEVICE void load_two(const float* x, const Head& h, int row, float (&v)[2]) {
    const int first = row + threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < 2; i++) v[i] = first + 8 * i < h.seq ? x[h.lse + first + 8 * i] : 0.0f;
}

// y (+)= d for 16 rows from `row`, by way of a tile of a warp's own, so that memory is written 16 bytes at a time.
template <int WIDTH>
FIPK_DEVICE void put_rows(bf16* tile, const Head& h, void* y, int row, const float (&d)[WIDTH / 8][4], bool add) {
    const int lane = threadIdx.x % 32;
    bf16* at = static_cast<bf16*>(y) + (h.at + static_cast<u64>(row) * h.width);
    __syncwarp();
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int r = lane / 4 + 8 * half, column = 8 * n + lane % 4 * 2;
            float low = d[n][2 * half], high = d[n][2 * half + 1];
            if (add && row + r < h.seq && column < h.dim) {
                const u32 old = *reinterpret_cast<const u32*>(at + r * h.width + column);
                low += bf16_low(old), high += bf16_high(old);
            }
            char* to = reinterpret_cast<char*>(tile) + Tile<WIDTH>::place(r, n);
            *reinterpret_cast<u32*>(to + lane % 4 * 4) = bf16_pair(low, high);
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < WIDTH / 16; i++) {
        const int r = (i * 32 + lane) / (WIDTH / 8), chunk = (i * 32 + lane) % (WIDTH / 8);
        if (row + r < h.seq && chunk * 8 < h.dim) {
            const uint4 pack = *reinterpret_cast<const uint4*>(Tile<WIDTH>::at(tile, r, chunk));
            *reinterpret_cast<uint4*>(at + r * h.width + chunk * 8) = pack;
        }
    }
}

// ---- The mask.

struct Attended {
    int end;    // one past the last key of the sample to attend to
    bool alone; // whether it is the only one: the probabilities are then 1 whatever the scores
};

// All threads of the block.
FIPK_DEVICE Attended attended_keys(const int* mask, int seq) {
    FIPK_SHARED(int2, parts, [WARPS]);
    int end = 0, count = 0;
    for (int key = threadIdx.x; key < seq; key += THREADS) {
        if (mask[key] != 0) end = key + 1, count++;
    }
    end = __reduce_max_sync(0xffffffffu, end);
    count = __reduce_add_sync(0xffffffffu, count);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = make_int2(end, count);
    __syncthreads();
    end = count = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) {
        end = max(end, parts[warp].x);
        count += parts[warp].y;
    }
    return {end, count == 1};
}

// Which keys of a tile are attended to, a bit each; the mask of the next tile is on its way meanwhile.
template <int KEYS> struct Bits {
    static constexpr int WORDS = KEYS / 32;
    const int* mask;
    int seq;
    int coming[WORDS];
    u32 now[WORDS];

    FIPK_DEVICE Bits(const int* mask, int seq) : mask(mask), seq(seq) { ask(0); }
    FIPK_DEVICE void ask(int first) {
#pragma unroll
        for (int i = 0; i < WORDS; i++) {
            const int key = first + 32 * i + threadIdx.x % 32;
            coming[i] = key < seq ? mask[key] : 0;
        }
    }
    // The tile at `first`, which was asked for.
    FIPK_DEVICE void take(int first) {
#pragma unroll
        for (int i = 0; i < WORDS; i++) now[i] = __ballot_sync(0xffffffffu, coming[i] != 0);
        ask(first + KEYS);
    }
    FIPK_DEVICE bool all() const {
        u32 both = now[0];
#pragma unroll
        for (int i = 1; i < WORDS; i++) both &= now[i];
        return both == 0xffffffffu;
    }
    // What stands in padding keys becomes `value`.
    FIPK_DEVICE void cover(float (&s)[KEYS / 8][4], float value) const {
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
            const u32 bits = now[n / 4] >> (n % 4 * 8 + threadIdx.x % 4 * 2);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (!(bits >> i % 2 & 1)) s[n][i] = value;
            }
        }
    }
};
