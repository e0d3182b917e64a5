// Spans as rows, groups and blocks.
#pragma once
#include "select.cuh"

// A span as pruning sees it.
struct Plane {
    u64 at;      // its first float
    u64 first;   // its first row or block among those of all spans
    u64 rows;    // rows that are chosen in here, or of blocks
    u64 cols;    // floats of a row, or of a group of n:m
    u64 height;  // of a block
    u64 width;   // of a block
    u64 across;  // blocks in a row of blocks
    u64 k;       // pruned in each row or group
};
FIPK_ARGS(Plane, 64);

// The plane that row (or block) i belongs to: the last that starts at i or before.
FIPK_DEVICE u32 plane_of(const Plane* planes, u32 n, u64 i) {
    u32 low = 0, high = n;
    while (high - low > 1) {
        const u32 middle = (low + high) / 2;
        (planes[middle].first <= i ? low : high) = middle;
    }
    return low;
}
