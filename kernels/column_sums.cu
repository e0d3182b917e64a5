// sums[j] (+)= Σ_i x[i][j]: a bias's gradient from x [rows, columns], f32 or bf16; sums are f32.
//
// Two stages in a fixed order, without atomics. First, a block sums 32 columns of one part of the rows: its 8 warps
// take every eighth row each, a column a lane, and are added up in order. Then a thread a column adds the parts up.
//
// rows x columns FLOPs; x is read once, 4 (or 2) bytes an element; the parts are at most 1/64 of it. Not yet run on a
// GPU.
#include "vector.cuh"

constexpr int WARPS = 8;

struct ColumnSumsArgs {
    const void* x;
    float* partial; // [parts, columns]
    float* sums;
    u64 rows;
    u64 columns;
    u64 rows_a_part;
    u32 parts;
    u32 add;
};
FIPK_ARGS(ColumnSumsArgs, 56);

template <class T> FIPK_DEVICE void column_sums(const ColumnSumsArgs& p) {
    FIPK_SHARED(float, sums, [WARPS][32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u64 column = static_cast<u64>(blockIdx.x) * 32 + lane;
    const u64 begin = blockIdx.y * p.rows_a_part, rest = p.rows - begin;
    const u64 end = begin + (rest < p.rows_a_part ? rest : p.rows_a_part);
    float sum = 0.0f;
    if (column < p.columns) {
        for (u64 row = begin + warp; row < end; row += WARPS) sum += load<T>(p.x, row * p.columns + column);
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= p.columns) return;
#pragma unroll
    for (int other = 1; other < WARPS; other++) sum += sums[other][lane];
    p.partial[blockIdx.y * p.columns + column] = sum;
}
FIPK_KERNEL(column_sums_f32, ColumnSumsArgs, 256) { column_sums<float>(p); }
FIPK_KERNEL(column_sums_bf16, ColumnSumsArgs, 256) { column_sums<bf16>(p); }

FIPK_KERNEL(column_sums_finish, ColumnSumsArgs, 256) {
    const u64 column = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (column >= p.columns) return;
    float sum = 0.0f;
    for (u32 part = 0; part < p.parts; part++) sum += p.partial[part * p.columns + column];
    put<float>(p.sums, column, sum, p.add);
}
