// sums[part][j] = Σ_i x[i][j] over the rows of a part: the first stage of a bias's gradient, of which sum_rows is the
// second. x [rows, columns] is f32 or bf16; sums [parts, columns] are f32.
//
// A block sums 32 columns of one part: its 8 warps take every eighth row each, a column a lane, and are added up in
// order, so that there are no atomics and every sum's order is fixed.
//
// rows x columns FLOPs; x is read once, 4 or 2 bytes an element; the sums are at most 1/64 of it. Not yet run on a GPU.
#include "vector.cuh"

constexpr int WARPS = 8;

struct ColumnSumsArgs {
    const void* x;
    float* sums; // [parts, columns]
    u64 rows;
    u64 columns;
    u64 rows_a_part;
};
FIPK_ARGS(ColumnSumsArgs, 40);

template <class T> FIPK_DEVICE void column_sums(const ColumnSumsArgs& p) {
    FIPK_SHARED(float, of_warp, [WARPS][32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u64 column = static_cast<u64>(blockIdx.x) * 32 + lane;
    const u64 begin = blockIdx.y * p.rows_a_part, rest = p.rows - begin;
    const u64 end = begin + (rest < p.rows_a_part ? rest : p.rows_a_part);
    float sum = 0.0f;
    if (column < p.columns) {
        for (u64 row = begin + warp; row < end; row += WARPS) sum += load<T>(p.x, row * p.columns + column);
    }
    of_warp[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= p.columns) return;
#pragma unroll
    for (int other = 1; other < WARPS; other++) sum += of_warp[other][lane];
    p.sums[blockIdx.y * p.columns + column] = sum;
}
FIPK_KERNEL(column_sums_f32, ColumnSumsArgs, 256) { column_sums<float>(p); }
FIPK_KERNEL(column_sums_bf16, ColumnSumsArgs, 256) { column_sums<bf16>(p); }
