// Atomics. One thread runs at a time, so they are plain code that the checker is told about.
#pragma once
#include "emulator/interface.h"

namespace simt {
template <class T, class F> SIMT_FN T update(T* at, F f) {
    atomic(at, sizeof(T));
    T old = *at;
    *at = f(old);
    return old;
}
template <class T> struct Same {
    typedef T type;
};
// A value that converts to what the address holds, as an overload of CUDA's would.
template <class T> using Value = typename Same<T>::type;
} // namespace simt

template <class T> SIMT_FN T atomicAdd(T* at, simt::Value<T> v) {
    static_assert(std::is_floating_point<T>::value || std::is_unsigned<T>::value || std::is_same<T, int>::value,
                  "what atomicAdd takes");
    return simt::update(at, [=](T old) SIMT_UNCHECKED { return static_cast<T>(old + v); });
}
template <class T> SIMT_FN T atomicSub(T* at, simt::Value<T> v) {
    return simt::update(at, [=](T old) SIMT_UNCHECKED { return static_cast<T>(old - v); });
}
template <class T> SIMT_FN T atomicMax(T* at, simt::Value<T> v) {
    static_assert(std::is_integral<T>::value, "what atomicMax takes");
    return simt::update(at, [=](T old) SIMT_UNCHECKED { return old > v ? old : v; });
}
template <class T> SIMT_FN T atomicMin(T* at, simt::Value<T> v) {
    static_assert(std::is_integral<T>::value, "what atomicMin takes");
    return simt::update(at, [=](T old) SIMT_UNCHECKED { return old < v ? old : v; });
}
template <class T> SIMT_FN T atomicExch(T* at, simt::Value<T> v) {
    return simt::update(at, [=](T) SIMT_UNCHECKED { return v; });
}
template <class T> SIMT_FN T atomicOr(T* at, simt::Value<T> v) {
    return simt::update(at, [=](T old) SIMT_UNCHECKED { return static_cast<T>(old | v); });
}
template <class T> SIMT_FN T atomicAnd(T* at, simt::Value<T> v) {
    return simt::update(at, [=](T old) SIMT_UNCHECKED { return static_cast<T>(old & v); });
}
template <class T> SIMT_FN T atomicXor(T* at, simt::Value<T> v) {
    return simt::update(at, [=](T old) SIMT_UNCHECKED { return static_cast<T>(old ^ v); });
}
template <class T> SIMT_FN T atomicCAS(T* at, simt::Value<T> expected, simt::Value<T> v) {
    return simt::update(at, [=](T old) SIMT_UNCHECKED { return old == expected ? v : old; });
}
SIMT_FN unsigned atomicInc(unsigned* at, unsigned most) {
    return simt::update(at, [=](unsigned old) SIMT_UNCHECKED { return old >= most ? 0u : old + 1; });
}
