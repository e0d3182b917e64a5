// Rows by index: gathers, copies of strided rows, positions, and the deterministic scatter of gradients.
//
//   embedding_forward   y[i] = table[ids[i]]
//   embedding_order     positions in the order of (id, position), with the bounds of each id's run among them
//   embedding_vjp       g[id] (+)= Σ gy[i] over ids[i] = id
//   copy_rows           y[i yh + y0 ..] (+)= x[i xh + x0 ..], h elements
//   add_position        y[b, s] = x[b, s] + table[s]
//
// y, x, table, gy [.., h], f32 or bf16; ids i32; g f32. Steps are 16-byte packs where h and the bases allow it.
//
// The scatter sorts and then sums, so that it is as fast for thousands of rows of one id (padding, token types) as for
// ids that all differ, and gives the same bits every time. embedding_order ranks each position by counting those
// before it, a warp a position: n² comparisons of 4 bytes from the cache. embedding_vjp gives a block 32 sorted rows:
// runs of one id that begin and end there are summed and written; of a run that goes on, each block leaves its sum in
// scratch, and embedding_vjp_runs adds those up, the block where the run begins doing it, its 8 warps by turns.
// Bytes (of e an element): gather 2 e n h; scatter (e + 4) n h, twice 4 h / 32 a row at most for scratch, n² ids from
// the cache; the table is cleared apart. FLOPs: n h. Not yet run on a GPU.
#include "reduce.cuh"
#include "walk.cuh"

struct GatherArgs {
    const int* ids;
    const void* table;
    void* y;
    u64 n;
    u64 h;
    u64 packs;
};
FIPK_ARGS(GatherArgs, 48);

// A warp a row.
template <class T, int W> FIPK_DEVICE void embedding_forward(const GatherArgs& p) {
    const u32 lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const u64 stride = static_cast<u64>(gridDim.x) * warps;
    for (u64 i = static_cast<u64>(blockIdx.x) * warps + threadIdx.x / 32; i < p.n; i += stride) {
        const u64 from = static_cast<u64>(p.ids[i]) * p.h, to = i * p.h;
        for (u64 c = lane * W; c < p.h; c += 32 * W) copy_n<T, W>(p.y, to + c, p.table, from + c);
    }
}
template <class T> FIPK_DEVICE void embedding_forward_of(const GatherArgs& p) {
    if (p.packs) {
        embedding_forward<T, Pack<T>::SIZE>(p);
    } else {
        embedding_forward<T, 1>(p);
    }
}
FIPK_KERNEL(embedding_forward_f32, GatherArgs, 256) { embedding_forward_of<float>(p); }
FIPK_KERNEL(embedding_forward_bf16, GatherArgs, 256) { embedding_forward_of<bf16>(p); }

// A position in the sorted order; its id's run is begin..end of that order.
struct Sorted {
    u32 at, begin, end;
};

struct OrderArgs {
    const int* ids;
    Sorted* sorted;
    u64 n;
};
FIPK_ARGS(OrderArgs, 24);

FIPK_KERNEL(embedding_order, OrderArgs, 256) {
    const u32 lane = threadIdx.x % 32, warps = blockDim.x / 32, n = static_cast<u32>(p.n);
    for (u32 i = blockIdx.x * warps + threadIdx.x / 32; i < n; i += gridDim.x * warps) {
        const int id = p.ids[i];
        u32 less = 0, before = 0, same = 0;
#pragma unroll 4
        for (u32 j = lane; j < n; j += 32) {
            const int other = p.ids[j];
            less += other < id;
            same += other == id;
            before += other == id && j < i;
        }
        less = warp_sum(less), same = warp_sum(same), before = warp_sum(before);
        if (lane == 0) p.sorted[less + before] = {i, less, less + same};
    }
}

struct ScatterArgs {
    const int* ids;
    const Sorted* sorted;
    const void* gy;
    float* g;
    float* sums; // [blocks, 2, h]: of the run that comes into a block's rows, and of the one that leaves them
    u64 n;
    u64 h;
    u32 packs;
    u32 add;
};
FIPK_ARGS(ScatterArgs, 64);

constexpr u32 ROWS = 32; // sorted rows of a block

template <class T, int W> FIPK_DEVICE void embedding_vjp(const ScatterArgs& p) {
    constexpr u32 AHEAD = 4; // rows in flight
    FIPK_SHARED(u64, from, [ROWS]);
    FIPK_SHARED(float*, to, [ROWS]); // where the run goes that ends in this row, or null
    FIPK_SHARED(u32, add, [ROWS]);
    for (u64 block = blockIdx.x; block * ROWS < p.n; block += gridDim.x) {
        const u32 first = static_cast<u32>(block) * ROWS, n = static_cast<u32>(p.n);
        const u32 count = n - first < ROWS ? n - first : ROWS;
        if (threadIdx.x < count) {
            const Sorted row = p.sorted[first + threadIdx.x];
            const bool closes = first + threadIdx.x + 1 == row.end;
            float* target = nullptr;
            if (row.begin < first) {
                target = p.sums + 2 * block * p.h;
            } else if (!closes) {
                target = p.sums + (2 * block + 1) * p.h;
            } else {
                target = p.g + static_cast<u64>(p.ids[row.at]) * p.h;
            }
            from[threadIdx.x] = static_cast<u64>(row.at) * p.h;
            to[threadIdx.x] = closes || threadIdx.x + 1 == count ? target : nullptr;
            add[threadIdx.x] = closes && row.begin >= first && p.add;
        }
        __syncthreads();
        for (u64 c = threadIdx.x * W; c < p.h; c += blockDim.x * W) {
            float sum[W], v[AHEAD][W];
#pragma unroll
            for (int j = 0; j < W; j++) sum[j] = 0.0f;
            for (u32 k = 0; k < count; k += AHEAD) {
#pragma unroll
                for (u32 a = 0; a < AHEAD; a++) {
                    if (k + a < count) load_n<T>(v[a], p.gy, from[k + a] + c);
                }
#pragma unroll
                for (u32 a = 0; a < AHEAD; a++) {
                    if (k + a >= count) break;
#pragma unroll
                    for (int j = 0; j < W; j++) sum[j] += v[a][j];
                    if (!to[k + a]) continue;
                    put_n<float>(to[k + a], c, sum, add[k + a]);
#pragma unroll
                    for (int j = 0; j < W; j++) sum[j] = 0.0f;
                }
            }
        }
        __syncthreads();
    }
}
template <class T> FIPK_DEVICE void embedding_vjp_of(const ScatterArgs& p) {
    if (p.packs) {
        embedding_vjp<T, Pack<T>::SIZE>(p);
    } else {
        embedding_vjp<T, 1>(p);
    }
}
FIPK_KERNEL(embedding_vjp_f32, ScatterArgs, 256) { embedding_vjp_of<float>(p); }
FIPK_KERNEL(embedding_vjp_bf16, ScatterArgs, 256) { embedding_vjp_of<bf16>(p); }

// Runs over several blocks of ROWS: blockIdx.x is the one where a run begins, blockIdx.y strides over 32 columns each.
FIPK_KERNEL(embedding_vjp_runs, ScatterArgs, 256) {
    constexpr u32 GROUPS = 8;
    FIPK_SHARED(float, group_sums, [GROUPS][32]);
    const u32 lane = threadIdx.x % 32, group = threadIdx.x / 32, n = static_cast<u32>(p.n);
    for (u64 block = blockIdx.x; (block + 1) * ROWS < n; block += gridDim.x) {
        const u64 first = block * ROWS;
        const Sorted row = p.sorted[first + ROWS - 1];
        if (row.begin < first || row.end <= first + ROWS) continue;
        const u64 last = (row.end - 1) / ROWS; // the block that the run ends in
        for (u64 c = blockIdx.y * 32 + lane; c - lane < p.h; c += gridDim.y * 32) {
            float sum = 0.0f;
            if (c < p.h) {
#pragma unroll 4
                for (u64 k = block + group; k <= last; k += GROUPS) {
                    sum += p.sums[(2 * k + (k == block)) * p.h + c];
                }
            }
            group_sums[group][lane] = sum;
            __syncthreads();
            if (group == 0 && c < p.h) {
                float total = 0.0f;
#pragma unroll
                for (u32 k = 0; k < GROUPS; k++) total += group_sums[k][lane];
                put<float>(p.g, static_cast<u64>(p.ids[row.at]) * p.h + c, total, p.add);
            }
            __syncthreads();
        }
    }
}

struct CopyRowsArgs {
    const void* x;
    void* y;
    u64 x_first;
    u64 x_stride;
    u64 y_first;
    u64 y_stride;
    u64 n;
    u64 h;
    u32 packs;
    u32 add;
};
FIPK_ARGS(CopyRowsArgs, 72);

template <class T, int W> FIPK_DEVICE void copy_rows(const CopyRowsArgs& p) {
    const u32 lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const u64 stride = static_cast<u64>(gridDim.x) * warps;
    for (u64 i = static_cast<u64>(blockIdx.x) * warps + threadIdx.x / 32; i < p.n; i += stride) {
        const u64 from = p.x_first + i * p.x_stride, to = p.y_first + i * p.y_stride;
        for (u64 c = lane * W; c < p.h; c += 32 * W) {
            float v[W];
            load_n<T>(v, p.x, from + c);
            put_n<T>(p.y, to + c, v, p.add);
        }
    }
}
template <class T> FIPK_DEVICE void copy_rows_of(const CopyRowsArgs& p) {
    if (p.packs) {
        copy_rows<T, Pack<T>::SIZE>(p);
    } else {
        copy_rows<T, 1>(p);
    }
}
FIPK_KERNEL(copy_rows_f32, CopyRowsArgs, 256) { copy_rows_of<float>(p); }
FIPK_KERNEL(copy_rows_bf16, CopyRowsArgs, 256) { copy_rows_of<bf16>(p); }

struct PositionArgs {
    const void* x; // may be null: zero
    const void* table;
    void* y;
    u64 batch;
    u64 used; // S h elements of the table
    u64 packs;
};
FIPK_ARGS(PositionArgs, 48);

// blockIdx.y strides over the samples.
template <class T> FIPK_DEVICE void add_position(const PositionArgs& p) {
    for (u64 b = blockIdx.y; b < p.batch; b += gridDim.y) {
        const u64 sample = b * p.used;
        over_elements<T>(p.used, p.packs, [&](auto width, u64 i) {
            constexpr int W = decltype(width)::value;
            float sum[W], x[W];
            load_n<T>(sum, p.table, i);
            if (p.x) {
                load_n<T>(x, p.x, sample + i);
#pragma unroll
                for (int k = 0; k < W; k++) sum[k] += x[k];
            }
            store_n<T>(p.y, sample + i, sum);
        });
    }
}
FIPK_KERNEL(add_position_forward_f32, PositionArgs, 256) { add_position<float>(p); }
FIPK_KERNEL(add_position_forward_bf16, PositionArgs, 256) { add_position<bf16>(p); }
