// The exact projection onto sparse weights: which k of the prunable weights are the smallest, over all of them together
// or in each span (rows and n:m in groups.cu, blocks in blocks.cu), and their zeroing.
//
//     k-th score  radix select over 31 bits, 12 + 10 + 9: histogram, the bucket that holds the k-th, and so on
//     mask        bit i = score i < k-th, or equal to it and early enough by index
//     w = 0       where the bit is set
//
// Launched in this order, with no word from the host in between; the device decides where scores are read from:
//
//     select_start          from the census: the list of magnitudes inside the bracket if it holds the k-th and is whole
//     3 x (select_count, select_pick)
//                           digits of the list; or else of w: the first histogram is the update's if there is a census,
//                           and the second pass over w gathers those that are left into the list, for the third
//     select_mask           bits of what is smaller; per tile the number of equals, sum w^2 over all and over the pruned
//     select_scan           how many equals lie before each tile
//     select_ties           bits of the equals that are taken, in the tiles that have any
//     select_total          the summary
//
// A list that has overflowed is not used: the next pass reads w. The order inside the list does not matter, all sums that
// are not integers are in the tiles' order, so every run gives the same bits.
//
// Parallel over tiles (tiles.cuh). Reads of w, 4 bytes a parameter each, for one segment:
//     census hit                 1 (mask) + the list's share (1 to 2 %, three times) + tiles with ties: below 1.1
//     census missed              2 + the share of a bucket (about 5 %)
//     no census                  3
//     list overflowed            one more; by span always 4
// and 1/8 byte a parameter of mask written. project writes w where pruned, and reads 1/8 byte: no read of w.
// Integer work of about 10 operations a weight: bound by memory. Not yet run on a GPU.
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
            c.source = FROM_LIST;
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
    Control* control;
    u32* list;
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
template <class Score>
FIPK_DEVICE void count(const CountArgs& p, u32* bins, const Staged& staged) {
    // Only the digit that gathers changes `listed`, and it does not read it.
    const bool census = p.control->source == FROM_LIST, gathered = p.digit == 2 && p.by_span == 0;
    const u64 listed = census || gathered ? p.control->listed : 0;
    const bool from_list = census || (gathered && listed <= p.room);
    if (!from_list && p.digit == 0 && p.control->counted != 0) return;
    const u32 last = (1u << p.width) - 1;
    clear_bins(bins);
    if (threadIdx.x == 0) *staged.count = 0;
    __syncthreads();
    if (from_list) {
        const u64 prefix = p.segments[0].prefix;
        const u64 stride = static_cast<u64>(gridDim.x) * blockDim.x;
        for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < listed; i += stride) {
            const u32 s = p.list[i];
            if (s >> p.shift >> p.width == prefix) atomicAdd(&bins[s >> p.shift & last], 1u);
        }
        __syncthreads();
        add_bins(bins, p.histograms);
        return;
    }
    const Score score(p.seed);
    const bool gathers = p.digit == 1 && p.by_span == 0;
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
                if (i + j >= tile.len || s >> p.shift >> p.width != prefix) continue;
                atomicAdd(&bins[s >> p.shift & last], 1u);
                if (gathers) staged.push(s);
            }
        }
        if (gathers) staged.flush(&p.control->listed, p.list, p.room);
    }
    __syncthreads();
    add_bins(bins, p.histograms + static_cast<u64>(segment) * BUCKETS);
}
#define COUNT(name, Score)                                               \
    FIPK_KERNEL(name, CountArgs, 256) {                                  \
        FIPK_SHARED(u32, name##_bins, [BUCKETS]);                        \
        FIPK_SHARED(u32, name##_staged, [TILE]);                         \
        FIPK_SHARED(u32, name##_count, [1]);                             \
        FIPK_SHARED(u64, name##_base, [1]);                              \
        const Staged staged = {name##_staged, name##_count, name##_base}; \
        count<Score>(p, name##_bins, staged);                            \
    }
COUNT(select_count_magnitude, Magnitude)
COUNT(select_count_random, Random)

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

struct MaskArgs {
    const float* w;
    const Tile* tiles;
    const Segment* segments;
    u32* mask;
    Part* parts;        // one a tile
    u32* equal;         // one a tile
    const u64* before;  // equals before each tile; read by select_ties
    u64 seed;
    u32 tile_count;
    u32 by_span;
};
FIPK_ARGS(MaskArgs, 72);

template <class Score> FIPK_DEVICE void mask(const MaskArgs& p, Part* shared) {
    const Score score(p.seed);
    for (u32 t = blockIdx.x; t < p.tile_count; t += gridDim.x) {
        const Tile tile = p.tiles[t];
        const u32 kth = static_cast<u32>(p.segments[p.by_span ? tile.span : 0].prefix);
        Part part = {0.0, 0.0, 0, 0, 0, 0};
        // All threads go round together, for they put words together.
        for (u32 base = 0; base < tile.len; base += 4 * blockDim.x) {
            const u32 i = base + 4 * threadIdx.x;
            const u64 at = first_float(tile) + i;
            u32 nibble = 0;
            if (i < tile.len) {
                const Pack<float> w = load_pack<float>(p.w, at);
#pragma unroll
                for (u32 j = 0; j < 4; ++j) {
                    if (i + j >= tile.len) continue;
                    const u32 s = score(at + j, w.v[j]), magnitude = magnitude_bits(w.v[j]);
                    const double square = static_cast<double>(w.v[j]) * static_cast<double>(w.v[j]);
                    part.squares += square;
                    part.equal += s == kth;
                    if (s < kth) {
                        nibble |= 1u << j;
                        part.gone += square;
                        part.top = magnitude > part.top ? magnitude : part.top;
                    }
                }
            }
            part.less += static_cast<u32>(__popc(nibble));
            const u32 word = word_of(nibble);
            if ((threadIdx.x & 7) == 0 && i < tile.len) p.mask[at / 32] = word;
        }
        part = block_part(part, shared);
        if (threadIdx.x == 0) p.parts[t] = part, p.equal[t] = part.equal;
        __syncthreads();
    }
}
FIPK_KERNEL(select_mask_magnitude, MaskArgs, 256) {
    FIPK_SHARED(Part, mask_magnitude_parts, [WARPS]);
    mask<Magnitude>(p, mask_magnitude_parts);
}
FIPK_KERNEL(select_mask_random, MaskArgs, 256) {
    FIPK_SHARED(Part, mask_random_parts, [WARPS]);
    mask<Random>(p, mask_random_parts);
}

struct ScanArgs {
    const u32* equal;
    u64* before;
    u64 n;
};
FIPK_ARGS(ScanArgs, 24);

// One block: exclusive sums, four neighbours a thread at a time.
FIPK_KERNEL(select_scan, ScanArgs, 1024) {
    FIPK_SHARED(u64, scan_sums, [32]);
    u64 carry = 0;
    for (u64 base = 0; base < p.n; base += 4 * blockDim.x) {
        const u64 at = base + 4 * threadIdx.x;
        u64 v[4], total = 0;
#pragma unroll
        for (u32 j = 0; j < 4; ++j) v[j] = at + j < p.n ? p.equal[at + j] : 0;
        u64 sum = carry + block_scan(v[0] + v[1] + v[2] + v[3], scan_sums, total);
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            if (at + j < p.n) p.before[at + j] = sum;
            sum += v[j];
        }
        carry += total;
    }
}

template <class Score> FIPK_DEVICE void ties(const MaskArgs& p, u32* words, u64* sums, Part* shared) {
    const Score score(p.seed);
    for (u32 t = blockIdx.x; t < p.tile_count; t += gridDim.x) {
        const Tile tile = p.tiles[t];
        const Segment segment = p.segments[p.by_span ? tile.span : 0];
        const u64 take = ties_of(segment, p.before, p.equal, t);
        if (take == 0) continue;
        const u32 kth = static_cast<u32>(segment.prefix);
        for (u32 base = 0; base < tile.len; base += 4 * blockDim.x) {
            const u32 i = base + 4 * threadIdx.x;
            const u64 at = first_float(tile) + i;
            u32 nibble = 0;
            if (i < tile.len) {
                const Pack<float> w = load_pack<float>(p.w, at);
#pragma unroll
                for (u32 j = 0; j < 4; ++j) nibble |= (i + j < tile.len && score(at + j, w.v[j]) == kth) << j;
            }
            const u32 word = word_of(nibble);
            if ((threadIdx.x & 7) == 0) words[i / 32] = word;
        }
        __syncthreads();
        // A word a thread: TILE has fewer than a block has threads.
        const bool mine = threadIdx.x < (tile.len + 31) / 32;
        const u32 word = mine ? words[threadIdx.x] : 0;
        u64 total = 0;
        const u64 earlier = block_scan(static_cast<u64>(__popc(word)), sums, total);
        const u32 taken = lowest_bits(word, take > earlier ? take - earlier : 0);
        Part part = {0.0, 0.0, static_cast<u32>(__popc(taken)), 0, 0, 0};
        if (taken != 0) p.mask[tile.word + threadIdx.x] |= taken;
        for (u32 rest = taken; rest != 0; rest &= rest - 1) {
            const float w = p.w[first_float(tile) + 32 * threadIdx.x + static_cast<u32>(__ffs(static_cast<int>(rest)) - 1)];
            part.gone += static_cast<double>(w) * static_cast<double>(w);
            part.top = magnitude_bits(w) > part.top ? magnitude_bits(w) : part.top;
        }
        part = block_part(part, shared);
        if (threadIdx.x == 0) {
            Part sum = p.parts[t];
            join(sum, part);
            p.parts[t] = sum;
        }
        __syncthreads();
    }
}
#define TIES(name, Score)                                     \
    FIPK_KERNEL(name, MaskArgs, 256) {                        \
        FIPK_SHARED(u32, name##_words, [TILE / 32]);          \
        FIPK_SHARED(u64, name##_sums, [32]);                  \
        FIPK_SHARED(Part, name##_parts, [WARPS]);             \
        ties<Score>(p, name##_words, name##_sums, name##_parts); \
    }
TIES(select_ties_magnitude, Magnitude)
TIES(select_ties_random, Random)

// What the host reads after a choice.
struct Summary {
    u64 pruned;
    double gone, squares;
    u32 top;
    u32 source;
};
FIPK_ARGS(Summary, 32);

struct SelectTotalArgs {
    const Part* parts;
    const Control* control;
    Summary* summary;
    u64 n;
};
FIPK_ARGS(SelectTotalArgs, 32);

// One block, in the tiles' order.
FIPK_KERNEL(select_total, SelectTotalArgs, 1024) {
    FIPK_SHARED(double, total_doubles, [32]);
    FIPK_SHARED(u64, total_words, [32]);
    FIPK_SHARED(u32, total_top, [1]);
    double squares = 0.0, gone = 0.0;
    u64 pruned = 0;
    u32 top = 0;
    for (u64 t = threadIdx.x; t < p.n; t += blockDim.x) {
        const Part part = p.parts[t];
        squares += part.squares, gone += part.gone, pruned += part.less;
        top = part.top > top ? part.top : top;
    }
    if (threadIdx.x == 0) *total_top = 0;
    squares = block_sum(squares, total_doubles);
    gone = block_sum(gone, total_doubles);
    pruned = block_sum(pruned, total_words);
    atomicMax(total_top, top);
    __syncthreads();
    if (threadIdx.x == 0 && blockIdx.x == 0) *p.summary = {pruned, gone, squares, *total_top, p.control->source};
}

struct ProjectArgs {
    float* w;
    bf16* shadow;  // may be null
    const u32* mask;
    u64 words;
};
FIPK_ARGS(ProjectArgs, 32);

// w = 0 where the bit is set; four neighbours a thread. Bits on padding are never set.
FIPK_KERNEL(project_f32, ProjectArgs, 256) {
    const u64 stride = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < 8 * p.words; i += stride) {
        const u32 bits = p.mask[i / 8] >> (4 * (i & 7)) & 15;
        if (bits == 15) {
            store_pack<float>(p.w, 4 * i, {{0.0f, 0.0f, 0.0f, 0.0f}});
        } else {
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                if (bits >> j & 1) p.w[4 * i + j] = 0.0f;
            }
        }
        if (p.shadow != nullptr) {
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                if (bits >> j & 1) store<bf16>(p.shadow, 4 * i + j, 0.0f);
            }
        }
    }
}
