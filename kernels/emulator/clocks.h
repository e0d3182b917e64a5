// What happens before what, among the threads of a block: vector clocks since the block's last barrier.
//
// Each thread counts its releases; `known[t][u]` is up to which of u's releases what u did is ordered before what
// t does now. A barrier of the whole block orders everything, so it starts a new epoch with all clocks at zero.
#pragma once
#include <cstdint>
#include <vector>

namespace simt {

// What has been released to a barrier; empty until then.
struct Clock {
    std::vector<uint16_t> known;
    void merge(const Clock&);
};

void start_clocks(int threads);
void next_epoch();
// Numbers of the current epoch, unique over all launches.
uint32_t epoch();
// The count that an access made by `thread` now carries.
uint16_t time_of(int thread);
// Is what `other` did at its `time` of this epoch ordered before what `thread` does now?
bool ordered(int thread, int other, uint16_t time);
void release(int thread, Clock&);
void acquire(int thread, const Clock&);
// __syncwarp of these lanes.
void order_warp(int warp, unsigned mask);
// How often the thread has taken part in a __syncwarp, or acquired something, in this epoch.
uint16_t turns(int thread);
// Has anything in this epoch ordered threads across warps?
bool crosses_warps();

} // namespace simt
