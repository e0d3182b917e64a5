// Convolutions by tensor cores in bf16 (conv2d.cuh): tiles of 64 x 128, 32 x 32 a warp by mma.sync, 32 terms a slice, sums
// in f32.
//
// A slice is 24 gathered loads and 16 mma a thread, some 200 instructions where FMAs would be 1024: bound by the gather. Two
// blocks fit a multiprocessor. Not yet run on a GPU.
#include "conv2d.cuh"
#include "ptx.cuh"

// Shared memory has terms innermost, as bf16, 8 numbers of room after each row, so that the 8 rows of a
// fragment lie in distinct banks.
struct MmaTile {
    typedef bf16 Type;
    static constexpr int ROWS = 64, COLUMNS = 128, DEPTH = 32;
    static constexpr int LINE = DEPTH + 8, A = ROWS * LINE, B = COLUMNS * LINE;
    static constexpr int RESULTS = COLUMNS + 8; // of a row of results
    static constexpr int FLOATS = ROWS * RESULTS;
    static_assert(A + B <= FLOATS, "two buffers of slices fit, then the results");

    float* shared;
    float sum[2][4][4]; // of 16 x 8 fragments, 2 x 4 a warp

    FIPK_DEVICE explicit MmaTile(float* memory) : shared(memory) {
#pragma unroll
        for (int m = 0; m < 2; m++) {
#pragma unroll
            for (int n = 0; n < 4; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) sum[m][n][i] = 0.0f;
            }
        }
    }
    // Of this warp.
    static FIPK_DEVICE int row() { return threadIdx.x / 128 * 32; }
    static FIPK_DEVICE int column() { return threadIdx.x / 32 % 4 * 32; }

    FIPK_DEVICE bf16* a(int buffer) const { return reinterpret_cast<bf16*>(shared) + buffer * A; }
    FIPK_DEVICE bf16* b(int buffer) const { return reinterpret_cast<bf16*>(shared) + 2 * A + buffer * B; }

    FIPK_DEVICE void put_a(int buffer, int k, int row, bf16 v) const { a(buffer)[row * LINE + k] = v; }
    FIPK_DEVICE void put_b(int buffer, int k, int column, bf16 v) const { b(buffer)[column * LINE + k] = v; }
    template <int N> FIPK_DEVICE void put_column(int buffer, int k, int column, const bf16 (&v)[N]) const {
        static_assert(N % 8 == 0, "packs of 16 bytes");
        const auto pair = [&](int n) {
            return static_cast<u32>(__bfloat16_as_ushort(v[n])) | static_cast<u32>(__bfloat16_as_ushort(v[n + 1])) << 16;
        };
#pragma unroll
        for (int n = 0; n < N; n += 8) {
            *reinterpret_cast<uint4*>(b(buffer) + column * LINE + k + n) =
                make_uint4(pair(n), pair(n + 2), pair(n + 4), pair(n + 6));
        }
    }

    FIPK_DEVICE void multiply(int buffer) {
        const int lane = threadIdx.x % 32;
        const bf16* left = a(buffer) + (row() + lane % 16) * LINE + lane / 16 * 8;
        const bf16* right = b(buffer) + (column() + lane / 16 * 8 + lane % 8) * LINE + lane / 8 % 2 * 8;
#pragma unroll
        for (int k = 0; k < DEPTH; k += 16) {
            u32 of_a[2][4], of_b[2][4];
#pragma unroll
            for (int m = 0; m < 2; m++) ldmatrix_x4(of_a[m], left + m * 16 * LINE + k);
#pragma unroll
            for (int n = 0; n < 2; n++) ldmatrix_x4(of_b[n], right + n * 16 * LINE + k);
#pragma unroll
            for (int m = 0; m < 2; m++) {
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    const u32 both[2] = {of_b[n / 2][n % 2 * 2], of_b[n / 2][n % 2 * 2 + 1]};
                    mma_bf16(sum[m][n], of_a[m], both);
                }
            }
        }
    }

    FIPK_DEVICE int lay_results() const {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int m = 0; m < 2; m++) {
#pragma unroll
            for (int n = 0; n < 4; n++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int r = row() + 16 * m + 8 * half + lane / 4, c = column() + 8 * n + lane % 4 * 2;
                    *reinterpret_cast<float2*>(shared + r * RESULTS + c) =
                        make_float2(sum[m][n][2 * half], sum[m][n][2 * half + 1]);
                }
            }
        }
        return RESULTS;
    }
};

CONV2D(64, 128, bf16, MmaTile)
