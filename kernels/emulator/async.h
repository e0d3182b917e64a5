// What runs beside the threads: asynchronous copies and the tensor cores of a warpgroup.
#pragma once
#include <cstddef>
#include <cstdint>

namespace simt {

void reset_async();
// Land one of the copies that a barrier in shared memory waits for; false: there is none.
bool land_one();
// The thread exits: what it has copied with cp.async lands.
void land_own(int thread);
// How many fence.proxy.async the thread has executed, modulo 256.
uint8_t proxy_fences(int thread);

} // namespace simt
