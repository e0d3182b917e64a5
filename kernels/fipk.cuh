// The language layer: the one header that every kernel includes, for nvcc and for the emulator alike.
//
// A kernel is written once:
//
//     struct AddArgs { const void* a; const void* b; void* y; u64 n; };
//     FIPK_ARGS(AddArgs, 32);
//     template <class T> FIPK_DEVICE void add_forward(const AddArgs& p) { .. }
//     FIPK_KERNEL(add_forward_f32, AddArgs, 256) { add_forward<float>(p); }
//     FIPK_KERNEL(add_forward_bf16, AddArgs, 256) { add_forward<bf16>(p); }
//
// nvcc makes an `extern "C"` kernel of it that takes the struct by value; the host compiler makes a function that
// the emulator runs, one fiber a thread. Arguments are one struct of plain words, without padding inside, whose size both
// sides assert. Inline PTX stands in ptx.cuh alone.
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// A kernel's definition: its name, the struct it takes as `p`, and the threads of a block (the most it may have).
#define FIPK_KERNEL(name, Args, threads) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Args p)
// The same, its registers kept so few that `blocks` blocks fit a multiprocessor together.
#define FIPK_KERNEL_BLOCKS(name, Args, threads, blocks) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Args p)
// A function of kernels.
#define FIPK_DEVICE __device__ __forceinline__
// An array in shared memory: FIPK_SHARED(float, tile, [16][17]). Names are unique within a file.
#define FIPK_SHARED(T, name, ...) __shared__ __align__(16) T name __VA_ARGS__
// The launch's dynamic shared memory, aligned to 1024 bytes.
extern __shared__ __align__(1024) unsigned char fipk_dynamic_[];
#define FIPK_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(fipk_dynamic_)
// Code that only sm_90a has (wgmma, TMA).
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FIPK_SM90A 1
#else
#define FIPK_SM90A 0
#endif

#else
#include "emulator/simt.h" // defines the same macros for the host compiler
#endif

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef __nv_bfloat16 bf16;

// The size of an argument struct, as the launching side has it.
#define FIPK_ARGS(Args, bytes) static_assert(sizeof(Args) == (bytes), #Args " differs from the launching side's")
