// The exact choice of the k smallest of the prunable weights, over all of them together or in each span: what the k-th
// score is (here), and which weights that prunes (mask.cu). Rows and n:m are in groups.cu, blocks in blocks.cu.
//
//     k-th score  radix select over 31 bits, 12 + 10 + 9: histogram, the bucket that holds the k-th, and so on
//     mask        bit i = score i < k-th, or equal to it and early enough by index
//
// Launched in this order, with no word from the host in between; the device decides where scores are read from, and a
// kernel that has nothing to do ends at once:
//
//     select_start            the census decides if its bracket holds the k-th and its list is whole
//     select_count, _pick     leading digit: of the census' list; or the update's histogram; or of w
//     select_sift             unless the census decides, and over one segment: bits of what lies in lower buckets, and
//                             a list of the weights in the bucket of the k-th, tile by tile
//     2 x select_count, _pick other digits: of the list, or of w where the list has overflowed and for spans
//     select_mask             bits of the rest: of the sifted list; or of all, from w
//     select_scan             how many equals lie before each tile
//     select_ties             bits of the equals that are taken, in the tiles that have any
//     select_total            the summary
//
// The order inside a list does not matter; sums that are not of integers are in the order of weights and tiles: every
// run gives the same bits.
//
// Parallel over tiles (tiles.cuh), 16-byte loads, histograms and lists privatised in shared memory. Reads of w, 4 bytes
// a parameter each, where a bracket of 1 % holds about 2 % and a bucket about 5 % of the weights:
//     census hit              1 (mask) and 3 of its list: 1.1
//     census missed           1 (sift), the sifted list written and read three times: 1.2
//     no census               2.2
//     sifted list overflowed  3 more; span by span always 4
// with tiles that hold equals once more, and 1/8 byte a parameter of mask. About 10 integer operations a weight: bound
// by memory. Not yet run on a GPU.
#include "select.cuh"

struct StartArgs {
    Control* control;
    Segment* segments;
    const u64* census;  // below, inside; null without one
    u64 room;
};
FIPK_ARGS(StartArgs, 32);

// One thread. Where the choice is not over one segment of magnitudes, there is no census.
FIPK_KERNEL(select_start, StartArgs, 32) {
    if (threadIdx.x != 0 || blockIdx.x != 0) return;
    Control c = {0, FROM_WEIGHTS, 0};
    if (p.census != nullptr) {
        const u64 below = p.census[0], inside = p.census[1], k = p.segments[0].k;
        c.counted = 1;
        if (below < k && k <= below + inside && inside <= p.room) {
            c.source = FROM_CENSUS;
            c.listed = inside;
            p.segments[0].below = below;
        }
    }
    *p.control = c;
}

struct CountArgs {
    const float* w;
    const Tile* tiles;
    const Segment* segments;
    const Control* control;
    const u32* list;
    u32* histograms;  // BUCKETS a segment
    u64 seed;
    u64 room;
    u32 tile_count;
    u32 by_span;  // a segment a span, or one for all
    u32 shift;    // the digit's
    u32 width;
    u32 digit;  // 0, 1, 2
    u32 reserved;
};
FIPK_ARGS(CountArgs, 88);

// A block takes a run of tiles, so that it seldom changes the segment.
template <class Score> FIPK_DEVICE void count(const CountArgs& p, u32* bins) {
    const bool census = p.control->source == FROM_CENSUS;
    const bool sifted = p.digit > 0 && p.by_span == 0 && p.control->listed <= p.room;
    if (!census && p.digit == 0 && p.control->counted != 0) return;
    const u32 last = (1u << p.width) - 1;
    clear_bins(bins);
    __syncthreads();
    if (census || sifted) {
        // Sifted ones all start with the leading digit, and have something else in its place.
        const u32 bits = census ? 0x7fffffffu : SIFTED_BITS;
        const u32 prefix = static_cast<u32>(p.segments[0].prefix) & bits >> p.shift >> p.width;
        const u64 listed = p.control->listed, stride = static_cast<u64>(gridDim.x) * blockDim.x;
        for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < listed; i += stride) {
            const u32 s = p.list[i] & bits;
            if (s >> p.shift >> p.width == prefix) atomicAdd(&bins[s >> p.shift & last], 1u);
        }
        __syncthreads();
        add_bins(bins, p.histograms);
        return;
    }
    const Score score(p.seed);
    const u32 run = (p.tile_count + gridDim.x - 1) / gridDim.x;
    const u32 start = blockIdx.x * run < p.tile_count ? blockIdx.x * run : p.tile_count;
    const u32 end = p.tile_count - start < run ? p.tile_count : start + run;
    u32 segment = 0;
    for (u32 t = start; t < end; ++t) {
        const Tile tile = p.tiles[t];
        const u32 mine = p.by_span ? tile.span : 0;
        if (mine != segment) {
            __syncthreads();
            add_bins(bins, p.histograms + static_cast<u64>(segment) * BUCKETS);
            __syncthreads();
            clear_bins(bins);
            __syncthreads();
            segment = mine;
        }
        const u64 prefix = p.segments[segment].prefix;
        for (u32 i = 4 * threadIdx.x; i < tile.len; i += 4 * blockDim.x) {
            const u64 at = first_float(tile) + i;
            Pack<float> w = {{0.0f, 0.0f, 0.0f, 0.0f}};
            if (Score::READS) w = load_pack<float>(p.w, at);
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                const u32 s = score(at + j, w.v[j]);
                if (i + j < tile.len && s >> p.shift >> p.width == prefix) atomicAdd(&bins[s >> p.shift & last], 1u);
            }
        }
    }
    __syncthreads();
    add_bins(bins, p.histograms + static_cast<u64>(segment) * BUCKETS);
}
FIPK_KERNEL(select_count_magnitude, CountArgs, 256) {
    FIPK_SHARED(u32, magnitude_bins, [BUCKETS]);
    count<Magnitude>(p, magnitude_bins);
}
FIPK_KERNEL(select_count_random, CountArgs, 256) {
    FIPK_SHARED(u32, random_bins, [BUCKETS]);
    count<Random>(p, random_bins);
}

struct PickArgs {
    Segment* segments;
    const Control* control;
    u32* histograms;            // left at zero for the next digit
    const u32* update_counted;  // the update's histogram, for the first digit; null without one
    u32 width;
    u32 reserved;
};
FIPK_ARGS(PickArgs, 40);

// A block a segment: the bucket in which the k-th score lies.
FIPK_KERNEL(select_pick, PickArgs, 256) {
    FIPK_SHARED(u64, scan_shared, [32]);
    constexpr u32 EACH = BUCKETS / THREADS;
    Segment* const segment = p.segments + blockIdx.x;
    u32* const own = p.histograms + static_cast<u64>(blockIdx.x) * BUCKETS;
    const bool theirs = p.update_counted != nullptr && p.control->source == FROM_WEIGHTS && p.control->counted != 0;
    const u64 prefix = segment->prefix << p.width, below = segment->below, k = segment->k;
    u32 counts[EACH];
    u64 sum = 0;
#pragma unroll
    for (u32 i = 0; i < EACH; ++i) {
        const u32 bin = threadIdx.x * EACH + i;
        counts[i] = theirs ? p.update_counted[bin] : own[bin];
        own[bin] = 0;
        sum += counts[i];
    }
    u64 total = 0;
    // The scan's barriers stand between all reads of the segment and the one write.
    u64 smaller = below + block_scan(sum, scan_shared, total);
    if (k == 0) {
        if (threadIdx.x == 0) segment->prefix = prefix;  // the bits of zero, and nothing is smaller
        return;
    }
    if (smaller >= k || smaller + sum < k) return;
#pragma unroll
    for (u32 i = 0; i < EACH; ++i) {
        if (smaller < k && smaller + counts[i] >= k) {
            segment->prefix = prefix | (threadIdx.x * EACH + i);
            segment->below = smaller;
        }
        smaller += counts[i];
    }
}
