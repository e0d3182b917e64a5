// Walks over tensors in 16-byte steps where they allow it: the same loop body for a pack of elements and for one.
#pragma once
#include "vector.cuh"

// The number of elements that a step takes, as a type.
template <int N> struct Width {
    static constexpr int value = N;
};

// W elements of T from base + i: one, or whole packs (base + i is then aligned to 16 bytes).
template <class T, int W> FIPK_DEVICE void load_n(float (&v)[W], const void* base, u64 i) {
    if constexpr (W == 1) {
        v[0] = load<T>(base, i);
    } else {
        constexpr int SIZE = Pack<T>::SIZE;
        static_assert(W % SIZE == 0, "whole packs");
#pragma unroll
        for (int k = 0; k < W; k += SIZE) {
            Pack<T> pack = load_pack<T>(base, i + k);
#pragma unroll
            for (int j = 0; j < SIZE; j++) v[k + j] = pack.v[j];
        }
    }
}

template <class T, int W> FIPK_DEVICE void store_n(void* base, u64 i, const float (&v)[W]) {
    if constexpr (W == 1) {
        store<T>(base, i, v[0]);
    } else {
        constexpr int SIZE = Pack<T>::SIZE;
        static_assert(W % SIZE == 0, "whole packs");
#pragma unroll
        for (int k = 0; k < W; k += SIZE) {
            Pack<T> pack;
#pragma unroll
            for (int j = 0; j < SIZE; j++) pack.v[j] = v[k + j];
            store_pack<T>(base, i + k, pack);
        }
    }
}

// Store v, or add it to what is there.
template <class T, int W> FIPK_DEVICE void put_n(void* base, u64 i, const float (&v)[W], bool add) {
    float sum[W];
    if (add) load_n<T, W>(sum, base, i);
#pragma unroll
    for (int k = 0; k < W; k++) sum[k] = add ? sum[k] + v[k] : v[k];
    store_n<T, W>(base, i, sum);
}

// The bits of W elements from one place to another.
template <class T, int W> FIPK_DEVICE void copy_n(void* to, u64 i, const void* from, u64 j) {
    if constexpr (W == 1) {
        static_cast<T*>(to)[i] = static_cast<const T*>(from)[j];
    } else {
        static_assert(W * sizeof(T) == 16, "one pack");
        *reinterpret_cast<uint4*>(static_cast<T*>(to) + i) =
            *reinterpret_cast<const uint4*>(static_cast<const T*>(from) + j);
    }
}

// Whether packs can be read at these bases.
FIPK_DEVICE bool aligned(const void* a, const void* b = nullptr, const void* c = nullptr) {
    return ((reinterpret_cast<u64>(a) | reinterpret_cast<u64>(b) | reinterpret_cast<u64>(c)) & 15) == 0;
}

// Elements 0..n over the whole grid. With `packs` every base is aligned to 16 bytes, and body(Width<W>, i) takes whole
// packs of T; what is left at the end, or everything, goes one by one.
template <class T, class F> FIPK_DEVICE void over_elements(u64 n, bool packs, F body) {
    constexpr int W = Pack<T>::SIZE;
    const u64 first = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    const u64 stride = static_cast<u64>(gridDim.x) * blockDim.x;
    const u64 whole = packs ? n / W : 0;
    for (u64 k = first; k < whole; k += stride) body(Width<W>{}, k * W);
    for (u64 i = whole * W + first; i < n; i += stride) body(Width<1>{}, i);
}

// Elements 0..cols of the row that begins `start` elements after an aligned base, over a block: one by one up to the
// first whole pack, then packs, then the rest, so that rows of odd length are read in packs too.
template <class T, class F> FIPK_DEVICE void over_row(u64 start, u64 cols, bool packs, F body) {
    constexpr int W = Pack<T>::SIZE;
    const u64 ahead = packs ? (W - start % W) % W : cols;
    const u64 head = ahead < cols ? ahead : cols;
    const u64 whole = (cols - head) / W;
    for (u64 c = threadIdx.x; c < head; c += blockDim.x) body(Width<1>{}, c);
    for (u64 k = threadIdx.x; k < whole; k += blockDim.x) body(Width<W>{}, head + k * W);
    for (u64 c = head + whole * W + threadIdx.x; c < cols; c += blockDim.x) body(Width<1>{}, c);
}
