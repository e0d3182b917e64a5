// Pruning inside groups of neighbours: each row of a matrix by itself, and n:m; and the summary of any mask.
//
//     bit i = #{j in i's group: (score j, j) < (score i, i)} < k
//
// Groups of up to 32 (n:m, short rows): a thread a weight counts how many of its group come before it, in the first
// cache, and a warp puts the 32 answers together to a word. Longer rows: a block a row, radix select over 31 bits in
// four digits of 8, 8, 8 and 7 with the histogram in shared memory, the row in the first cache after the first; then
// equals in the order of their index. Rows may share a word of the mask, so their bits are put there by an atomic or.
//
// Bytes a parameter: w once from memory, 4 (rows above 128 KB: once a digit and once for the bits), then 4 and 1/4 of
// mask for the summary. Not yet run on a GPU.
#include "groups.cuh"

struct GroupArgs {
    const float* w;
    const Tile* tiles;
    const Plane* planes;  // one a prunable span
    u32* mask;            // all zero before
    u64 seed;
    u64 rows;  // of all planes together
    u32 tile_count;
    u32 plane_count;
};
FIPK_ARGS(GroupArgs, 56);

// Planes whose groups are longer than a warp are left to select_rows.
template <class Score> FIPK_DEVICE void groups(const GroupArgs& p) {
    const Score score(p.seed);
    for (u32 t = blockIdx.x; t < p.tile_count; t += gridDim.x) {
        const Tile tile = p.tiles[t];
        const Plane plane = p.planes[tile.span];
        if (plane.cols > 32) continue;
        for (u32 base = 0; base < tile.len; base += blockDim.x) {
            const u32 i = base + threadIdx.x;
            bool pruned = false;
            if (i < tile.len) {
                const u64 at = first_float(tile) + i, inside = (at - plane.at) % plane.cols, group = at - inside;
                const u32 own = score(at, p.w[at]);
                u64 rank = 0;
                for (u64 j = 0; j < plane.cols; ++j) {
                    const u32 other = score(group + j, p.w[group + j]);
                    rank += other < own || (other == own && j < inside);
                }
                pruned = rank < plane.k;
            }
            const u32 word = __ballot_sync(0xffffffffu, pruned);
            if ((threadIdx.x & 31) == 0 && i < tile.len) p.mask[tile.word + i / 32] = word;
        }
    }
}
FIPK_KERNEL(select_groups_magnitude, GroupArgs, 256) { groups<Magnitude>(p); }
FIPK_KERNEL(select_groups_random, GroupArgs, 256) { groups<Random>(p); }

template <class Score> FIPK_DEVICE void rows(const GroupArgs& p, u32* bins, u64* sums, u32* found) {
    const Score score(p.seed);
    for (u64 r = blockIdx.x; r < p.rows; r += gridDim.x) {
        const Plane plane = p.planes[plane_of(p.planes, p.plane_count, r)];
        const u64 start = plane.at + (r - plane.first) * plane.cols, end = start + plane.cols;
        if (plane.k == 0) continue;
        u32 prefix = 0;
        u64 left = plane.k, total = 0;  // how many are still to be found among those that start so
        for (u32 digit = 0; digit < 4; ++digit) {
            const u32 width = digit == 3 ? 7 : 8, shift = digit == 3 ? 0 : 23 - 8 * digit;
            bins[threadIdx.x] = 0;
            __syncthreads();
            for (u64 i = start + threadIdx.x; i < end; i += blockDim.x) {
                const u32 s = score(i, p.w[i]);
                if (s >> shift >> width == prefix) atomicAdd(&bins[s >> shift & ((1u << width) - 1)], 1u);
            }
            __syncthreads();
            const u64 own = bins[threadIdx.x], smaller = block_scan(own, sums, total);
            if (smaller < left && smaller + own >= left) found[0] = threadIdx.x, found[1] = static_cast<u32>(smaller);
            __syncthreads();
            prefix = prefix << width | found[0];
            left -= found[1];
        }
        // Of the equals the first `left`; a block's width at a time, so that their order is that of the threads.
        u64 seen = 0;
        const u64 word_start = start / 32 * 32;
        for (u64 base = word_start; base < end; base += blockDim.x) {
            const u64 i = base + threadIdx.x;
            const bool mine = i >= start && i < end;
            const u32 s = mine ? score(i, p.w[i]) : 0;
            const bool equal = mine && s == prefix;
            const u64 rank = seen + block_scan(equal ? 1 : 0, sums, total);
            seen += total;
            const u32 word = __ballot_sync(0xffffffffu, (mine && s < prefix) || (equal && rank < left));
            if ((threadIdx.x & 31) == 0 && word != 0) atomicOr(&p.mask[i / 32], word);
        }
    }
}
#define ROWS(name, Score)                                   \
    FIPK_KERNEL(name, GroupArgs, 256) {                     \
        FIPK_SHARED(u32, name##_bins, [256]);               \
        FIPK_SHARED(u64, name##_sums, [32]);                \
        FIPK_SHARED(u32, name##_found, [2]);                \
        rows<Score>(p, name##_bins, name##_sums, name##_found); \
    }
ROWS(select_rows_magnitude, Magnitude)
ROWS(select_rows_random, Random)

struct SummaryArgs {
    const float* w;
    const Tile* tiles;
    const u32* mask;
    Part* parts;
    u64 tile_count;
};
FIPK_ARGS(SummaryArgs, 40);

// What a mask prunes, tile by tile.
FIPK_KERNEL(select_summary, SummaryArgs, 256) {
    FIPK_SHARED(Part, summary_parts, [WARPS]);
    for (u32 t = blockIdx.x; t < p.tile_count; t += gridDim.x) {
        const Tile tile = p.tiles[t];
        Part part = {};
        for (u32 i = 4 * threadIdx.x; i < tile.len; i += 4 * blockDim.x) {
            const u64 at = first_float(tile) + i;
            const Pack<float> w = load_pack<float>(p.w, at);
            const u32 bits = p.mask[at / 32] >> (i & 31);
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                // Padding is zero.
                const u32 magnitude = magnitude_bits(w.v[j]);
                const double square = static_cast<double>(w.v[j]) * static_cast<double>(w.v[j]);
                part.squares += square;
                if (bits >> j & 1) {
                    part.gone.add(square);
                    part.less += 1;
                    part.top = magnitude > part.top ? magnitude : part.top;
                }
            }
        }
        part = block_part(part, summary_parts);
        if (threadIdx.x == 0) p.parts[t] = part;
        __syncthreads();
    }
}
