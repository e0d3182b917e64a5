// Matrix products, portable: C = α Σ_i op(A_i) op(B_i) (+ bias) (+ C), with one or two pairs of operands.
//
//     nt  A [m, k]  B [n, k]   a linear map's forward, y = x Wᵀ, and with two pairs its tangent, dx Wᵀ + x dWᵀ
//     nn  A [m, k]  B [k, n]   the cotangent of its input, gy W
//     tn  A [k, m]  B [k, n]   the cotangent of its weight, gyᵀ x
//
// C is [m, n]; rows stand lda, ldb, ldc apart. A and B are f32 or bf16, by the kernel's name; C either, by a flag.
// Sums are f32, each element's in the order of k (pairs one after the other), so that nothing depends on the device.
//
// A block of 256 threads makes a tile of C, 128 x 128 (64 sums a thread) or 64 x 64 (16): slices of A and B, 16 or 32
// deep, lie in shared memory as f32 with k outermost, in two buffers: while one is multiplied, the next slice is on its
// way through registers. 16-byte loads where a row allows it. Operands whose k is innermost are turned on their way in;
// an exclusive-or on the column keeps that free of bank conflicts and leaves groups of four together.
// With split > 1, blockIdx.y takes a part of k into `partial`, and gemm_split_sum adds the parts up in order.
//
// 2 m n k FLOPs a pair; (m k (n / 128) + n k (m / 128)) elements read through L2, m n written. A 128 x 128 tile does 64
// FMA a thread for 4 16-byte reads of shared memory, so it is bound by the FMA pipes: 67 TFLOP/s on an H100 at best.
// Tensor cores are for the kernels that this one judges. Not yet run on a GPU.
#include "quad.cuh"

constexpr int THREADS = 256;
// Side of the square of C that the block's 16 x 16 threads cover with four by four elements each.
constexpr int SQUARE = 64;

// Bits of `epilogue`.
constexpr u32 ADD = 1;  // C is added to
constexpr u32 BIAS = 2; // bias [n], f32, is added to every row
constexpr u32 BF16 = 4; // C is bf16

struct GemmArgs {
    const void* a[2];
    const void* b[2];
    void* c;
    const float* bias;
    float* partial; // [split, m, n]
    u64 m;
    u64 n;
    u64 k;
    u64 lda;
    u64 ldb;
    u64 ldc;
    u32 pairs;
    u32 split;
    u32 epilogue;
    float alpha;
};
FIPK_ARGS(GemmArgs, 120);

// A slice of one operand: EXTENT rows (or columns) of C by DEPTH of k. INNER_K: whether k is innermost in memory.
template <class T, int EXTENT, int DEPTH, bool INNER_K> struct Slice {
    static constexpr int SIZE = Pack<T>::SIZE;
    static constexpr int PACKS = EXTENT * DEPTH / SIZE / THREADS;
    static constexpr int INNER = (INNER_K ? DEPTH : EXTENT) / SIZE; // packs side by side in memory
    static_assert(PACKS >= 1, "every thread brings a pack");

    Pack<T> held[PACKS];

    // What the column in shared memory is xored with: the packs that a warp turns at a time go to distinct banks.
    static FIPK_DEVICE int swizzle(int k) { return INNER_K ? k / SIZE * (32 * SIZE / DEPTH) : 0; }

    // Take the slice at (at, k0) into registers; beyond `extent` and `depth` it is 0.
    FIPK_DEVICE void fetch(const void* base, u64 ld, bool aligned, u64 at, u64 extent, u64 k0, u64 depth) {
        const u64 outer0 = INNER_K ? at : k0, outer_end = INNER_K ? extent : depth;
        const u64 inner0 = INNER_K ? k0 : at, inner_end = INNER_K ? depth : extent;
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            const int pack = i * THREADS + threadIdx.x;
            const u64 outer = outer0 + pack / INNER, inner = inner0 + pack % INNER * SIZE;
            const u64 from = outer * ld + inner;
            if (outer < outer_end && inner + SIZE <= inner_end && aligned) {
                held[i] = load_pack<T>(base, from);
                continue;
            }
#pragma unroll
            for (int j = 0; j < SIZE; j++) {
                held[i].v[j] = outer < outer_end && inner + j < inner_end ? load<T>(base, from + j) : 0.0f;
            }
        }
    }

    // Lay it down as tile[k][row].
    FIPK_DEVICE void lay(float (*tile)[EXTENT]) const {
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            const int pack = i * THREADS + threadIdx.x;
            const int outer = pack / INNER, inner = pack % INNER * SIZE;
            if (INNER_K) {
#pragma unroll
                for (int j = 0; j < SIZE; j++) tile[inner + j][outer ^ swizzle(inner + j)] = held[i].v[j];
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

// Add what the epilogue adds to four neighbours of a row of C, and store them.
FIPK_DEVICE void finish(const GemmArgs& p, u64 row, u64 column, Quad v, bool aligned) {
    const u64 at = row * p.ldc + column, valid = p.n - column;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        v.v[j] *= p.alpha;
        if (p.epilogue & BIAS && j < valid) v.v[j] += p.bias[column + j];
    }
    if (p.epilogue & BF16) {
        put_quad<bf16>(p.c, at, v, valid, aligned, p.epilogue & ADD);
    } else {
        put_quad<float>(p.c, at, v, valid, aligned, p.epilogue & ADD);
    }
}

template <class A, class B, bool A_INNER_K, bool B_INNER_K, int SIDE, int DEPTH> FIPK_DEVICE void gemm(const GemmArgs& p) {
    constexpr int SQUARES = SIDE / SQUARE;
    using SliceA = Slice<A, SIDE, DEPTH, A_INNER_K>;
    using SliceB = Slice<B, SIDE, DEPTH, B_INNER_K>;
    FIPK_SHARED(float, tile_a, [2][DEPTH][SIDE]);
    FIPK_SHARED(float, tile_b, [2][DEPTH][SIDE]);

    const u64 columns = (p.n + SIDE - 1) / SIDE;
    const u64 row0 = blockIdx.x / columns * SIDE, column0 = blockIdx.x % columns * SIDE;
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

    float sum[SQUARES * 4][SQUARES * 4] = {};
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
            Quad a[SQUARES], b[SQUARES];
#pragma unroll
            for (int s = 0; s < SQUARES; s++) {
                a[s] = load_quad<float>(&tile_a[buffer][k][s * SQUARE + (ty ^ SliceA::swizzle(k))], 0);
                b[s] = load_quad<float>(&tile_b[buffer][k][s * SQUARE + (tx ^ SliceB::swizzle(k))], 0);
            }
#pragma unroll
            for (int i = 0; i < SQUARES * 4; i++) {
#pragma unroll
                for (int j = 0; j < SQUARES * 4; j++) sum[i][j] += a[i / 4].v[i % 4] * b[j / 4].v[j % 4];
            }
        }
        // The other buffer was last read before the barrier that ended the turn before.
        if (slice + 1 < end) {
            next_a.lay(tile_a[buffer ^ 1]);
            next_b.lay(tile_b[buffer ^ 1]);
        }
        __syncthreads();
    }

    const bool aligned_c = p.epilogue & BF16 ? rows_aligned<bf16>(p.c, p.ldc, 4) : rows_aligned<float>(p.c, p.ldc, 4);
    const bool aligned_partial = rows_aligned<float>(p.partial, p.n, 4) && p.m * p.n % 4 == 0;
#pragma unroll
    for (int i = 0; i < SQUARES * 4; i++) {
        const u64 row = row0 + i / 4 * SQUARE + ty + i % 4;
        if (row >= p.m) continue;
#pragma unroll
        for (int j = 0; j < SQUARES; j++) {
            const u64 column = column0 + j * SQUARE + tx;
            if (column >= p.n) continue;
            const Quad v = {{sum[i][4 * j], sum[i][4 * j + 1], sum[i][4 * j + 2], sum[i][4 * j + 3]}};
            if (p.split == 1) {
                finish(p, row, column, v, aligned_c);
            } else {
                const u64 at = (blockIdx.y * p.m + row) * p.n + column;
                put_quad<float>(p.partial, at, v, p.n - column, aligned_partial, false);
            }
        }
    }
}

// The parts of each element, added up in their order; then the epilogue.
FIPK_KERNEL(gemm_split_sum, GemmArgs, 256) {
    const u64 size = p.m * p.n, stride = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += stride) {
        float sum = 0.0f;
        for (u32 part = 0; part < p.split; part++) sum += p.partial[part * size + i];
        sum *= p.alpha;
        const u64 row = i / p.n, column = i % p.n, at = row * p.ldc + column;
        if (p.epilogue & BIAS) sum += p.bias[column];
        if (p.epilogue & BF16) {
            put<bf16>(p.c, at, sum, p.epilogue & ADD);
        } else {
            put<float>(p.c, at, sum, p.epilogue & ADD);
        }
    }
}

// gemm_<layout>_<side of the tile>_<A>_<B>.
#define GEMM(layout, a_inner_k, b_inner_k, side, depth)                                                                          \
    FIPK_KERNEL(gemm_##layout##_##side##_f32_f32, GemmArgs, 256) { gemm<float, float, a_inner_k, b_inner_k, side, depth>(p); }   \
    FIPK_KERNEL(gemm_##layout##_##side##_f32_bf16, GemmArgs, 256) { gemm<float, bf16, a_inner_k, b_inner_k, side, depth>(p); }   \
    FIPK_KERNEL(gemm_##layout##_##side##_bf16_f32, GemmArgs, 256) { gemm<bf16, float, a_inner_k, b_inner_k, side, depth>(p); }   \
    FIPK_KERNEL(gemm_##layout##_##side##_bf16_bf16, GemmArgs, 256) { gemm<bf16, bf16, a_inner_k, b_inner_k, side, depth>(p); }
GEMM(nt, true, true, 64, 32)
GEMM(nt, true, true, 128, 16)
GEMM(nn, true, false, 64, 32)
GEMM(nn, true, false, 128, 16)
GEMM(tn, false, false, 64, 32)
GEMM(tn, false, false, 128, 16)
