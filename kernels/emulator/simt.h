// The language layer for a host compiler: what fipk.cuh includes where nvcc does not compile. A kernel becomes a plain
// function that the engine runs on fibers, one a CUDA thread. docs/emulator.md says what that shows and what it cannot.
#pragma once
#ifndef __CUDACC__

// TMA and wgmma have host twins, so code for sm_90a is compiled too.
#define FIPK_SM90A 1

#include "emulator/interface.h"
#include "emulator/language.h"

#include "emulator/atomics.h"
#include "emulator/collectives.h"
#include "emulator/numbers.h"
#include "emulator/bf16.h"
#include "emulator/ptx.h"

// As fipk.cuh describes them. All threads of a launch read the one copy of their arguments, which none may write.
#define FIPK_KERNEL(name, Args, threads)                                                                        \
    static void name(const Args& p);                                                                            \
    static const ::simt::Registration name##_registration(                                                      \
        #name, [](const void* args) SIMT_UNCHECKED { name(*static_cast<const Args*>(args)); }, sizeof(Args), threads); \
    static void name(const Args& p)
#define FIPK_KERNEL_BLOCKS(name, Args, threads, blocks) FIPK_KERNEL(name, Args, threads)
// Always inlined: the compiler does not instrument structs that are loaded to be passed by value.
#define FIPK_DEVICE inline __attribute__((always_inline))
// A static shared array lives in the engine's block of shared memory, between red zones.
#define FIPK_SHARED(T, name, ...)                                                        \
    typedef T name##_type __VA_ARGS__;                                                   \
    static constexpr ::simt::SharedArray name##_array{#name, sizeof(name##_type)};       \
    name##_type& name = *static_cast<name##_type*>(::simt::shared_array(&name##_array))
#define FIPK_DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(::simt::dynamic_shared())

#endif
