// Mathematics and bits.
#pragma once
#include "emulator/interface.h"

// Loads and stores with a cache hint.
#define __ldg(at) (*(at))
#define __ldcs(at) (*(at))
#define __ldcg(at) (*(at))
#define __ldca(at) (*(at))
#define __stcs(at, v) (*(at) = (v))
#define __stcg(at, v) (*(at) = (v))

// CUDA has these for every pair of arithmetic types.
template <class A, class B> constexpr typename std::common_type<A, B>::type max(A a, B b) { return a > b ? a : b; }
template <class A, class B> constexpr typename std::common_type<A, B>::type min(A a, B b) { return a < b ? a : b; }

SIMT_FN float rsqrtf(float x) { return 1.0f / sqrtf(x); }
SIMT_FN double rsqrt(double x) { return 1.0 / sqrt(x); }
SIMT_FN float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752440f); }

// The fast ones are macros, because glibc's <math.h> declares functions of these names.
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __powf(x, y) powf(x, y)
#define __fdividef(x, y) ((x) / (y))
#define __frcp_rn(x) (1.0f / (x))
#define __fsqrt_rn(x) sqrtf(x)
#define __frsqrt_rn(x) (1.0f / sqrtf(x))
#define __fmaf_rn(x, y, z) fmaf(x, y, z)
#define __fadd_rn(x, y) ((x) + (y))
#define __fsub_rn(x, y) ((x) - (y))
#define __fmul_rn(x, y) ((x) * (y))
#define __fdiv_rn(x, y) ((x) / (y))
#define __float2int_rn(x) static_cast<int>(lrintf(x))
#define __float2int_rz(x) static_cast<int>(x)
#define __float2int_rd(x) static_cast<int>(floorf(x))
#define __float2uint_rz(x) static_cast<unsigned>(x)
#define __int2float_rn(x) static_cast<float>(x)
#define __uint2float_rn(x) static_cast<float>(x)
#define __dadd_rn(x, y) ((x) + (y))
#define __dmul_rn(x, y) ((x) * (y))
#define __fma_rn(x, y, z) fma(x, y, z)
SIMT_FN float __saturatef(float x) { return x >= 0 ? (x > 1 ? 1 : x) : 0; }

namespace simt {
template <class To, class From> SIMT_FN To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits of one size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
} // namespace simt
SIMT_FN int __float_as_int(float x) { return simt::bits<int>(x); }
SIMT_FN float __int_as_float(int x) { return simt::bits<float>(x); }
SIMT_FN unsigned __float_as_uint(float x) { return simt::bits<unsigned>(x); }
SIMT_FN float __uint_as_float(unsigned x) { return simt::bits<float>(x); }
SIMT_FN long long __double_as_longlong(double x) { return simt::bits<long long>(x); }
SIMT_FN double __longlong_as_double(long long x) { return simt::bits<double>(x); }

SIMT_FN int __popc(unsigned x) { return __builtin_popcount(x); }
SIMT_FN int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
SIMT_FN int __ffs(int x) { return __builtin_ffs(x); }
SIMT_FN int __ffsll(long long x) { return __builtin_ffsll(x); }
SIMT_FN int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
SIMT_FN int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
SIMT_FN unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (x >> i & 1) << (31 - i);
    return r;
}
SIMT_FN unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }
SIMT_FN int __mulhi(int a, int b) { return static_cast<int>(static_cast<int64_t>(a) * b >> 32); }
SIMT_FN unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
SIMT_FN unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31) >> 32);
}
SIMT_FN unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}
SIMT_FN unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned pick = selector >> (4 * i) & 15, byte = static_cast<unsigned>(both >> (8 * (pick & 7))) & 255;
        if (pick & 8) byte = byte & 128 ? 255 : 0; // the sign, replicated
        r |= byte << (8 * i);
    }
    return r;
}
