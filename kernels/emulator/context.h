// Stacks that can be left and gone on with.
#pragma once

// Leave this stack, storing its pointer at *save, and go on with the one whose pointer is `to`.
extern "C" void simt_switch(void** save, void* to);

namespace simt {
// The pointer of a stack below `top` on which the first switch calls `entry`, which must not return.
void* new_stack(char* top, void (*entry)());
} // namespace simt
