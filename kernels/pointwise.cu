// Element-wise ops: add, and activations with their slopes.
//
// add: y = a + b, and gx (+)= gy.
#include "vector.cuh"

struct AddArgs {
    const void* a;
    const void* b;
    void* y;
    u64 n;
};
FIPK_ARGS(AddArgs, 32);

template <class T> FIPK_DEVICE void add_forward(const AddArgs& p) {
    const u64 stride = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.n; i += stride) {
        store<T>(p.y, i, load<T>(p.a, i) + load<T>(p.b, i));
    }
}
FIPK_KERNEL(add_forward_f32, AddArgs, 256) { add_forward<float>(p); }
FIPK_KERNEL(add_forward_bf16, AddArgs, 256) { add_forward<bf16>(p); }
