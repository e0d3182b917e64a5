// Matrix products on Hopper's tensor cores: those of gemm.cu, for bf16 times bf16, by wgmma on tiles that TMA brings.
//
//     nt  A [m, k]  B [n, k]        nn  A [m, k]  B [k, n]        tn  A [k, m]  B [k, n]
//
// Bases are aligned to 16 bytes and rows stand a multiple of 8 elements apart, k > 0; C is f32 or bf16, by a flag. TMA
// copies boxes as they lie in memory, swizzled, and fills with zeros what is beyond an edge; wgmma reads either kind of
// row, k along it or across it, so that nothing is turned on the way.
//
// A block is 3 warpgroups. One thread of the first does nothing but start copies of slices of A and B, 64 deep, into a
// ring of stages; the others multiply. For each stage there are two barriers: `full`, which the copies complete, and
// `empty`, at which each warp that has multiplied arrives. A wait names the parity of the phase it waits for, and is right
// as long as it is not more than one phase ahead of the barrier. The blocks are as many as multiprocessors and go through
// all tiles of C, eight rows of tiles at a time, so that what runs at a time shares its operands in L2.
//
//     128 x 256  both groups multiply one tile, 64 rows each: most work for what is read
//     128 x 128, 128 x 64  the groups take tiles in turn, all 128 rows: one stores while the other multiplies. `turns` keep
//                them in the order in which slices come, without which a group could be two phases ahead
//
// With split > 1 there are so many parts of each tile, which go to `partial` for gemm_split_sum. Sums are f32, slices in
// the order of k, pairs one after the other. The sums of op(A)'s rows (tn), a bias's gradient, come from the stages of the
// first column of tiles, a row a thread.
//
// 2 m n k FLOPs a pair. A slice of the 128 x 256 tile is 48 KiB for 4.2 MFLOPs: 85 FLOPs a byte from L2, 64 in a square of
// 128, 43 in 128 x 64. An H100's tensor cores take 1024 cycles for it, 512 and 256 for the others, in which wgmma reads
// 80, 48 and 32 KiB of shared memory, of 128, 64 and 32. Not yet run on a GPU.
#include "gemm.cuh"
#include "ptx.cuh"

#if FIPK_SM90A

struct WgmmaArgs {
    TensorMap a[2];
    TensorMap b[2];
    GemmArgs product;
    u64 pad[5];
};
FIPK_ARGS(WgmmaArgs, 704);

constexpr int GROUP = 128; // threads of a warpgroup
constexpr int THREADS = 3 * GROUP;
constexpr int ROWS = 128;
constexpr int DEPTH = 64; // bf16 in a row of the swizzle
constexpr int RING = 192 * 1024; // bytes of stages
// What a warp lays down of its sums at a time to store them: 16 rows of so many columns, and the floats from row to row,
// whose rest of 8 lets the writes of a warp go to distinct banks.
constexpr int STRIP = 32;
constexpr int PITCH = STRIP + 8;
// Rows of tiles that are gone through together.
constexpr u32 BAND = 8;

template <bool A_ACROSS, bool B_ACROSS, int WIDTH> struct Form {
    static constexpr bool A_TURNED = A_ACROSS, B_TURNED = B_ACROSS;
    static constexpr int COLUMNS = WIDTH;
    static constexpr bool TOGETHER = COLUMNS == 256;
    // A group's wgmma tiles, of 64 rows each.
    static constexpr int BLOCKS = TOGETHER ? 1 : 2;
    // bf16 of a stage: A, then B.
    static constexpr int OF_A = ROWS * DEPTH, STAGE = OF_A + COLUMNS * DEPTH;
    static constexpr int STAGES = RING / (2 * STAGE);
};

// A place in the ring, and the parity of the phases that its slice belongs to.
template <int STAGES> struct Place {
    u32 stage = 0, parity = 0;
    FIPK_DEVICE void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
    FIPK_DEVICE void skip(u32 slices) {
        const u32 all = stage + slices;
        stage = all % STAGES;
        parity ^= all / STAGES & 1;
    }
};

// A part of the sum of a tile: slices begin .. end of those of all pairs.
struct Work {
    u32 row0, column0, part, begin, end;
};

template <int COLUMNS> struct Plan {
    u32 rows, columns, tiles, count; // of tiles; and of works
    u32 slices, all, split;          // of a pair, of all pairs

    explicit FIPK_DEVICE Plan(const GemmArgs& p)
        : rows(static_cast<u32>((p.m + ROWS - 1) / ROWS)), columns(static_cast<u32>((p.n + COLUMNS - 1) / COLUMNS)),
          tiles(rows * columns), count(tiles * p.split), slices(static_cast<u32>((p.k + DEPTH - 1) / DEPTH)),
          all(slices * p.pairs), split(p.split) {}

    FIPK_DEVICE Work operator[](u32 i) const {
        const u32 part = i / tiles, tile = i % tiles;
        const u32 first = tile / (BAND * columns) * BAND, within = tile % (BAND * columns);
        const u32 band = rows - first < BAND ? rows - first : BAND;
        return {(first + within % band) * ROWS, within / band * COLUMNS, part, all * part / split,
                all * (part + 1) / split};
    }
};

struct Barriers {
    u64 *full, *empty, *turns;
};

// One thread: start the copies of every slice of every work, as stages become free.
template <class F> FIPK_DEVICE void bring(const WgmmaArgs& p, const Plan<F::COLUMNS>& plan, bf16* ring, const Barriers& bars) {
    Place<F::STAGES> at;
    for (u32 i = blockIdx.x; i < plan.count; i += gridDim.x) {
        const Work work = plan[i];
        const int row0 = static_cast<int>(work.row0), column0 = static_cast<int>(work.column0);
        for (u32 slice = work.begin; slice < work.end; slice++, at.next()) {
            const u32 second = slice >= plan.slices;
            const int k = static_cast<int>((second ? slice - plan.slices : slice) * DEPTH);
            bf16 *a = ring + at.stage * F::STAGE, *b = a + F::OF_A;
            u64* full = bars.full + at.stage;
            mbarrier_wait(bars.empty + at.stage, at.parity ^ 1);
            // Zeros beyond an edge count as bytes too.
            mbarrier_expect(full, 2 * F::STAGE);
            if (F::A_TURNED) {
#pragma unroll
                for (int m = 0; m < ROWS; m += 64) tma_load_2d(a + m * DEPTH, p.a + second, full, row0 + m, k);
            } else {
                tma_load_2d(a, p.a + second, full, k, row0);
            }
            if (F::B_TURNED) {
#pragma unroll
                for (int n = 0; n < F::COLUMNS; n += 64) tma_load_2d(b + n * DEPTH, p.b + second, full, column0 + n, k);
            } else {
                tma_load_2d(b, p.b + second, full, k, column0);
            }
        }
    }
}

// One arrival a warp, after what all of its lanes did.
FIPK_DEVICE void arrive(u64* bar) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(bar);
}

// Put a slice's products on their way, as one group of wgmma. row: the group's first in the tile.
template <class F>
FIPK_DEVICE void multiply(float (&sum)[F::BLOCKS][F::COLUMNS / 2], const bf16* a, int row, bool add) {
    const bf16* b = a + F::OF_A;
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        // The blocks of a turned B are 64 columns each.
        const u64 of_b = F::B_TURNED ? wgmma_operand_turned(b + k * 64, 8192) : wgmma_operand(b + k);
#pragma unroll
        for (int block = 0; block < F::BLOCKS; block++) {
            const bf16* from = a + (row + 64 * block) * DEPTH;
            const u64 of_a = F::A_TURNED ? wgmma_operand_turned(from + k * 64, 8192) : wgmma_operand(from + k);
            wgmma_bf16<F::COLUMNS, F::A_TURNED, F::B_TURNED>(sum[block], of_a, of_b, add || k > 0);
        }
    }
    wgmma_commit();
}

// The sum of a row of op(A) over a slice of turned A. Lanes have neighbouring rows.
FIPK_DEVICE float row_of_slice(const bf16* a, int row) {
    const bf16* block = a + row / 64 * 64 * DEPTH;
    const int piece = row % 64 / 8, within = row % 8;
    float sum = 0.0f;
#pragma unroll 8
    for (int k = 0; k < DEPTH; k++) sum += load<bf16>(block, k * 64 + ((piece ^ k % 8) * 8 | within));
    return sum;
}

// Store what a warp has of a tile: strip by strip through shared memory, so that rows are written in a piece. The
// epilogue's code is there once; what differs between the strips are the registers that are laid down.
template <class F>
FIPK_DEVICE void store(const GemmArgs& p, const float (&sum)[F::BLOCKS][F::COLUMNS / 2], const Work& work, int row,
                       float* mine) {
    constexpr int STRIPS = F::COLUMNS / STRIP, W = 8;
    const int lane = threadIdx.x % 32, first = row + threadIdx.x % GROUP / 32 * 16;
    const bool aligned = finish_aligned<W>(p);
#pragma unroll 1
    for (int i = 0; i < F::BLOCKS * STRIPS; i++) {
#pragma unroll
        for (int block = 0; block < F::BLOCKS; block++) {
#pragma unroll
            for (int strip = 0; strip < STRIPS; strip++) {
                if (i != block * STRIPS + strip) continue;
#pragma unroll
                for (int j = 0; j < STRIP / 4; j++) {
                    // j: eight columns, and the upper or lower eight rows of them.
                    const float* from = sum[block] + strip * STRIP / 2 + 2 * j;
                    float2* to = reinterpret_cast<float2*>(mine + (lane / 4 + 8 * (j % 2)) * PITCH + j / 2 * 8 + lane % 4 * 2);
                    *to = float2{from[0], from[1]};
                }
            }
        }
        __syncwarp();
        const u64 column = work.column0 + i % STRIPS * STRIP + lane % 4 * W;
#pragma unroll 1
        for (int r = lane / 4; r < 16; r += 8) {
            const u64 at = static_cast<u64>(work.row0) + first + i / STRIPS * 64 + r;
            if (at >= p.m || column >= p.n) continue;
            const float* from = mine + r * PITCH + lane % 4 * W;
            if (p.split == 1) {
                finish<W>(p, at, column, from, aligned);
            } else {
                finish_part<W>(p, at, column, from, work.part);
            }
        }
        __syncwarp();
    }
}

// A warpgroup: the products of its works and their epilogue. me: 0 or 1.
template <class F>
FIPK_DEVICE void consume(const GemmArgs& p, const Plan<F::COLUMNS>& plan, const bf16* ring, float* strips,
                         const Barriers& bars, u32 me) {
    const int t = threadIdx.x % GROUP, row = F::TOGETHER ? static_cast<int>(me) * 64 : 0;
    float* mine = strips + (me * (GROUP / 32) + t / 32) * 16 * PITCH;
    float sum[F::BLOCKS][F::COLUMNS / 2];
    Place<F::STAGES> at;
    u32 turn = 0;
    for (u32 i = blockIdx.x; i < plan.count; i += gridDim.x, turn++) {
        const Work work = plan[i];
        if (!F::TOGETHER && turn % 2 != me) {
            at.skip(work.end - work.begin);
            continue;
        }
        // The first turn is the first group's.
        if (!F::TOGETHER) mbarrier_wait(bars.turns + me, (turn / 2 + me + 1) & 1);
        const bool row_sums = F::A_TURNED && p.bias_gradient && work.column0 == 0 && t < 64 * F::BLOCKS;
        float row_sum = 0.0f;
        u64* before = nullptr;
        for (u32 slice = work.begin; slice < work.end; slice++, at.next()) {
            const bf16* a = ring + at.stage * F::STAGE;
            mbarrier_wait(bars.full + at.stage, at.parity);
            multiply<F>(sum, a, row, slice > work.begin);
            if (row_sums) row_sum += row_of_slice(a, row + t);
            wgmma_wait<1>();
            if (before) arrive(before);
            before = bars.empty + at.stage;
        }
        // All of this work's slices have come, so that the other group is at most a phase ahead of any barrier.
        if (!F::TOGETHER) arrive(bars.turns + (me ^ 1));
        wgmma_wait<0>();
        arrive(before);
        if (row_sums && work.row0 + row + t < p.m) finish_bias_gradient(p, work.row0 + row + t, row_sum, work.part);
        store<F>(p, sum, work, row, mine);
    }
}

template <bool A_TURNED, bool B_TURNED, int COLUMNS> FIPK_DEVICE void gemm_wgmma(const WgmmaArgs& p) {
    using F = Form<A_TURNED, B_TURNED, COLUMNS>;
    FIPK_DYNAMIC_SHARED(bf16, ring); // [STAGES][STAGE], then [8 warps][16][PITCH] of f32
    FIPK_SHARED(u64, bars, [2 * F::STAGES + 2]);
    const Barriers named{bars, bars + F::STAGES, bars + 2 * F::STAGES};
    if (threadIdx.x == 0) {
        for (int i = 0; i < F::STAGES; i++) {
            mbarrier_init(named.full + i, 1);
            mbarrier_init(named.empty + i, F::TOGETHER ? 8 : 4);
        }
        mbarrier_init(named.turns, 4);
        mbarrier_init(named.turns + 1, 4);
        mbarrier_init_fence();
    }
    __syncthreads();
    const Plan<COLUMNS> plan(p.product);
    // 128 threads of 24 registers and 256 of 240 are all that there are.
    if (threadIdx.x < GROUP) {
        registers_lower<24>();
        if (threadIdx.x == 0) bring<F>(p, plan, ring, named);
    } else {
        registers_raise<240>();
        float* strips = reinterpret_cast<float*>(ring + F::STAGES * F::STAGE);
        consume<F>(p.product, plan, ring, strips, named, threadIdx.x / GROUP - 1);
    }
}

// The number of blocks is named because setmaxnreg is otherwise ignored.
#define GEMM(name, a_turned, b_turned, columns) \
    FIPK_KERNEL_BLOCKS(name, WgmmaArgs, THREADS, 1) { gemm_wgmma<a_turned, b_turned, columns>(p); }
GEMM(gemm_wgmma_nt_128x256, false, false, 256)
GEMM(gemm_wgmma_nt_128x128, false, false, 128)
GEMM(gemm_wgmma_nt_128x64, false, false, 64)
GEMM(gemm_wgmma_nn_128x256, false, true, 256)
GEMM(gemm_wgmma_nn_128x128, false, true, 128)
GEMM(gemm_wgmma_nn_128x64, false, true, 64)
GEMM(gemm_wgmma_tn_128x256, true, true, 256)
GEMM(gemm_wgmma_tn_128x128, true, true, 128)
GEMM(gemm_wgmma_tn_128x64, true, true, 64)

#endif // FIPK_SM90A
