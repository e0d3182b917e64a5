// Pruning whole blocks of matrices by their Euclidean norm, over all prunable matrices together.
//
//     norm2 b = sum over the block's lines of sum w^2, in f64 and in the host's order: bit-equal, so that the masks are
//     blocks    the k smallest of their bits, as integers; of equal ones the first
//     mask      bit i = i's block is one of them
//
// A thread a block for norms, then a radix select over 64 bits in six digits of 12 (the last of 4) with project.cu's
// select_pick, choice and ties as in mask.cu over runs of `tile` blocks, then a warp a word of the mask. A block at an
// edge is as large as fits.
//
// Bytes a parameter: w 4 once (blocks of full sectors), 8/area for the norm and 8 times that read again, 1/8 of mask,
// and the summary's 4.1. Not yet run on a GPU.
#include "groups.cuh"

struct BlockArgs {
    const float* w;
    const Tile* tiles;
    const Plane* planes;
    const Segment* segment;
    u64* scores;      // one a block
    u32* chosen;      // a bit a block
    u32* mask;        // a bit a weight
    u32* histogram;   // of a digit
    u32* equal;       // one a run of blocks
    const u64* before;
    u64 seed;
    u64 blocks;
    u32 tile_count;
    u32 plane_count;
    u32 tile;  // blocks of a run, a multiple of 32
    u32 shift;
    u32 width;
    u32 reserved;
};
FIPK_ARGS(BlockArgs, 120);

// As the host's dot product of a line with itself: 8 lanes, then the lanes, then what is left over.
FIPK_DEVICE double line_squares(const float* x, u64 n) {
    double lanes[8] = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}, tail = 0.0, sum = 0.0;
    const u64 whole = n / 8 * 8;
    for (u64 i = 0; i < whole; i += 8) {
#pragma unroll
        for (u32 j = 0; j < 8; ++j) lanes[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
    }
    for (u64 i = whole; i < n; ++i) tail += static_cast<double>(x[i]) * static_cast<double>(x[i]);
#pragma unroll
    for (u32 j = 0; j < 8; ++j) sum += lanes[j];
    return sum + tail;
}

FIPK_DEVICE u64 block_thread() { return static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; }
FIPK_DEVICE u64 block_stride() { return static_cast<u64>(gridDim.x) * blockDim.x; }

FIPK_KERNEL(blocks_score_magnitude, BlockArgs, 256) {
    for (u64 b = block_thread(); b < p.blocks; b += block_stride()) {
        const Plane plane = p.planes[plane_of(p.planes, p.plane_count, b)];
        const u64 row = (b - plane.first) / plane.across * plane.height;
        const u64 col = (b - plane.first) % plane.across * plane.width;
        const u64 lines = plane.rows - row < plane.height ? plane.rows - row : plane.height;
        const u64 width = plane.cols - col < plane.width ? plane.cols - col : plane.width;
        double squares = 0.0;
        for (u64 r = 0; r < lines; ++r) squares += line_squares(p.w + plane.at + (row + r) * plane.cols + col, width);
        p.scores[b] = static_cast<u64>(__double_as_longlong(squares));
    }
}
FIPK_KERNEL(blocks_score_random, BlockArgs, 256) {
    const Random score(p.seed);
    for (u64 b = block_thread(); b < p.blocks; b += block_stride()) p.scores[b] = score(b, 0.0f);
}

FIPK_KERNEL(blocks_count, BlockArgs, 256) {
    FIPK_SHARED(u32, block_bins, [BUCKETS]);
    const u64 prefix = p.segment->prefix;
    clear_bins(block_bins);
    __syncthreads();
    for (u64 b = block_thread(); b < p.blocks; b += block_stride()) {
        const u64 s = p.scores[b];
        // A shift by all 64 bits is not defined, so in two.
        if (s >> p.shift >> p.width == prefix) atomicAdd(&block_bins[s >> p.shift & ((1u << p.width) - 1)], 1u);
    }
    __syncthreads();
    add_bins(block_bins, p.histogram);
}

// Bits of the blocks with smaller scores, and the equals of each run.
FIPK_KERNEL(blocks_choose, BlockArgs, 256) {
    FIPK_SHARED(u32, choose_sums, [32]);
    const u64 kth = p.segment->prefix, runs = (p.blocks + p.tile - 1) / p.tile;
    for (u64 t = blockIdx.x; t < runs; t += gridDim.x) {
        u32 equal = 0;
        for (u32 base = 0; base < p.tile; base += blockDim.x) {
            const u64 b = t * p.tile + base + threadIdx.x;
            const bool mine = base + threadIdx.x < p.tile && b < p.blocks;
            const u64 s = mine ? p.scores[b] : 0;
            equal += mine && s == kth;
            const u32 word = __ballot_sync(0xffffffffu, mine && s < kth);
            if (mine && (threadIdx.x & 31) == 0) p.chosen[b / 32] = word;
        }
        equal = block_sum(equal, choose_sums);
        if (threadIdx.x == 0) p.equal[t] = equal;
    }
}

FIPK_KERNEL(blocks_ties, BlockArgs, 256) {
    FIPK_SHARED(u64, ties_sums, [32]);
    const Segment segment = *p.segment;
    const u64 runs = (p.blocks + p.tile - 1) / p.tile;
    for (u64 t = blockIdx.x; t < runs; t += gridDim.x) {
        const u64 take = ties_of(segment, p.before, p.equal, t);
        if (take == 0) continue;
        u64 seen = 0, total = 0;
        for (u32 base = 0; base < p.tile; base += blockDim.x) {
            const u64 b = t * p.tile + base + threadIdx.x;
            const bool mine = base + threadIdx.x < p.tile && b < p.blocks;
            const bool equal = mine && p.scores[b] == segment.prefix;
            const u64 rank = seen + block_scan(equal ? 1 : 0, ties_sums, total);
            seen += total;
            const u32 word = __ballot_sync(0xffffffffu, equal && rank < take);
            if (mine && (threadIdx.x & 31) == 0) p.chosen[b / 32] |= word;
        }
    }
}

FIPK_KERNEL(blocks_spread, BlockArgs, 256) {
    for (u32 t = blockIdx.x; t < p.tile_count; t += gridDim.x) {
        const Tile tile = p.tiles[t];
        const Plane plane = p.planes[tile.span];
        for (u32 base = 0; base < tile.len; base += blockDim.x) {
            const u32 i = base + threadIdx.x;
            bool pruned = false;
            if (i < tile.len) {
                const u64 inside = first_float(tile) + i - plane.at;
                const u64 row = inside / plane.cols / plane.height, col = inside % plane.cols / plane.width;
                const u64 block = plane.first + row * plane.across + col;
                pruned = p.chosen[block / 32] >> (block % 32) & 1;
            }
            const u32 word = __ballot_sync(0xffffffffu, pruned);
            if ((threadIdx.x & 31) == 0 && i < tile.len) p.mask[tile.word + i / 32] = word;
        }
    }
}
