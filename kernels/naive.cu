// Judges: what faster kernels must agree with, an element of the result a thread, summed in f64 in the order of k.
//
// gemm_naive: c [m, n] (+)= a b (+ bias [n]), each operand f32 or bf16 and with any strides; c is contiguous.
// 2 m n k FLOPs, in f64. Speed is no concern. Not yet run on a GPU.
#include "vector.cuh"

struct NaiveGemmArgs {
    const void* a;
    const void* b;
    void* c;
    const float* bias; // or null
    u64 m;
    u64 n;
    u64 k;
    u64 a_row;
    u64 a_column;
    u64 b_row;
    u64 b_column;
    u32 bf16; // bits: a, b, c is bf16
    u32 add;
};
FIPK_ARGS(NaiveGemmArgs, 96);

FIPK_DEVICE double load_either(const void* base, u64 i, bool is_bf16) {
    return is_bf16 ? load<bf16>(base, i) : load<float>(base, i);
}

FIPK_KERNEL(gemm_naive, NaiveGemmArgs, 256) {
    const u64 stride = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.m * p.n; i += stride) {
        const u64 row = i / p.n, column = i % p.n;
        double sum = p.bias ? p.bias[column] : 0.0f;
        if (p.add) sum += load_either(p.c, i, p.bf16 & 4);
        for (u64 k = 0; k < p.k; k++) {
            const double a = load_either(p.a, row * p.a_row + k * p.a_column, p.bf16 & 1);
            sum += a * load_either(p.b, k * p.b_row + column * p.b_column, p.bf16 & 2);
        }
        if (p.bf16 & 4) {
            store<bf16>(p.c, i, static_cast<float>(sum));
        } else {
            store<float>(p.c, i, static_cast<float>(sum));
        }
    }
}
