// Numbers in memory: single elements and 16-byte packs of float or bf16, computed with as float.
#pragma once
#include "fipk.cuh"

FIPK_DEVICE float to_float(float x) { return x; }
FIPK_DEVICE float to_float(bf16 x) { return __bfloat162float(x); }

template <class T> FIPK_DEVICE T from_float(float x);
template <> FIPK_DEVICE float from_float<float>(float x) { return x; }
template <> FIPK_DEVICE bf16 from_float<bf16>(float x) { return __float2bfloat16(x); }

template <class T> FIPK_DEVICE float load(const void* base, u64 i) { return to_float(static_cast<const T*>(base)[i]); }
template <class T> FIPK_DEVICE void store(void* base, u64 i, float v) { static_cast<T*>(base)[i] = from_float<T>(v); }

// Store v at i, or add it to what is there.
template <class T> FIPK_DEVICE void put(void* base, u64 i, float v, bool add) {
    store<T>(base, i, add ? load<T>(base, i) + v : v);
}

// As many elements as fit 16 bytes: 4 floats, 8 bf16. `i` counts elements; base + i must be 16-byte aligned.
template <class T> struct Pack {
    static constexpr int SIZE = 16 / static_cast<int>(sizeof(T));
    float v[SIZE];
};

template <class T> FIPK_DEVICE Pack<T> load_pack(const void* base, u64 i);
template <class T> FIPK_DEVICE void store_pack(void* base, u64 i, const Pack<T>& x);

template <> FIPK_DEVICE Pack<float> load_pack<float>(const void* base, u64 i) {
    float4 raw = *reinterpret_cast<const float4*>(static_cast<const float*>(base) + i);
    return {{raw.x, raw.y, raw.z, raw.w}};
}
template <> FIPK_DEVICE void store_pack<float>(void* base, u64 i, const Pack<float>& x) {
    *reinterpret_cast<float4*>(static_cast<float*>(base) + i) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
}
FIPK_DEVICE float bf16_low(u32 pair) { return __uint_as_float(pair << 16); }
FIPK_DEVICE float bf16_high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
FIPK_DEVICE u32 bf16_bits(float x) { return static_cast<u32>(__bfloat16_as_ushort(__float2bfloat16(x))); }
// One instruction on a device, where two roundings and a merge would be three.
FIPK_DEVICE u32 bf16_pair(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    u32 bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}
template <> FIPK_DEVICE Pack<bf16> load_pack<bf16>(const void* base, u64 i) {
    uint4 raw = *reinterpret_cast<const uint4*>(static_cast<const bf16*>(base) + i);
    return {{bf16_low(raw.x), bf16_high(raw.x), bf16_low(raw.y), bf16_high(raw.y), bf16_low(raw.z), bf16_high(raw.z),
             bf16_low(raw.w), bf16_high(raw.w)}};
}
template <> FIPK_DEVICE void store_pack<bf16>(void* base, u64 i, const Pack<bf16>& x) {
    uint4 raw = make_uint4(bf16_pair(x.v[0], x.v[1]), bf16_pair(x.v[2], x.v[3]), bf16_pair(x.v[4], x.v[5]),
                           bf16_pair(x.v[6], x.v[7]));
    *reinterpret_cast<uint4*>(static_cast<bf16*>(base) + i) = raw;
}
