// Matrix products of bf16 on tensor cores by mma.sync: gemm_mma.cuh.
#include "gemm_mma.cuh"

GEMM_MMA(nt, bf16, bf16, true, true)
GEMM_MMA(nn, bf16, bf16, true, false)
GEMM_MMA(tn, bf16, bf16, false, false)
GEMM_DUAL(bf16, bf16, 64x64, DualSmall, 3)
GEMM_DUAL(bf16, bf16, 128x128, DualLarge, 1)
GEMM_REVERSE(bf16, bf16, 64x64, Small, 3)
GEMM_REVERSE(bf16, bf16, 128x128, Medium, 2)
