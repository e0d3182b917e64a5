// Barriers, and what warps do together: shuffles, votes, matches, reductions.
#pragma once
#include "emulator/interface.h"

#define __syncthreads() ::simt::sync_block(SIMT_SITE("__syncthreads"))
#define __syncthreads_count(p) ::simt::sync_block_vote(SIMT_SITE("__syncthreads_count"), p, ::simt::COUNT)
#define __syncthreads_and(p) ::simt::sync_block_vote(SIMT_SITE("__syncthreads_and"), p, ::simt::AND)
#define __syncthreads_or(p) ::simt::sync_block_vote(SIMT_SITE("__syncthreads_or"), p, ::simt::OR)
#define __syncwarp ::simt::SyncWarp{SIMT_SITE("__syncwarp")}
#define __activemask() ::simt::active_lanes()
#define __shfl_sync(mask, ...) ::simt::shuffle<::simt::INDEX>(SIMT_SITE("__shfl_sync"), mask, __VA_ARGS__)
#define __shfl_up_sync(mask, ...) ::simt::shuffle<::simt::UP>(SIMT_SITE("__shfl_up_sync"), mask, __VA_ARGS__)
#define __shfl_down_sync(mask, ...) ::simt::shuffle<::simt::DOWN>(SIMT_SITE("__shfl_down_sync"), mask, __VA_ARGS__)
#define __shfl_xor_sync(mask, ...) ::simt::shuffle<::simt::XOR>(SIMT_SITE("__shfl_xor_sync"), mask, __VA_ARGS__)
#define __ballot_sync(mask, p) ::simt::ballot(SIMT_SITE("__ballot_sync"), mask, p)
#define __any_sync(mask, p) (::simt::ballot(SIMT_SITE("__any_sync"), mask, p) != 0)
#define __all_sync(mask, p) (::simt::ballot(SIMT_SITE("__all_sync"), mask, p) == static_cast<unsigned>(mask))
#define __match_any_sync(mask, v) ::simt::match_any(SIMT_SITE("__match_any_sync"), mask, v)
#define __match_all_sync(mask, v, same) ::simt::match_all(SIMT_SITE("__match_all_sync"), mask, v, same)
#define __reduce_add_sync(mask, v) ::simt::reduce<::simt::ADD>(SIMT_SITE("__reduce_add_sync"), mask, v)
#define __reduce_max_sync(mask, v) ::simt::reduce<::simt::MAX>(SIMT_SITE("__reduce_max_sync"), mask, v)
#define __reduce_min_sync(mask, v) ::simt::reduce<::simt::MIN>(SIMT_SITE("__reduce_min_sync"), mask, v)
#define __reduce_and_sync(mask, v) ::simt::reduce<::simt::BIT_AND>(SIMT_SITE("__reduce_and_sync"), mask, v)
#define __reduce_or_sync(mask, v) ::simt::reduce<::simt::BIT_OR>(SIMT_SITE("__reduce_or_sync"), mask, v)
#define __reduce_xor_sync(mask, v) ::simt::reduce<::simt::BIT_XOR>(SIMT_SITE("__reduce_xor_sync"), mask, v)
#define __nanosleep(n) ::simt::poll(SIMT_SITE("__nanosleep"))
#define __trap() ::simt::fail("__trap() at %s:%d", __FILE__, __LINE__)

// One thread runs at a time, so fences need to do nothing; the checker wants to know of them.
#define __threadfence() ::simt::fence()
#define __threadfence_block() ((void)0)
#define __threadfence_system() ::simt::fence()

namespace simt {

struct SyncWarp {
    const Site* site;
    SIMT_UNCHECKED void operator()(unsigned mask = 0xffffffffu) const {
        warp_collective({site, [](void**, unsigned, int) {}, 32, true, false}, mask, nullptr);
    }
};

enum Shuffle { INDEX, UP, DOWN, XOR };

// The lane that `lane` reads from, which is itself where the source lies outside of its part of the warp.
template <Shuffle KIND> SIMT_FN int shuffle_source(int lane, int by, int width) {
    int base = lane & ~(width - 1), end = base + width;
    if (KIND == INDEX) return base + (by & (width - 1));
    if (KIND == UP) return lane - by < base ? lane : lane - by;
    if (KIND == DOWN) return lane + by >= end ? lane : lane + by;
    return (lane ^ by) >= end ? lane : lane ^ by;
}

template <Shuffle KIND, class T> SIMT_FN T shuffle(const Site* site, unsigned mask, T value, int by, int width = 32) {
    static_assert(sizeof(T) <= 16 && std::is_trivially_copyable<T>::value, "what shuffles move");
    struct Arg {
        T value, result;
        int by;
    };
    Arg arg{value, value, by};
    auto op = [](void** args, unsigned mask, int width) SIMT_UNCHECKED {
        for (int lane = 0; lane < 32; lane++) {
            if (!(mask >> lane & 1)) continue;
            Arg* to = static_cast<Arg*>(args[lane]);
            int source = shuffle_source<KIND>(lane, to->by, width);
            if (mask >> source & 1) {
                to->result = static_cast<Arg*>(args[source])->value;
            } else {
                undefined_lane(source, mask);
                memset(static_cast<void*>(&to->result), 0xff, sizeof(T));
            }
        }
    };
    warp_collective({site, op, width, false, false}, mask, &arg);
    return arg.result;
}

// What the lanes of `mask` make of their values together: OP(values by lane, mask) is every lane's result.
template <class R, class T, class OP> SIMT_FN R together(const Site* site, unsigned mask, T value, OP) {
    struct Arg {
        T value;
        R result;
    };
    Arg arg{value, R()};
    auto op = [](void** args, unsigned mask, int) SIMT_UNCHECKED {
        T values[32];
        for (int lane = 0; lane < 32; lane++) {
            if (mask >> lane & 1) values[lane] = static_cast<Arg*>(args[lane])->value;
        }
        for (int lane = 0; lane < 32; lane++) {
            if (mask >> lane & 1) static_cast<Arg*>(args[lane])->result = OP::of(values, mask, lane);
        }
    };
    warp_collective({site, op, 32, false, false}, mask, &arg);
    return arg.result;
}

struct Ballot {
    SIMT_UNCHECKED static unsigned of(const unsigned* set, unsigned mask, int) {
        unsigned lanes = 0;
        for (int i = 0; i < 32; i++) {
            if (mask >> i & 1 && set[i]) lanes |= 1u << i;
        }
        return lanes;
    }
};
SIMT_FN unsigned ballot(const Site* site, unsigned mask, int predicate) {
    return together<unsigned>(site, mask, static_cast<unsigned>(predicate != 0), Ballot());
}

struct MatchAny {
    template <class T> SIMT_UNCHECKED static unsigned of(const T* values, unsigned mask, int lane) {
        unsigned lanes = 0;
        for (int i = 0; i < 32; i++) {
            if (mask >> i & 1 && !memcmp(&values[i], &values[lane], sizeof(T))) lanes |= 1u << i;
        }
        return lanes;
    }
};
template <class T> SIMT_FN unsigned match_any(const Site* site, unsigned mask, T value) {
    return together<unsigned>(site, mask, value, MatchAny());
}
template <class T> SIMT_FN unsigned match_all(const Site* site, unsigned mask, T value, int* same) {
    unsigned lanes = together<unsigned>(site, mask, value, MatchAny());
    *same = lanes == mask;
    return *same ? mask : 0;
}

enum Reduction { ADD, MAX, MIN, BIT_AND, BIT_OR, BIT_XOR };
template <Reduction KIND> struct Reduce {
    template <class T> SIMT_UNCHECKED static T combine(T a, T b) {
        if (KIND == ADD) return static_cast<T>(static_cast<unsigned>(a) + static_cast<unsigned>(b));
        if (KIND == MAX) return a > b ? a : b;
        if (KIND == MIN) return a < b ? a : b;
        if (KIND == BIT_AND) return a & b;
        if (KIND == BIT_OR) return a | b;
        return a ^ b;
    }
    template <class T> SIMT_UNCHECKED static T of(const T* values, unsigned mask, int) {
        int first = __builtin_ctz(mask);
        T result = values[first];
        for (int i = first + 1; i < 32; i++) {
            if (mask >> i & 1) result = combine(result, values[i]);
        }
        return result;
    }
};
template <Reduction KIND, class T> SIMT_FN T reduce(const Site* site, unsigned mask, T value) {
    static_assert(std::is_integral<T>::value && sizeof(T) == 4, "what __reduce_*_sync takes");
    return together<T>(site, mask, value, Reduce<KIND>());
}

} // namespace simt
