// bf16 and half, as plain bits with conversions. All is inlined into checked code: GCC does not instrument the
// load of a struct that is passed by value.
#pragma once
#include "emulator/numbers.h"

#define SIMT_VALUE static inline __attribute__((always_inline))

struct alignas(2) __nv_bfloat16_raw {
    unsigned short x;
};
struct alignas(2) __nv_bfloat16 {
    unsigned short bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

// To nearest, ties to even; a NaN becomes the one that the device makes.
SIMT_VALUE __nv_bfloat16 __float2bfloat16(float x) {
    unsigned u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {static_cast<unsigned short>((u + 0x7fffu + (u >> 16 & 1)) >> 16)};
}
#define __float2bfloat16_rn __float2bfloat16
SIMT_VALUE float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
SIMT_VALUE unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
SIMT_VALUE __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return {x}; }
SIMT_VALUE __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16(x), __float2bfloat16(y)}; }
SIMT_VALUE __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
SIMT_VALUE __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
SIMT_VALUE float2 __bfloat1622float2(__nv_bfloat162 v) { return {__bfloat162float(v.x), __bfloat162float(v.y)}; }
SIMT_VALUE float __low2float(__nv_bfloat162 v) { return __bfloat162float(v.x); }
SIMT_VALUE float __high2float(__nv_bfloat162 v) { return __bfloat162float(v.y); }

struct alignas(2) __half {
    unsigned short bits;
};
struct alignas(4) __half2 {
    __half x, y;
};

SIMT_VALUE float __half2float(__half h) {
    unsigned sign = (h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31, mantissa = h.bits & 1023u;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent > 0) return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
    float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -subnormal : subnormal;
}
SIMT_VALUE __half __float2half(float x) {
    unsigned u = __float_as_uint(x), sign = u >> 16 & 0x8000u, size = u & 0x7fffffffu;
    unsigned h;
    if (size > 0x7f800000u) {
        return {0x7fff};
    } else if (size >= 0x477ff000u) {
        h = 0x7c00u;
    } else if (size < 0x38800000u) {
        h = static_cast<unsigned>(nearbyintf(__uint_as_float(size) * 0x1p24f));
    } else {
        h = (size - 0x38000000u + 0xfffu + (size >> 13 & 1)) >> 13;
    }
    return {static_cast<unsigned short>(sign | h)};
}
#define __float2half_rn __float2half
SIMT_VALUE unsigned short __half_as_ushort(__half x) { return x.bits; }
SIMT_VALUE __half __ushort_as_half(unsigned short x) { return {x}; }
SIMT_VALUE __half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
SIMT_VALUE float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
