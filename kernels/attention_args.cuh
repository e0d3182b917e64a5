// The arguments of attention's kernels, portable and for tensor cores; as in src/ops/attention/cuda.rs.
//
// q, k, v, y and their tangents and cotangents are [B, S, H D], the heads side by side in the last axis; mask is [B, S],
// i32, 0 at a padding key; lse is [B, H, S], f32: log Σ exp of a query's scores, 0 in a sample without a key, where y is 0.
#pragma once
#include "fipk.cuh"

struct Axes {
    u64 seq;
    u32 heads;
    u32 dim;
    u32 column_blocks; // blocks that share the columns of a head
    float scale;       // 1 / √D
};

struct ForwardArgs {
    const void* q;
    const void* k;
    const void* v;
    const int* mask;
    void* y;
    float* lse;
    Axes axes;
};
FIPK_ARGS(ForwardArgs, 72);

struct JvpArgs {
    const void* q;
    const void* k;
    const void* v;
    const int* mask;
    const float* lse;
    const void* dq; // or null, as are dk and dv
    const void* dk;
    const void* dv;
    void* dy;
    Axes axes;
};
FIPK_ARGS(JvpArgs, 96);

// Forward and jvp at once (y and lse are written), or a jvp that reads both.
struct DualArgs {
    const void* q;
    const void* k;
    const void* v;
    const int* mask;
    const void* dq; // or null, as are dk and dv
    const void* dk;
    const void* dv;
    void* y;
    float* lse;
    void* dy;
    Axes axes;
};
FIPK_ARGS(DualArgs, 104);

struct VjpArgs {
    const void* q;
    const void* k;
    const void* v;
    const int* mask;
    const float* lse;
    const void* gy;
    const float* delta; // [B, H, S]: gy y
    void* gq;
    void* gk; // or null, as is gv
    void* gv;
    Axes axes;
    u32 add; // bits: gq, gk, gv is added to
    u32 unused;
};
FIPK_ARGS(VjpArgs, 112);

struct DeltaArgs {
    const void* y;
    const void* gy;
    float* delta;
    u64 rows; // B S H: of D elements each
    u64 seq;
    u32 heads;
    u32 dim;
};
FIPK_ARGS(DeltaArgs, 48);
