// Weight space as a table of tiles: stretches of one span, of at most TILE floats, that start on a mask's word. A block
// takes tiles by the grid's stride and leaves one partial result a tile, so no sum depends on the grid.
#pragma once
#include "reduce.cuh"
#include "vector.cuh"

constexpr u32 TILE = 4096;
constexpr u32 TILE_DECAYS = 1;
constexpr u32 TILE_PRUNABLE = 2;
// Threads of a block that works on tiles; each takes 4 neighbours at a time.
constexpr u32 THREADS = 256;
constexpr u32 WARPS = THREADS / 32;
// Of a block that finishes what the tiles left.
constexpr u32 LAST_THREADS = 1024;

struct Tile {
    u32 word;  // first float / 32
    u32 len;   // floats, without the padding behind the span
    u32 span;  // which of the layout's
    u32 flags;
};
FIPK_ARGS(Tile, 16);

FIPK_DEVICE u64 first_float(const Tile& t) { return static_cast<u64>(t.word) * 32; }

// |x| as an integer of the same order: zeros equal, NaN largest.
FIPK_DEVICE u32 magnitude_bits(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// Scores have 31 bits, of which the leading 12 are counted first: 8 of the exponent and 4 of the mantissa.
constexpr u32 BUCKETS = 4096;
constexpr u32 FIRST_SHIFT = 19;

// A stretch of a list.
struct Extent {
    u64 base;
    u32 count;
};

// A tile's numbers that go to a list, gathered in shared memory first: one atomic a tile on the list's counter. The
// counter goes on beyond the list's room, so that a reader knows what is missing.
struct Staged {
    u32* values;  // [TILE], shared
    u32* count;   // shared; 0 before the tile
    u64* base;    // shared

    FIPK_DEVICE void push(u32 value) const { values[atomicAdd(count, 1u)] = value; }

    // By all threads of the block; says where the numbers went.
    FIPK_DEVICE Extent flush(u64* counter, u32* list, u64 room) const {
        __syncthreads();
        const u32 n = *count;
        u64 at = 0;
        if (n > 0) {
            if (threadIdx.x == 0) *base = atomicAdd(counter, static_cast<u64>(n));
            __syncthreads();
            at = *base;
            for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
                if (at + i < room) list[at + i] = values[i];
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) *count = 0;
        __syncthreads();
        return {at, n};
    }
};

FIPK_DEVICE void clear_bins(u32* bins) {
    for (u32 i = threadIdx.x; i < BUCKETS; i += blockDim.x) bins[i] = 0;
}
// Add a block's histogram to one in memory. The caller puts a barrier on either side.
FIPK_DEVICE void add_bins(const u32* bins, u32* histogram) {
    for (u32 i = threadIdx.x; i < BUCKETS; i += blockDim.x) {
        if (bins[i] != 0) atomicAdd(&histogram[i], bins[i]);
    }
}
