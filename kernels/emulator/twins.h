// What does the work of the wrappers' host twins: tensor_cores.cpp, copies.cpp, mbarrier.cpp and wgmma.cpp.
#pragma once
#include "emulator/interface.h"

// As the device's, opaque to kernels: Emulator::tensor_map in src/gpu/emulator.rs writes the words.
struct alignas(64) TensorMap {
    unsigned long long words[16];
};

namespace simt {

typedef unsigned long long Word;

struct Mma {
    float* d;
    const unsigned *a, *b;
};
void mma_bf16(void** args, unsigned mask, int width);
void mma_tf32(void** args, unsigned mask, int width);
void ldmatrix(const Site*, unsigned* r, const void* row, int matrices, bool transposed);

void cp_async(const Site*, void* to, const void* from, size_t bytes, bool take);
void cp_async_commit();
void cp_async_wait(int most);

void mbarrier_init(const Site*, Word* bar, int count);
// Arrive, and expect so many bytes.
void mbarrier_arrive(const Site*, Word* bar, int bytes);
bool mbarrier_try_wait(const Site*, Word* bar, int parity);
void fence_proxy_async();

void tma_load_2d(const Site*, void* to, const TensorMap*, Word* bar, int x, int y);
void tma_store_2d(const Site*, const TensorMap*, const void* from, int x, int y);
void tma_store_commit();
void tma_store_wait(int most);
void bulk_load(const Site*, void* to, const void* from, int bytes, Word* bar);

// Where an operand lies, and whether m or n runs along its rows.
struct Operand {
    Word word;
    bool turned;
    bool operator==(const Operand& o) const { return word == o.word && turned == o.turned; }
};
Word wgmma_operand(const void*, int next);
void wgmma_fence();
void wgmma(const Site*, float* d, int n, Operand a, Operand b, bool add);
void wgmma_commit();
void wgmma_wait(const Site*, int most);
void set_registers(const Site*, int count);

} // namespace simt
