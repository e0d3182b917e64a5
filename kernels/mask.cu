// Which weights a k-th score prunes, and their zeroing: the second half of project.cu's choice, which says how the
// kernels follow one another and what they read.
//
//     mask      bit i = score i < k-th, or equal to it and early enough by index
//     summary   how many, the largest pruned magnitude, sum w^2 over all and over the pruned, in f64
//     w = 0     where the bit is set: writes 4 bytes where pruned (2 more of the bf16 copy), reads 1/8: no read of w
//
// Parallel over tiles: four neighbours a thread, whose bits eight threads put together to a word; one part a tile.
// Not yet run on a GPU.
#include "select.cuh"

struct MaskArgs {
    const float* w;
    const Tile* tiles;
    const Segment* segments;
    u32* mask;
    Part* parts;  // one a tile
    u32* equal;   // one a tile: how many equal the k-th; before that, how many were sifted out
    u64* before;  // one a tile: how many equals lie before it; before that, where what was sifted begins in the list
    Control* control;
    u32* list;
    u64 seed;
    u64 room;
    u32 tile_count;
    u32 by_span;
};
FIPK_ARGS(MaskArgs, 96);

// A tile from w: bits of the weights whose scores are below `bound`, and what they add up to; equals are counted. To
// sift is to look at the leading digit alone, and to gather the equals.
template <class Score, bool SIFT>
FIPK_DEVICE Part mask_tile(const MaskArgs& p, const Score& score, const Tile& tile, u32 bound, const Staged& staged) {
    constexpr u32 SHIFT = SIFT ? FIRST_SHIFT : 0;
    Part part = {};
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
                if (s >> SHIFT < bound) {
                    nibble |= 1u << j;
                    part.gone.add(square);
                    part.top = magnitude > part.top ? magnitude : part.top;
                }
                if (s >> SHIFT == bound) {
                    part.equal += 1;
                    if (SIFT) staged.push((i + j) << FIRST_SHIFT | (s & SIFTED_BITS));
                }
            }
        }
        part.less += static_cast<u32>(__popc(nibble));
        const u32 word = word_of(nibble);
        if ((threadIdx.x & 7) == 0 && i < tile.len) p.mask[at / 32] = word;
    }
    return part;
}

// Bits of what lies in lower buckets than the k-th, and a list of what lies in its bucket.
template <class Score> FIPK_DEVICE void sift(const MaskArgs& p, const Staged& staged, Part* shared) {
    if (p.control->source == FROM_CENSUS) return;
    const Score score(p.seed);
    const u32 bucket = static_cast<u32>(p.segments[0].prefix);
    if (threadIdx.x == 0) *staged.count = 0;
    __syncthreads();
    for (u32 t = blockIdx.x; t < p.tile_count; t += gridDim.x) {
        const Part part = block_part(mask_tile<Score, true>(p, score, p.tiles[t], bucket, staged), shared);
        const Extent extent = staged.flush(&p.control->listed, p.list, p.room);
        if (threadIdx.x == 0) p.parts[t] = part, p.equal[t] = extent.count, p.before[t] = extent.base;
    }
}
#define SIFT(name, Score)                                                 \
    FIPK_KERNEL(name, MaskArgs, 256) {                                    \
        FIPK_SHARED(u32, name##_staged, [TILE]);                          \
        FIPK_SHARED(u32, name##_count, [1]);                              \
        FIPK_SHARED(u64, name##_base, [1]);                               \
        FIPK_SHARED(Part, name##_parts, [WARPS]);                         \
        const Staged staged = {name##_staged, name##_count, name##_base}; \
        sift<Score>(p, staged, name##_parts);                             \
    }
SIFT(select_sift_magnitude, Magnitude)
SIFT(select_sift_random, Random)

// A tile's share of the sifted list: bits of the smaller ones, and what they add up to, in the order of their index. No
// weight is read for it where the score is its magnitude.
template <class Score>
FIPK_DEVICE Part settle_tile(const MaskArgs& p, const Tile& tile, u32 t, u32 kth, u32* words, u32* lows) {
    Part part = {};
    const u32 n = p.equal[t];
    const u64 base = p.before[t];
    if (threadIdx.x < TILE / 32) words[threadIdx.x] = 0;
    __syncthreads();
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        const u32 entry = p.list[base + i], local = entry >> FIRST_SHIFT, low = entry & SIFTED_BITS;
        part.equal += low == (kth & SIFTED_BITS);
        if (low < (kth & SIFTED_BITS)) {
            lows[local] = low;
            atomicOr(&words[local / 32], 1u << (local % 32));
        }
    }
    __syncthreads();
    const u32 word = threadIdx.x < TILE / 32 ? words[threadIdx.x] : 0;
    if (word != 0) p.mask[tile.word + threadIdx.x] |= word;
    part.less = static_cast<u32>(__popc(word));
    for (u32 rest = word; rest != 0; rest &= rest - 1) {
        const u32 local = 32 * threadIdx.x + lowest_bit(rest);
        const u32 score = (kth & ~SIFTED_BITS) | lows[local];
        const float w = Score::READS ? __uint_as_float(score) : p.w[first_float(tile) + local];
        part.gone.add(static_cast<double>(w) * static_cast<double>(w));
        part.top = magnitude_bits(w) > part.top ? magnitude_bits(w) : part.top;
    }
    return part;
}

template <class Score> FIPK_DEVICE void mask(const MaskArgs& p, u32* words, u32* lows, Part* shared) {
    const Score score(p.seed);
    const Staged none = {nullptr, nullptr, nullptr};
    const bool sifted = p.control->source == FROM_WEIGHTS && p.by_span == 0 && p.control->listed <= p.room;
    for (u32 t = blockIdx.x; t < p.tile_count; t += gridDim.x) {
        const Tile tile = p.tiles[t];
        const u32 kth = static_cast<u32>(p.segments[p.by_span ? tile.span : 0].prefix);
        Part part = sifted ? settle_tile<Score>(p, tile, t, kth, words, lows)
                           : mask_tile<Score, false>(p, score, tile, kth, none);
        part = block_part(part, shared);
        if (threadIdx.x == 0) {
            p.equal[t] = part.equal;
            if (sifted) join(part, p.parts[t]);
            p.parts[t] = part;
        }
        __syncthreads();
    }
}
#define MASK(name, Score)                                        \
    FIPK_KERNEL(name, MaskArgs, 256) {                           \
        FIPK_SHARED(u32, name##_words, [TILE / 32]);             \
        FIPK_SHARED(u32, name##_lows, [TILE]);                   \
        FIPK_SHARED(Part, name##_parts, [WARPS]);                \
        mask<Score>(p, name##_words, name##_lows, name##_parts); \
    }
MASK(select_mask_magnitude, Magnitude)
MASK(select_mask_random, Random)

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
        Part part = {};
        part.less = static_cast<u32>(__popc(taken));
        if (taken != 0) p.mask[tile.word + threadIdx.x] |= taken;
        for (u32 rest = taken; rest != 0; rest &= rest - 1) {
            const float w = p.w[first_float(tile) + 32 * threadIdx.x + lowest_bit(rest)];
            part.gone.add(static_cast<double>(w) * static_cast<double>(w));
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
    FIPK_SHARED(Precise, total_gone, [32]);
    double squares = 0.0;
    Precise gone = {0.0, 0.0};
    u64 pruned = 0;
    u32 top = 0;
    for (u64 t = threadIdx.x; t < p.n; t += blockDim.x) {
        const Part part = p.parts[t];
        squares += part.squares, pruned += part.less;
        gone.add(part.gone);
        top = part.top > top ? part.top : top;
    }
    if (threadIdx.x == 0) *total_top = 0;
    squares = block_sum(squares, total_doubles);
    gone = block_sum(gone, total_gone);
    pruned = block_sum(pruned, total_words);
    atomicMax(total_top, top);
    __syncthreads();
    if (threadIdx.x == 0 && blockIdx.x == 0) *p.summary = {pruned, gone.value(), squares, *total_top, p.control->source};
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
