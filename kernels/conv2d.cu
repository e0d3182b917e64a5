// Convolutions by FMAs in f32 (conv2d.cuh): tiles of 64 x 64, 32 x 128 and 16 x 256, four by four sums a thread, 16 terms a
// slice, as floats.
//
// A warp's step of one term takes 3 cycles (64 x 64) to 5 (16 x 256) of shared memory and 4 of FMAs on paper; a slice adds 4
// (8, 16) gathered loads a thread to its 256 FMAs, mostly from L1 since kh kw taps read the same pixels: bound by FMAs. Two
// blocks fit a multiprocessor. Not yet run on a GPU.
#include "conv2d.cuh"
#include "quad.cuh"

// Shared memory has rows (columns) innermost, as floats.
template <int HEIGHT, int WIDTH> struct FmaTile {
    typedef float Type;
    static constexpr int ROWS = HEIGHT, COLUMNS = WIDTH, DEPTH = 16;
    static constexpr int ACROSS = COLUMNS / 4; // threads beside each other
    static constexpr int A = DEPTH * ROWS, B = DEPTH * COLUMNS;
    // Two buffers of slices; then the results.
    static constexpr int FLOATS = 2 * (A + B);
    static_assert(ROWS * COLUMNS == 16 * THREADS && FLOATS >= ROWS * COLUMNS, "four by four sums a thread");

    float* shared;
    float sum[4][4];

    FIPK_DEVICE explicit FmaTile(float* memory) : shared(memory) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) sum[i][j] = 0.0f;
        }
    }
    static FIPK_DEVICE int row() { return threadIdx.x / ACROSS * 4; }
    static FIPK_DEVICE int column() { return threadIdx.x % ACROSS * 4; }

    // Where a warp writes 16 lines at a time, to distinct banks by fours; groups of four stay together.
    template <int EXTENT> static FIPK_DEVICE int swizzled(int k, int i) {
        return k * EXTENT + (i ^ k % (EXTENT < 32 ? EXTENT / 4 : 8) * 4);
    }
    FIPK_DEVICE float* a(int buffer) const { return shared + buffer * A; }
    FIPK_DEVICE float* b(int buffer) const { return shared + 2 * A + buffer * B; }

    FIPK_DEVICE void put_a(int buffer, int k, int row, float v) const { a(buffer)[swizzled<ROWS>(k, row)] = v; }
    FIPK_DEVICE void put_b(int buffer, int k, int column, float v) const { b(buffer)[swizzled<COLUMNS>(k, column)] = v; }
    // Terms k, k + 1, .. of a column.
    template <int N> FIPK_DEVICE void put_column(int buffer, int k, int column, const float (&v)[N]) const {
#pragma unroll
        for (int n = 0; n < N; n++) put_b(buffer, k + n, column, v[n]);
    }

    FIPK_DEVICE void multiply(int buffer) {
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            const Quad left = load_quad<float>(a(buffer) + swizzled<ROWS>(k, row()), 0);
            const Quad right = load_quad<float>(b(buffer) + swizzled<COLUMNS>(k, column()), 0);
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] = fmaf(left.v[i], right.v[j], sum[i][j]);
            }
        }
    }

    // Put the sums into shared memory, which is free by now, and say how far apart its rows are.
    FIPK_DEVICE int lay_results() const {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            store_quad<float>(shared, (row() + i) * COLUMNS + column(), {{sum[i][0], sum[i][1], sum[i][2], sum[i][3]}});
        }
        return COLUMNS;
    }
};

CONV2D(64, 64, f32, FmaTile<64, 64>)
CONV2D(32, 128, f32, FmaTile<32, 128>)
CONV2D(16, 256, f32, FmaTile<16, 256>)
