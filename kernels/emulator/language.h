// CUDA's words and built-in types and variables.
#pragma once
#include "emulator/interface.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))

struct alignas(4) uchar4 {
    unsigned char x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};

SIMT_FN uchar4 make_uchar4(unsigned char x, unsigned char y, unsigned char z, unsigned char w) { return {x, y, z, w}; }
SIMT_FN float2 make_float2(float x, float y) { return {x, y}; }
SIMT_FN float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
SIMT_FN double2 make_double2(double x, double y) { return {x, y}; }
SIMT_FN int2 make_int2(int x, int y) { return {x, y}; }
SIMT_FN int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
SIMT_FN uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
SIMT_FN uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
SIMT_FN ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

namespace simt {
// By value, so that reading them is not an access that the checker would see.
SIMT_FN uint3 thread_index() { return place->thread; }
SIMT_FN uint3 block_index() { return place->block; }
SIMT_FN dim3 block_size() { return place->threads; }
SIMT_FN dim3 grid_size() { return place->blocks; }
} // namespace simt
#define threadIdx (::simt::thread_index())
#define blockIdx (::simt::block_index())
#define blockDim (::simt::block_size())
#define gridDim (::simt::grid_size())
#define warpSize 32
