// Matrix products on the tensor cores of a warp (mma.sync, sm_80 and later): what gemm_mma_bf16.cu and gemm_mma_tf32.cu
// are made of.
//
// The layouts, the pairs and the epilogue are those of gemm.cu and gemm.cuh. Operands are both bf16, or both f32 and
// rounded to tf32 (to nearest, ties away from zero) as they are taken from shared memory; sums are f32. Operands come in
// chunks of 16 bytes: bases are aligned to 16 bytes and rows of A and B are whole chunks; other products are those of
// gemm.cu.
//
// A block makes a tile of C, each warp a part of it, 16 rows by 8 columns an instruction. Slices of A and B, BYTES deep,
// go through STAGES buffers in shared memory: cp.async fills the others while one is multiplied, and a barrier a slice says
// that a buffer is full and another one free. A step along k is 32 bytes, 16 bf16 or 8 f32; its fragments are loaded while the
// step before it is multiplied, across the barrier too. What lies beyond an edge comes as zeros.
//
// A side whose k is innermost lies in shared memory as rows of BYTES and is read by ldmatrix, f32 as well: a chunk of four
// f32 is laid out over lanes as mma wants it. A turned side lies as one line for each k, as in memory: ldmatrix turns bf16,
// f32 is read number by number. Chunks change places within their line so that no read or write of a warp meets itself in
// a bank.
//
// A dual product makes y = A Bᵀ and dy = dA Bᵀ + A dBᵀ at once: each of its four tiles is brought once, and each fragment
// serves two products. dy has an epilogue of its own, after that of y element by element and by the same thread, so that
// its `slope` may be what y's epilogue has just stored.
//
// The reverse pass of a linear map makes gx = gy W (nn) and gw = gyᵀ x (tn) in one launch: each block makes a tile of one of
// them, as a block of that product's own launch would, so that the bits are the same.
//
// Not yet run on a GPU.
#pragma once
#include "gemm.cuh"
#include "ptx.cuh"

// Rows of tiles that are gone through together, column by column, so that blocks at work at a time share operands in L2.
constexpr int BAND = 8;

// A dual product: operands and outputs of y; those of dy, whose a[0] and b[0] are the tangents of y's.
struct GemmDualArgs {
    GemmArgs y;
    GemmArgs dy;
};
FIPK_ARGS(GemmDualArgs, 304);

// The two products of a reverse pass: gx of layout nn, gw of layout tn; each with its own split.
struct GemmReverseArgs {
    GemmArgs gx;
    GemmArgs gw;
};
FIPK_ARGS(GemmReverseArgs, 304);

// A block's tile, a warp's part of it, how deep slices are, in bytes of k, and how many are in shared memory at a time: 96
// KiB of them at most, which all devices have.
template <int ROWS_, int COLUMNS_, int WARP_ROWS_, int WARP_COLUMNS_, int BYTES_, int STAGES_> struct Plan {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, BYTES = BYTES_, STAGES = STAGES_;
    static constexpr int WARP_ROWS = WARP_ROWS_, WARP_COLUMNS = WARP_COLUMNS_;
    static constexpr int ACROSS = COLUMNS / WARP_COLUMNS; // warps side by side
    static constexpr int THREADS = 32 * (ROWS / WARP_ROWS) * ACROSS;
};

// One operand: EXTENT rows of A (or columns of B) by BYTES of k, in a tile of shared memory. INNER_K: whether a line of it
// is a row with k innermost, or one k with all rows.
template <class T, bool OF_A, int EXTENT, bool INNER_K, int BYTES, int THREADS> struct Side {
    static constexpr int SIZE = 16 / static_cast<int>(sizeof(T)); // of a chunk
    static constexpr int DEPTH = BYTES / static_cast<int>(sizeof(T));
    static constexpr int LINE = INNER_K ? BYTES : EXTENT * static_cast<int>(sizeof(T)); // bytes
    static constexpr int CHUNKS = LINE / 16;
    static constexpr int TILE = EXTENT * BYTES;
    static constexpr int STEP = THREADS / CHUNKS; // lines from a thread's chunk to its next
    static constexpr int COUNT = TILE / 16 / THREADS;
    // Lines after which chunks change places as before.
    static constexpr int PERIOD = !INNER_K && sizeof(T) == 4 ? 4 : 8;
    static_assert(INNER_K ? CHUNKS == 4 || CHUNKS == 8 : CHUNKS % 8 == 0, "what `turn` makes places for");
    static_assert(COUNT >= 1 && THREADS % CHUNKS == 0 && STEP % PERIOD == 0, "a thread's chunks lie in one column");

    // What a line's chunks are exchanged by: the eight that ldmatrix reads at a time go to distinct banks, and of turned f32
    // the four lines of eight numbers that a warp reads.
    static FIPK_DEVICE int turn(int line) {
        if (!INNER_K) return sizeof(T) == 2 ? line & 7 : (line & 3) * 2;
        return CHUNKS == 8 ? line & 7 : line >> 1 & 3;
    }
    static FIPK_DEVICE int place(int line, int chunk) { return line * LINE + (chunk ^ turn(line)) * 16; }

    // ---- Memory to shared memory.

    u64 first, next; // bytes: to a thread's first chunk of slice 0, and from there to its next
    u64 slice;       // from a slice to the one after it
    int line, inner; // of the first chunk, from the tile's corner
    int lines, size; // in memory, from the tile's corner on: along the outer axis, along the inner

    // Rows from `at` of `extent`, of `k` numbers each; lines stand ld apart.
    FIPK_DEVICE Side(u64 ld, u64 at, u64 extent, u64 k) {
        line = threadIdx.x / CHUNKS;
        inner = threadIdx.x % CHUNKS * SIZE;
        const int rest = static_cast<int>(extent - at), depth = static_cast<int>(k);
        lines = (INNER_K ? rest : depth) - line;
        size = (INNER_K ? depth : rest) - inner;
        first = (INNER_K ? (at + line) * ld + inner : line * ld + at + inner) * sizeof(T);
        next = STEP * ld * sizeof(T);
        slice = INNER_K ? BYTES : DEPTH * ld * sizeof(T);
    }
    // Start to bring a slice into a tile.
    FIPK_DEVICE void fetch(char* tile, const void* base, int at) const {
        const char* from = static_cast<const char*>(base) + first + at * slice;
        char* to = tile + place(line, inner / SIZE);
        const bool inside = (INNER_K ? at * DEPTH : 0) < size;
        const int there = lines - (INNER_K ? 0 : at * DEPTH);
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            cp_async_16(to + i * STEP * LINE, from + i * next, inside && i * STEP < there);
        }
    }

    // ---- Shared memory to fragments: 16 rows of A as a[4], or 16 columns of B as two b[2].

    // In both, four squares of 8 rows by 16 bytes of k: `across` and `along` say which a lane gives the address of, or which
    // comes in a register.
    static FIPK_DEVICE int across(int i) { return OF_A ? i % 2 : i / 2; }
    static FIPK_DEVICE int along(int i) { return OF_A ? i / 2 : i % 2; }

    // Where a lane's part of the rows from `row` on is, of step 0.
    static FIPK_DEVICE int lane_place(int row) {
        const int lane = threadIdx.x % 32, square = lane / 8;
        if (INNER_K) return place(row + lane % 8 + 8 * across(square), along(square));
        if (sizeof(T) == 2) return place(lane % 8 + 8 * along(square), row / 8 + across(square));
        const int g = lane / 4, t = lane % 4;
        return t * LINE + ((row + g) * 4 ^ t * 32);
    }
    // The nth 16 rows from there; a warp's rows begin at a multiple of how many it has, so that they add up as bits.
    static FIPK_DEVICE void load(u32 (&r)[4], const char* tile, int lane_place, int nth, int step) {
        if constexpr (INNER_K) {
            ldmatrix_x4(r, tile + ((lane_place ^ step * 32) + nth * 16 * LINE));
        } else if constexpr (sizeof(T) == 2) {
            ldmatrix_x4_trans(r, tile + ((lane_place ^ nth * 32) + step * 16 * LINE));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                // Whole lines of banks are added and not exchanged: fewer places to keep in registers.
                const int at = lane_place ^ (nth % 2 * 64 + across(i) * 32);
                r[i] = *reinterpret_cast<const u32*>(tile + (at + nth / 2 * 128 + (step * 8 + along(i) * 4) * LINE));
            }
        }
    }
    // One number: of a turned side, at this k and row.
    static FIPK_DEVICE float number(const char* tile, int k, int row) {
        return to_float(*reinterpret_cast<const T*>(tile + place(k, row / SIZE) + row % SIZE * sizeof(T)));
    }
};

// f32 as the tensor cores take it; bf16 is that already.
template <class T, int N> FIPK_DEVICE void round_fragments(u32 (&r)[N][4]) {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) r[n][i] = to_tf32(__uint_as_float(r[n][i]));
        }
    }
}

// d += a b for M times 16 rows and N times 16 columns.
template <class T, int M, int N>
FIPK_DEVICE void multiply(float (&d)[M][2 * N][4], const u32 (&a)[M][4], const u32 (&b)[N][4]) {
#pragma unroll
    for (int n = 0; n < 2 * N; n++) {
        const u32 column[2] = {b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]};
#pragma unroll
        for (int m = 0; m < M; m++) {
            if constexpr (sizeof(T) == 2) {
                mma_bf16(d[m][n], a[m], column);
            } else {
                mma_tf32(d[m][n], a[m], column);
            }
        }
    }
}

// The corner of the nth tile.
struct Corner {
    u32 row, column;
};
template <class P> FIPK_DEVICE u32 tile_rows(const GemmArgs& p) {
    return static_cast<u32>((p.m + P::ROWS - 1) / P::ROWS);
}
template <class P> FIPK_DEVICE u32 tile_columns(const GemmArgs& p) {
    return static_cast<u32>((p.n + P::COLUMNS - 1) / P::COLUMNS);
}
template <class P> FIPK_DEVICE Corner corner_of_tile(const GemmArgs& p, u32 tile) {
    const u32 rows = tile_rows<P>(p), columns = tile_columns<P>(p);
    const u32 top = tile / (BAND * columns) * BAND, within = tile % (BAND * columns);
    const u32 height = rows - top < BAND ? rows - top : BAND;
    return {(top + within % height) * P::ROWS, within / height * P::COLUMNS};
}

// The mth 16 rows of a warp's sums, through shared memory of its own, to where they belong.
template <int M, int N>
FIPK_DEVICE void finish_rows(const GemmArgs& p, float* mine, const float (&d)[M][2 * N][4], int m, u64 row, u64 column,
                             bool aligned, u32 part) {
    // Eight banks further with every row, so that neither the writes nor the reads of a warp meet themselves.
    constexpr int STRIDE = 16 * N + 8, QUADS = 4 * N;
    const int lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < M; i++) {
        // Sums are in registers, which have no index.
        if (i != m) continue;
#pragma unroll
        for (int n = 0; n < 2 * N; n++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float* to = mine + (lane / 4 + 8 * half) * STRIDE + 8 * n + lane % 4 * 2;
                *reinterpret_cast<float2*>(to) = make_float2(d[i][n][2 * half], d[i][n][2 * half + 1]);
            }
        }
    }
    __syncwarp();
#pragma unroll 1
    for (int quad = lane; quad < 16 * QUADS; quad += 32) {
        const int r = quad / QUADS, c = quad % QUADS * 4;
        if (row + r >= p.m || column + c >= p.n) continue;
        const float* sums = mine + r * STRIDE + c;
        if (p.split == 1) {
            finish<4>(p, row + r, column + c, sums, aligned);
        } else {
            finish_part<4>(p, row + r, column + c, sums, part);
        }
    }
}

// What a block does of a product: its tile, and its part of the sum.
struct Work {
    u32 tile, part;
};
FIPK_DEVICE Work work_of_block() { return {blockIdx.x, blockIdx.y}; }

// KINDS: 1, a product p of one or two pairs; 2, a dual product with tangents q.
template <class T, bool A_INNER_K, bool B_INNER_K, class P, int KINDS>
FIPK_DEVICE void gemm_mma(const GemmArgs& p, const GemmArgs& q, Work work) {
    using A = Side<T, true, P::ROWS, A_INNER_K, P::BYTES, P::THREADS>;
    using B = Side<T, false, P::COLUMNS, B_INNER_K, P::BYTES, P::THREADS>;
    constexpr int M = P::WARP_ROWS / 16, N = P::WARP_COLUMNS / 16, STEPS = P::BYTES / 32;
    constexpr int STAGES = P::STAGES;
    constexpr int B_AT = KINDS * A::TILE, STAGE = KINDS * (A::TILE + B::TILE);
    constexpr bool BIAS_GRADIENT = !A_INNER_K;
    // Whether fragments of two steps fit the registers, beside sums of two kinds and what rounding takes.
    constexpr bool AHEAD = KINDS == 1 || sizeof(T) == 2;
    static_assert(STEPS % 2 == 0, "fragments of two steps take turns");
    static_assert(STAGES * STAGE <= 96 << 10, "what a block has on every device");
    FIPK_DYNAMIC_SHARED(char, stages);
    auto buffer = [&](int i) { return stages + static_cast<u32>(i) % STAGES * STAGE; };

    const Corner corner = corner_of_tile<P>(p, work.tile);
    const int warp = threadIdx.x / 32;
    const int warp_row = warp / P::ACROSS * P::WARP_ROWS, warp_column = warp % P::ACROSS * P::WARP_COLUMNS;

    // The slices of all pairs in a row, and the part of them that is this block's.
    const int slices = static_cast<int>((p.k + A::DEPTH - 1) / A::DEPTH);
    const u64 all = static_cast<u64>(slices) * p.pairs;
    const int begin = static_cast<int>(all * work.part / p.split);
    const int count = static_cast<int>(all * (work.part + 1) / p.split) - begin;
    const A a(p.lda, corner.row, p.m, p.k);
    const B b(p.ldb, corner.column, p.n, p.k);
    auto fetch = [&](int i) {
        char* to = buffer(i);
        const int at = begin + i;
        if constexpr (KINDS == 1) {
            const bool second = at >= slices;
            a.fetch(to, second ? p.a[1] : p.a[0], second ? at - slices : at);
            b.fetch(to + B_AT, second ? p.b[1] : p.b[0], second ? at - slices : at);
        } else {
            a.fetch(to, p.a[0], at);
            a.fetch(to + A::TILE, q.a[0], at);
            b.fetch(to + B_AT, p.b[0], at);
            b.fetch(to + B_AT + B::TILE, q.b[0], at);
        }
    };

    const int a_place = A::lane_place(warp_row), b_place = B_AT + B::lane_place(warp_column);
    u32 of_a[2][KINDS][M][4], of_b[2][KINDS][N][4]; // of two steps
    auto load = [&](int i, int step) {
        const char* from = buffer(i);
#pragma unroll
        for (int kind = 0; kind < KINDS; kind++) {
#pragma unroll
            for (int n = 0; n < N; n++) {
                B::load(of_b[step % 2][kind][n], from + B_AT + kind * B::TILE, b_place - B_AT, n, step);
            }
#pragma unroll
            for (int m = 0; m < M; m++) A::load(of_a[step % 2][kind][m], from + kind * A::TILE, a_place, m, step);
        }
    };

    float sum[KINDS][M][2 * N][4] = {}, row_sum = 0.0f;
    const bool row_sums = BIAS_GRADIENT && p.bias_gradient && corner.column == 0 && threadIdx.x < P::ROWS;
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < count) fetch(i);
        cp_async_commit();
    }
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    if (AHEAD && count > 0) load(0, 0);
    for (int i = 0; i < count; i++) {
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            if constexpr (!AHEAD) {
                if (step == 0) {
                    cp_async_wait<STAGES - 2>();
                    __syncthreads();
                }
                load(i, step);
            } else if (step + 1 < STEPS) {
                load(i, step + 1);
            } else {
                // The slice after this one is there, and of this one all is in registers.
                cp_async_wait<STAGES - 2>();
                __syncthreads();
                if (i + 1 < count) load(i + 1, 0);
            }
            auto& x = of_a[step % 2];
            auto& w = of_b[step % 2];
#pragma unroll
            for (int kind = 0; kind < KINDS; kind++) {
                round_fragments<T>(x[kind]);
                round_fragments<T>(w[kind]);
            }
            multiply<T>(sum[0], x[0], w[0]);
            if constexpr (KINDS == 2) {
                multiply<T>(sum[1], x[1], w[0]);
                multiply<T>(sum[1], x[0], w[1]);
            }
            if (step == 0) {
                // Into the buffer of the slice before this one, which nobody reads since the barrier.
                if (i + STAGES - 1 < count) fetch(i + STAGES - 1);
                cp_async_commit();
                if (BIAS_GRADIENT && row_sums) {
                    const char* tile = buffer(i);
#pragma unroll 4
                    for (int k = 0; k < A::DEPTH; k++) row_sum += A::number(tile, k, threadIdx.x);
                }
            }
        }
    }

    const u32 own_row = corner.row + threadIdx.x;
    if (BIAS_GRADIENT && row_sums && own_row < p.m) finish_bias_gradient(p, own_row, row_sum, work.part);
    cp_async_wait<0>();
    __syncthreads();
    float* mine = reinterpret_cast<float*>(stages) + warp * 16 * (P::WARP_COLUMNS + 8);
    const bool aligned = finish_aligned<4>(p), aligned_too = KINDS == 2 && finish_aligned<4>(q);
    const u32 column = corner.column + warp_column;
#pragma unroll 1
    for (int m = 0; m < M; m++) {
        const u32 row = corner.row + warp_row + 16 * m;
        finish_rows<M, N>(p, mine, sum[0], m, row, column, aligned, work.part);
        if constexpr (KINDS == 2) finish_rows<M, N>(q, mine, sum[1], m, row, column, aligned_too, work.part);
    }
}

// gx and gw, on a grid of one axis: the blocks of the product that takes longer a block come first, and the shorter ones of
// the other fill the places that they leave. Within each, rows of gy go upwards: gx's tiles do, and gw's parts. Where one
// launch is worth while, gy is small enough to stay in L2 between the two.
template <class T, class P> FIPK_DEVICE void gemm_reverse(const GemmReverseArgs& p) {
    const u32 tiles_x = tile_rows<P>(p.gx) * tile_columns<P>(p.gx), tiles_w = tile_rows<P>(p.gw) * tile_columns<P>(p.gw);
    const bool x_first = p.gx.k * p.gx.pairs * p.gw.split >= p.gw.k * p.gw.pairs * p.gx.split;
    const u32 first = x_first ? tiles_x * p.gx.split : tiles_w * p.gw.split;
    const bool in_first = blockIdx.x < first;
    const u32 nth = in_first ? blockIdx.x : blockIdx.x - first;
    if (in_first == x_first) {
        // Parts of a tile side by side: they are of the same rows of gy.
        gemm_mma<T, true, false, P, 1>(p.gx, p.gx, {nth / p.gx.split, nth % p.gx.split});
    } else {
        gemm_mma<T, false, false, P, 1>(p.gw, p.gw, {nth % tiles_w, nth / tiles_w});
    }
}

// gemm_mma_<layout>_<tile>_<operands>, gemm_dual_nt_<tile>_<operands> and gemm_reverse_<tile>_<operands>.
using Small = Plan<64, 64, 32, 32, 128, 4>;
using Medium = Plan<128, 128, 64, 64, 64, 4>;
using Large = Plan<256, 128, 64, 64, 64, 4>;
using DualSmall = Plan<64, 64, 32, 32, 64, 4>;
using DualLarge = Plan<128, 128, 64, 32, 64, 3>;
#define GEMM_MMA_OF(layout, operands, T, tile, P, blocks, a_inner_k, b_inner_k)                 \
    FIPK_KERNEL_BLOCKS(gemm_mma_##layout##_##tile##_##operands, GemmArgs, P::THREADS, blocks) { \
        gemm_mma<T, a_inner_k, b_inner_k, P, 1>(p, p, work_of_block());                         \
    }
#define GEMM_MMA(layout, operands, T, a_inner_k, b_inner_k)                    \
    GEMM_MMA_OF(layout, operands, T, 64x64, Small, 3, a_inner_k, b_inner_k)    \
    GEMM_MMA_OF(layout, operands, T, 128x128, Medium, 2, a_inner_k, b_inner_k) \
    GEMM_MMA_OF(layout, operands, T, 256x128, Large, 1, a_inner_k, b_inner_k)
#define GEMM_DUAL(operands, T, tile, P, blocks)                                              \
    FIPK_KERNEL_BLOCKS(gemm_dual_nt_##tile##_##operands, GemmDualArgs, P::THREADS, blocks) { \
        gemm_mma<T, true, true, P, 2>(p.y, p.dy, work_of_block());                           \
    }
#define GEMM_REVERSE(operands, T, tile, P, blocks)                                              \
    FIPK_KERNEL_BLOCKS(gemm_reverse_##tile##_##operands, GemmReverseArgs, P::THREADS, blocks) { \
        gemm_reverse<T, P>(p);                                                                  \
    }
