// Four neighbouring numbers in memory: what a thread of a register-blocked kernel owns of a row.
#pragma once
#include "vector.cuh"

struct Quad {
    float v[4];
};

// i counts elements; base + i is aligned to four of them (16 bytes of float, 8 of bf16).
template <class T> FIPK_DEVICE Quad load_quad(const void* base, u64 i);
template <class T> FIPK_DEVICE void store_quad(void* base, u64 i, const Quad& x);

template <> FIPK_DEVICE Quad load_quad<float>(const void* base, u64 i) {
    float4 raw = *reinterpret_cast<const float4*>(static_cast<const float*>(base) + i);
    return {{raw.x, raw.y, raw.z, raw.w}};
}
template <> FIPK_DEVICE void store_quad<float>(void* base, u64 i, const Quad& x) {
    *reinterpret_cast<float4*>(static_cast<float*>(base) + i) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
}
template <> FIPK_DEVICE Quad load_quad<bf16>(const void* base, u64 i) {
    uint2 raw = *reinterpret_cast<const uint2*>(static_cast<const bf16*>(base) + i);
    return {{bf16_low(raw.x), bf16_high(raw.x), bf16_low(raw.y), bf16_high(raw.y)}};
}
template <> FIPK_DEVICE void store_quad<bf16>(void* base, u64 i, const Quad& x) {
    uint2 raw = make_uint2(bf16_pair(x.v[0], x.v[1]), bf16_pair(x.v[2], x.v[3]));
    *reinterpret_cast<uint2*>(static_cast<bf16*>(base) + i) = raw;
}

// Whether `count` elements at every multiple of `count` of every row are aligned together, rows standing ld apart.
template <class T> FIPK_DEVICE bool rows_aligned(const void* base, u64 ld, int count) {
    return reinterpret_cast<u64>(base) % (sizeof(T) * count) == 0 && ld % count == 0;
}

// The four elements at i, of which the first `valid` exist; the others are 0.
template <class T> FIPK_DEVICE Quad load_quad(const void* base, u64 i, u64 valid, bool aligned) {
    if (aligned && valid >= 4) return load_quad<T>(base, i);
    Quad x;
#pragma unroll
    for (int j = 0; j < 4; j++) x.v[j] = j < valid ? load<T>(base, i + j) : 0.0f;
    return x;
}

// Store the first `valid` of four elements at i, or add them to what is there.
template <class T> FIPK_DEVICE void put_quad(void* base, u64 i, Quad x, u64 valid, bool aligned, bool add) {
    if (aligned && valid >= 4) {
        if (add) {
            Quad old = load_quad<T>(base, i);
#pragma unroll
            for (int j = 0; j < 4; j++) x.v[j] += old.v[j];
        }
        return store_quad<T>(base, i, x);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (j < valid) put<T>(base, i + j, x.v[j], add);
    }
}
