// What the kernels that choose the pruned weights share: scores, what is known of a segment's k-th score, and what a
// tile found. The choice is the host's: the k smallest scores, of equal ones the first by index.
#pragma once
#include "philox.cuh"
#include "tiles.cuh"

// Scores of 31 bits: smaller is pruned first.
struct Magnitude {
    static constexpr bool READS = true;  // needs the weight
    FIPK_DEVICE explicit Magnitude(u64) {}
    FIPK_DEVICE u32 operator()(u64, float w) const { return magnitude_bits(w); }
};
struct Random {
    static constexpr bool READS = false;
    u64 seed;
    FIPK_DEVICE explicit Random(u64 seed) : seed(seed) {}
    FIPK_DEVICE u32 operator()(u64 i, float) const { return philox(i, 1ull << 32, seed).v[0] >> 1; }
};

// What is chosen from together: all prunable weights, or one span, or all blocks.
struct Segment {
    u64 k;       // how many are pruned
    u64 prefix;  // the leading bits of the k-th score; all of them in the end
    u64 below;   // scores smaller than all that start so
    u64 first;   // the segment's first tile
};
FIPK_ARGS(Segment, 32);

// Where a choice over one segment reads its scores from, decided on the device.
struct Control {
    u64 listed;   // numbers in the list, or that would be if it had room
    u32 source;   // FROM_WEIGHTS, by way of the sifted list; or FROM_CENSUS
    u32 counted;  // whether the update's histogram stands
};
FIPK_ARGS(Control, 16);
constexpr u32 FROM_WEIGHTS = 0;
constexpr u32 FROM_CENSUS = 1;
// What is sifted out is a weight's place in its tile, 12 bits, above the bits of its score that are not yet known.
constexpr u32 SIFTED_BITS = (1u << FIRST_SHIFT) - 1;
static_assert(static_cast<u64>(TILE) << FIRST_SHIFT <= 1ull << 32, "a place in a tile and a score share a word");

// A sum of about 106 bits: the rounding errors of `high`, added up (Knuth's two-sum). Rounded to f64 in the end it is
// the same in whatever order it was added up, short of one case in 2^40. The way a choice takes (census, sifted list,
// weights) decides that order, and a resumed run may take another way than an unbroken one.
struct Precise {
    double high, low;

    FIPK_DEVICE void add(double x) {
        const double sum = high + x, back = sum - high;
        low += (high - (sum - back)) + (x - back);
        high = sum;
    }
    FIPK_DEVICE void add(const Precise& x) {
        add(x.high);
        low += x.low;
    }
    // Of an infinity the error is no number.
    FIPK_DEVICE double value() const { return high - high == 0.0 ? high + low : high; }
};

// In every lane, in an order that is the same for each.
FIPK_DEVICE Precise warp_sum(Precise v) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
        const Precise other = {__shfl_xor_sync(0xffffffffu, v.high, step), __shfl_xor_sync(0xffffffffu, v.low, step)};
        v.add(other);
    }
    return v;
}

// What a tile adds to the summary.
struct Part {
    double squares;  // sum w^2 over all
    Precise gone;    // over the pruned
    u32 less;              // pruned
    u32 equal;             // equal to the k-th score
    u32 top;               // the largest pruned magnitude
    u32 reserved;
};
FIPK_ARGS(Part, 40);

FIPK_DEVICE u32 warp_top(u32 v) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
        const u32 other = __shfl_xor_sync(0xffffffffu, v, step);
        v = v > other ? v : other;
    }
    return v;
}

FIPK_DEVICE void join(Part& a, const Part& b) {
    a.squares += b.squares;
    a.gone.add(b.gone);
    a.less += b.less, a.equal += b.equal;
    a.top = a.top > b.top ? a.top : b.top;
}

// The block's parts as one, in thread 0 and in the order of warps. `shared` holds a part a warp, and is free
// again after the caller's next barrier.
FIPK_DEVICE Part block_part(Part v, Part* shared) {
    v.squares = warp_sum(v.squares), v.gone = warp_sum(v.gone);
    v.less = warp_sum(v.less), v.equal = warp_sum(v.equal), v.top = warp_top(v.top);
    if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (u32 i = 1; i < blockDim.x / 32; ++i) join(v, shared[i]);
    }
    return v;
}

// One bit of four neighbours a thread, put together to the word that eight threads share.
FIPK_DEVICE u32 word_of(u32 nibble) {
    u32 word = nibble << (4 * (threadIdx.x & 7));
#pragma unroll
    for (int step = 4; step > 0; step >>= 1) word |= __shfl_xor_sync(0xffffffffu, word, step);
    return word;
}

// Inclusive sum over the warp's lanes.
FIPK_DEVICE u64 warp_scan(u64 v) {
    const u32 lane = threadIdx.x & 31;
#pragma unroll
    for (u32 step = 1; step < 32; step <<= 1) {
        const u64 other = __shfl_up_sync(0xffffffffu, v, step);
        if (lane >= step) v += other;
    }
    return v;
}

// Sum of v over the threads before this one; `total` gets the sum of all. `shared` holds 32. Ends in a barrier.
FIPK_DEVICE u64 block_scan(u64 v, u64* shared, u64& total) {
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    const u64 inclusive = warp_scan(v);
    if (lane == 31) shared[warp] = inclusive;
    __syncthreads();
    const u64 sums = warp_scan(lane < warps ? shared[lane] : 0);
    total = __shfl_sync(0xffffffffu, sums, warps - 1);
    const u64 before = __shfl_sync(0xffffffffu, sums, warp == 0 ? 0 : warp - 1);
    __syncthreads();
    return inclusive - v + (warp == 0 ? 0 : before);
}

// Which of a word's bits that are set is the lowest.
FIPK_DEVICE u32 lowest_bit(u32 word) { return static_cast<u32>(__ffs(static_cast<int>(word)) - 1); }

// The lowest n of a word's bits that are set.
FIPK_DEVICE u32 lowest_bits(u32 word, u64 n) {
    u32 taken = 0;
    for (u64 i = 0; i < n && word != 0; ++i) {
        taken |= word & (0u - word);
        word &= word - 1;
    }
    return taken;
}

// How many of its scores equal to the k-th tile t of a segment prunes: those of the tiles before it come first.
FIPK_DEVICE u64 ties_of(const Segment& s, const u64* before, const u32* equal, u64 t) {
    const u64 wanted = s.k - s.below, earlier = before[t] - before[s.first];
    const u64 left = wanted > earlier ? wanted - earlier : 0;
    return left < equal[t] ? left : equal[t];
}
