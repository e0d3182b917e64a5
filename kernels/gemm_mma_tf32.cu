// Matrix products of f32, rounded to tf32, on tensor cores by mma.sync: gemm_mma.cuh.
#include "gemm_mma.cuh"

GEMM_MMA(nt, tf32, float, true, true)
GEMM_MMA(nn, tf32, float, true, false)
GEMM_MMA(tn, tf32, float, false, false)
GEMM_DUAL(tf32, float, 64x64, DualSmall, 3)
GEMM_DUAL(tf32, float, 128x128, DualLarge, 1)
GEMM_REVERSE(tf32, float, 64x64, Small, 3)
GEMM_REVERSE(tf32, float, 128x128, Medium, 2)
