// f32 arithmetic that is rounded where it says so: a compiler may neither contract a product and a sum to an fma nor take
// one apart. Where a kernel and the host must agree to the bit, both write the same expression, here in these names; the
// host fuses in the same places on every processor that has the instruction.
#pragma once
#include "fipk.cuh"

FIPK_DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
FIPK_DEVICE float sub(float a, float b) { return __fsub_rn(a, b); }
FIPK_DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
FIPK_DEVICE float quotient(float a, float b) { return __fdiv_rn(a, b); }
FIPK_DEVICE float root(float a) { return __fsqrt_rn(a); }
FIPK_DEVICE float fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }
