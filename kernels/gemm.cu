// Matrix products, portable: C = α Σ_i op(A_i) op(B_i) (+ bias) (+ C), with one or two pairs of operands.
//
//     nt  A [m, k]  B [n, k]   a linear map's forward, y = x Wᵀ, and with two pairs its tangent, dx Wᵀ + x dWᵀ
//     nn  A [m, k]  B [k, n]   the cotangent of its input, gy W
//     tn  A [k, m]  B [k, n]   the cotangent of its weight, gyᵀ x
//
// The epilogue is that of gemm.cuh; tn also gives the sums of op(A)'s rows, a bias's gradient, from the tiles that the
// blocks of the first columns have in shared memory anyway.
// C is [m, n]; rows stand lda, ldb, ldc apart. A and B are f32 or bf16, by the kernel's name; C either, by a flag.
// Sums are f32, each element's in the order of k (pairs one after the other), so that nothing depends on the device.
//
// A block of 256 threads makes a tile of C, 128 x 64 (8 x 4 sums a thread) or 64 x 64 (4 x 4): slices of A and B, 32
// deep, lie in shared memory as f32 with k outermost, in two buffers: while one is multiplied, the next slice is on its
// way through registers. 16-byte loads where a row allows it. Operands whose k is innermost are turned on their way in;
// an exclusive-or on the column keeps that free of bank conflicts and leaves groups of four together.
// With split > 1, blockIdx.y takes a part of k into `partial`, and gemm_split_sum adds the parts up in order.
//
// 2 m n k FLOPs a pair; m k (n / 64) + n k (m / 128) elements read, mostly from L2, and m n written. For each step along
// k a warp reads shared memory for 4 cycles (large tiles) or 3 (small ones) while its FMAs take 8 or 4: bound by the FMA
// pipes, 67 TFLOP/s on an H100 on paper. Two blocks fit a multiprocessor. These are the kernels of f32, of mixed operands
// and of all that the tensor cores' kernels (gemm_mma.cuh) do not take. Not yet run on a GPU.
#include "gemm.cuh"

constexpr int THREADS = 256;
// Side of the square of C that the block's 16 x 16 threads cover with four by four elements each.
constexpr int SQUARE = 64;
// Of a slice, along k.
constexpr int DEPTH = 32;

// A slice of one operand: EXTENT rows (or columns) of C by DEPTH of k. INNER_K: whether k is innermost in memory.
template <class T, int EXTENT, bool INNER_K> struct Slice {
    static constexpr int SIZE = Pack<T>::SIZE;
    static constexpr int PACKS = EXTENT * DEPTH / SIZE / THREADS;
    static constexpr int ACROSS = (INNER_K ? DEPTH : EXTENT) / SIZE; // packs side by side in memory
    static constexpr int STEP = THREADS / ACROSS;                   // from a thread's pack to its next, in lines
    static_assert(PACKS >= 1 && THREADS % ACROSS == 0, "every thread brings packs of one column");

    Pack<T> held[PACKS];

    static FIPK_DEVICE int line() { return threadIdx.x / ACROSS; }
    static FIPK_DEVICE int column() { return threadIdx.x % ACROSS * SIZE; }

    // What the column in shared memory is xored with: the packs that a warp turns at a time go to distinct banks.
    static FIPK_DEVICE int swizzle(int k) { return INNER_K ? k / SIZE * (32 * SIZE / DEPTH) : 0; }

    // Take the slice at (at, k0) into registers; beyond `extent` and `depth` it is 0.
    FIPK_DEVICE void fetch(const void* base, u64 ld, bool aligned, u64 at, u64 extent, u64 k0, u64 depth) {
        const u64 first = (INNER_K ? at : k0) + line(), lines = INNER_K ? extent : depth;
        const u64 inner = (INNER_K ? k0 : at) + column(), columns = INNER_K ? depth : extent;
        const T* from = static_cast<const T*>(base) + first * ld + inner;
        const int valid = inner >= columns ? 0 : columns - inner < SIZE ? static_cast<int>(columns - inner) : SIZE;
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            const bool there = first + i * STEP < lines;
            if (there && valid == SIZE && aligned) {
                held[i] = load_pack<T>(from + i * STEP * ld, 0);
                continue;
            }
#pragma unroll
            for (int j = 0; j < SIZE; j++) held[i].v[j] = there && j < valid ? load<T>(from + i * STEP * ld, j) : 0.0f;
        }
    }

    // Lay it down as tile[k][row].
    FIPK_DEVICE void lay(float (*tile)[EXTENT]) const {
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            const int outer = line() + i * STEP, inner = column();
            if (INNER_K) {
#pragma unroll
                for (int j = 0; j < SIZE; j++) tile[inner + j][outer ^ swizzle(inner)] = held[i].v[j];
            } else {
#pragma unroll
                for (int j = 0; j < SIZE; j += 4) {
                    store_quad<float>(&tile[outer][inner + j], 0,
                                      {{held[i].v[j], held[i].v[j + 1], held[i].v[j + 2], held[i].v[j + 3]}});
                }
            }
        }
    }
};

template <class A, class B, bool A_INNER_K, bool B_INNER_K, int ROWS> FIPK_DEVICE void gemm(const GemmArgs& p) {
    constexpr int SQUARES = ROWS / SQUARE;
    constexpr bool BIAS_GRADIENT = !A_INNER_K;
    using SliceA = Slice<A, ROWS, A_INNER_K>;
    using SliceB = Slice<B, SQUARE, B_INNER_K>;
    FIPK_SHARED(float, tile_a, [2][DEPTH][ROWS]);
    FIPK_SHARED(float, tile_b, [2][DEPTH][SQUARE]);

    const u64 columns = (p.n + SQUARE - 1) / SQUARE;
    const u64 row0 = blockIdx.x / columns * ROWS, column0 = blockIdx.x % columns * SQUARE;
    const int ty = threadIdx.x / 16 * 4, tx = threadIdx.x % 16 * 4;

    // The slices of all pairs in a row, and the part of them that is this block's.
    const u64 slices = (p.k + DEPTH - 1) / DEPTH, all = slices * p.pairs;
    const u64 begin = all * blockIdx.y / p.split, end = all * (blockIdx.y + 1) / p.split;
    const bool aligned_a = rows_aligned<A>(p.a[0], p.lda, SliceA::SIZE) && rows_aligned<A>(p.a[1], p.lda, SliceA::SIZE);
    const bool aligned_b = rows_aligned<B>(p.b[0], p.ldb, SliceB::SIZE) && rows_aligned<B>(p.b[1], p.ldb, SliceB::SIZE);
    SliceA next_a;
    SliceB next_b;
    auto fetch = [&](u64 slice) {
        const bool second = slice >= slices;
        const u64 k0 = (second ? slice - slices : slice) * DEPTH;
        next_a.fetch(second ? p.a[1] : p.a[0], p.lda, aligned_a, row0, p.m, k0, p.k);
        next_b.fetch(second ? p.b[1] : p.b[0], p.ldb, aligned_b, column0, p.n, k0, p.k);
    };

    float sum[SQUARES * 4][4] = {}, row_sum = 0.0f;
    const bool row_sums = BIAS_GRADIENT && p.bias_gradient && column0 == 0 && threadIdx.x < ROWS;
    if (begin < end) {
        fetch(begin);
        next_a.lay(tile_a[0]);
        next_b.lay(tile_b[0]);
    }
    __syncthreads();
    int buffer = 0;
    for (u64 slice = begin; slice < end; slice++, buffer ^= 1) {
        if (slice + 1 < end) fetch(slice + 1);
        // No further: more slices of registers in flight would leave room for one block on a multiprocessor.
#pragma unroll 4
        for (int k = 0; k < DEPTH; k++) {
            Quad a[SQUARES];
#pragma unroll
            for (int s = 0; s < SQUARES; s++) {
                a[s] = load_quad<float>(&tile_a[buffer][k][s * SQUARE + (ty ^ SliceA::swizzle(k))], 0);
            }
            const Quad b = load_quad<float>(&tile_b[buffer][k][tx ^ SliceB::swizzle(k)], 0);
#pragma unroll
            for (int i = 0; i < SQUARES * 4; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] += a[i / 4].v[i % 4] * b.v[j];
            }
        }
        if (row_sums) {
            for (int k = 0; k < DEPTH; k++) row_sum += tile_a[buffer][k][threadIdx.x];
        }
        // The other buffer was last read before the barrier that ended the turn before.
        if (slice + 1 < end) {
            next_a.lay(tile_a[buffer ^ 1]);
            next_b.lay(tile_b[buffer ^ 1]);
        }
        __syncthreads();
    }

    if (BIAS_GRADIENT && row_sums && row0 + threadIdx.x < p.m) finish_bias_gradient(p, row0 + threadIdx.x, row_sum);
    // Through a thread's own places in shared memory, which is free by now, so that the epilogue is a loop and not as
    // many copies of its code as there are sums.
    float* mine = &tile_a[0][0][0] + threadIdx.x * 4;
#pragma unroll
    for (int i = 0; i < SQUARES * 4; i++) {
        store_quad<float>(mine, i * THREADS * 4, {{sum[i][0], sum[i][1], sum[i][2], sum[i][3]}});
    }
    const bool aligned = finish_aligned<4>(p);
    const u64 column = column0 + tx;
    if (column >= p.n) return;
#pragma unroll 1
    for (int i = 0; i < SQUARES * 4; i++) {
        const u64 row = row0 + i / 4 * SQUARE + ty + i % 4;
        if (row >= p.m) continue;
        if (p.split == 1) {
            finish<4>(p, row, column, mine + i * THREADS * 4, aligned);
        } else {
            finish_part<4>(p, row, column, mine + i * THREADS * 4);
        }
    }
}

// The parts of each element, added up in their order; then the epilogue. For every family of kernels.
FIPK_KERNEL(gemm_split_sum, GemmArgs, 256) {
    const u64 size = p.m * p.n, stride = static_cast<u64>(gridDim.x) * blockDim.x;
    const u64 first = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (u64 i = first; i < size; i += stride) {
        float v[1] = {0.0f};
        for (u32 part = 0; part < p.split; part++) v[0] += p.partial[part * size + i];
        finish_all<1>(p, i / p.n, i % p.n, v);
    }
    if (!p.bias_gradient) return;
    for (u64 i = first; i < p.m; i += stride) {
        float sum = 0.0f;
        for (u32 part = 0; part < p.split; part++) sum += p.partial[p.split * size + part * p.m + i];
        put<float>(p.bias_gradient, i, p.alpha * sum, p.epilogue & BIAS_GRADIENT_ADD);
    }
}

// gemm_<layout>_<tile>_<A>_<B>.
#define GEMM_OF(layout, rows, name_a, name_b, A, B, a_inner_k, b_inner_k)                       \
    FIPK_KERNEL_BLOCKS(gemm_##layout##_##rows##x64_##name_a##_##name_b, GemmArgs, THREADS, 2) { \
        gemm<A, B, a_inner_k, b_inner_k, rows>(p);                                              \
    }
#define GEMM(layout, rows, a_inner_k, b_inner_k)                        \
    GEMM_OF(layout, rows, f32, f32, float, float, a_inner_k, b_inner_k) \
    GEMM_OF(layout, rows, f32, bf16, float, bf16, a_inner_k, b_inner_k) \
    GEMM_OF(layout, rows, bf16, f32, bf16, float, a_inner_k, b_inner_k) \
    GEMM_OF(layout, rows, bf16, bf16, bf16, bf16, a_inner_k, b_inner_k)
GEMM(nt, 64, true, true)
GEMM(nt, 128, true, true)
GEMM(nn, 64, true, false)
GEMM(nn, 128, true, false)
GEMM(tn, 64, false, false)
GEMM(tn, 128, false, false)
