// What runs beside the threads: asynchronous copies, barriers that they report to, the tensor cores of a warpgroup.
// All land as late as they may: when a thread waits for them, or when nothing else can run; and, where schedules
// are drawn from a seed, sometimes earlier.
#pragma once
#include "emulator/interface.h"

namespace simt {

void reset_async();
// Land one of the copies that barriers in shared memory wait for; false: there is none.
bool land_one();
// The thread exits: nothing of its may be on its way.
void exit_async(int thread);
// The block is done.
void end_async();
// How many fence_proxy_async the thread has executed, modulo 256.
uint8_t proxy_fences(int thread);

// Bytes of a copy have landed; `issuer` had issued it at its `time`.
void mbarrier_landed(unsigned long long* bar, int bytes, int issuer, uint16_t time);
void mbarrier_check(const Site*, unsigned long long* bar);
void reset_mbarriers();
// Is there a barrier that nobody has waited at since a copy for it landed?
bool mbarrier_unseen();

void reset_wgmma();
void exit_wgmma(int thread);

// A warpgroup meets: the last of its 128 threads to arrive runs `op` for all.
void warpgroup_collective(const Site*, void (*op)(void** args), void* args);

} // namespace simt
