// Kernels with one bug each, which the emulator must find. The line that is wrong ends in `// BUG`.
#include "planted.cuh"

// ---- Barriers and races.

PLANTED(bug_no_barrier) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x;
    s[t] = p.x[t];
    p.y[t] = s[255 - t]; // BUG
}

PLANTED(bug_no_barrier_in_warp) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x;
    s[t] = p.x[t];
    p.y[t] = s[t ^ 1]; // BUG
}

PLANTED(bug_no_barrier_after_reading) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x;
    float v = p.x[t];
    for (int i = 0; i < 4; i++) {
        s[t] = v; // BUG: a neighbour may still read it
        __syncthreads();
        v = s[(t + 1) & 255];
    }
    p.y[t] = v;
}

PLANTED(bug_shuffle_for_a_barrier) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x, lane = t & 31;
    s[t] = p.x[t];
    float v = __shfl_xor_sync(0xffffffffu, p.x[t], 1);
    p.y[t] = v + s[t - lane + 31 - lane]; // BUG: shuffles do not order memory
}

PLANTED(bug_syncwarp_across_warps) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x;
    s[t] = p.x[t];
    __syncwarp();
    p.y[t] = s[t ^ 32]; // BUG
}

PLANTED(bug_syncwarp_of_half) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x, lane = t & 31;
    s[t] = p.x[t];
    __syncwarp(lane < 16 ? 0x0000ffffu : 0xffff0000u);
    p.y[t] = s[t ^ 16]; // BUG: a lane of the other half
}

PLANTED(bug_divergent_barrier) {
    int t = threadIdx.x;
    if (t < 128) {
        __syncthreads(); // BUG
        p.y[t] = 1;
    } else {
        p.y[t] = 2;
        __syncthreads();
    }
}

PLANTED(bug_barrier_in_condition) {
    int t = threadIdx.x;
    if (t < 100) __syncthreads(); // BUG
    p.y[t] = p.x[t];
}

PLANTED(bug_exit_before_barrier) {
    int t = threadIdx.x;
    if (t >= 200) return; // BUG
    __syncthreads();
    p.y[t] = p.x[t];
}

PLANTED(bug_race_on_global) {
    p.y[0] = p.x[threadIdx.x]; // BUG
}

PLANTED(bug_race_of_blocks) {
    if (threadIdx.x == 0) p.y[0] += p.x[0]; // BUG
}

PLANTED(bug_race_on_counters) {
    FIPK_SHARED(int, counters, [4]);
    int t = threadIdx.x;
    if (t < 4) counters[t] = 0;
    __syncthreads();
    counters[t & 3] += 1; // BUG: not atomic
    __syncthreads();
    if (t < 4) p.y[t] = static_cast<float>(counters[t]);
}

PLANTED(bug_atomic_and_plain) {
    FIPK_SHARED(int, counter, [1]);
    int t = threadIdx.x;
    if (t == 0) counter[0] = 0;
    __syncthreads();
    if (t < 128) atomicAdd(&counter[0], 1);
    if (t == 200) p.y[0] = static_cast<float>(counter[0]); // BUG
}

// The last block adds what the others left, and nothing says that it may see it.
PLANTED(bug_last_block_without_fence) {
    int t = threadIdx.x, block = blockIdx.x;
    u32* counter = reinterpret_cast<u32*>(p.plane);
    if (t == 0) {
        p.y[block] = p.x[block];
        if (atomicAdd(counter, 1u) == gridDim.x - 1) { // BUG
            float total = 0;
            for (u32 i = 0; i < gridDim.x; i++) total += p.y[i];
            p.y[255] = total;
        }
    }
}

// ---- Warps.

PLANTED(bug_shuffle_in_half_warp) {
    int t = threadIdx.x;
    float v = p.x[t];
    if ((t & 31) < 16) v += __shfl_down_sync(0xffffffffu, v, 8); // BUG
    p.y[t] = v;
}

PLANTED(bug_shuffle_from_outside_the_mask) {
    int t = threadIdx.x;
    float v = p.x[t];
    if ((t & 31) < 16) v += __shfl_xor_sync(0x0000ffffu, v, 16); // BUG
    p.y[t] = v;
}

PLANTED(bug_caller_outside_the_mask) {
    int t = threadIdx.x;
    p.y[t] = __shfl_sync(0x0000ffffu, p.x[t], 0); // BUG
}

PLANTED(bug_shuffles_in_two_places) {
    int t = threadIdx.x;
    float v = p.x[t];
    if (t & 1) {
        v = __shfl_sync(0xffffffffu, v, 0); // BUG
    } else {
        v = __shfl_sync(0xffffffffu, v, 1);
    }
    p.y[t] = v;
}

PLANTED(bug_exited_lanes_in_mask) {
    int t = threadIdx.x;
    if ((t & 31) >= 20) return;
    p.y[t] = __shfl_sync(0xffffffffu, p.x[t], 0); // BUG
}

PLANTED(bug_masks_that_differ) {
    int t = threadIdx.x, lane = t & 31;
    p.y[t] = static_cast<float>(__ballot_sync(lane < 16 ? 0x0000ffffu : 0xffffffffu, 1)); // BUG
}

PLANTED(bug_mma_in_half_warp) {
    float d[4] = {};
    u32 a[4] = {}, b[2] = {};
    if ((threadIdx.x & 31) < 16) mma_bf16(d, a, b); // BUG
    p.y[threadIdx.x] = d[0];
}

// ---- Memory.

PLANTED(bug_dynamic_shared_overrun) {
    FIPK_DYNAMIC_SHARED(float, s);
    int t = threadIdx.x;
    s[t + 1] = p.x[t]; // BUG
    __syncthreads();
    p.y[t] = s[t + 1];
}

PLANTED(bug_no_dynamic_shared) {
    FIPK_DYNAMIC_SHARED(float, s); // BUG: launched with none
    s[threadIdx.x] = p.x[threadIdx.x];
    p.y[threadIdx.x] = s[threadIdx.x];
}

PLANTED(bug_shared_overrun) {
    FIPK_SHARED(float, first, [256]);
    FIPK_SHARED(float, second, [256]);
    int t = threadIdx.x;
    second[t] = p.x[t];
    float* row = first + 1;
    row[t] = p.x[t]; // BUG
    __syncthreads();
    p.y[t] = second[t] + row[t];
}

PLANTED(bug_read_past_the_end) {
    int t = threadIdx.x;
    p.y[t] = p.x[t] + p.x[t + 1]; // BUG
}

PLANTED(bug_write_past_the_end) {
    int t = threadIdx.x;
    p.y[t + 1] = p.x[t]; // BUG
}

PLANTED(bug_read_before_the_start) {
    int t = threadIdx.x;
    p.y[t] = p.x[t - 1]; // BUG
}

PLANTED(bug_pack_past_the_end) {
    int t = threadIdx.x;
    if (t > 0) return;
    float4 v = *reinterpret_cast<const float4*>(p.x + 252 + p.n); // BUG: n is 4
    p.y[0] = v.x;
}

PLANTED(bug_null_pointer) {
    const float* nothing = p.n == 4 ? nullptr : p.x;
    p.y[threadIdx.x] = nothing[0]; // BUG
}

PLANTED(bug_write_to_arguments) {
    const_cast<PlantedArgs&>(p).n = 1; // BUG
}

PLANTED(bug_uninitialised_shared) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x;
    if (t != 7) s[t] = p.x[t];
    __syncthreads();
    p.y[t] = fmaxf(s[t], -1e30f); // BUG, which the maximum would hide
}

PLANTED(bug_shared_from_the_last_block) {
    FIPK_SHARED(float, s, [256]);
    int t = threadIdx.x;
    if (blockIdx.x == 0) s[t] = p.x[t];
    __syncthreads();
    if (blockIdx.x == 1) p.y[t] = s[t]; // BUG
}

PLANTED(bug_misaligned_pack) {
    int t = threadIdx.x;
    float4 v = *reinterpret_cast<const float4*>(p.x + (t & 31) + 1); // BUG
    p.y[t] = v.x;
}

PLANTED(bug_local_overrun) {
    int t = threadIdx.x;
    float a[8];
    for (int i = 0; i < 8; i++) a[i] = p.x[i];
    p.y[t] = a[(t & 7) + (t == 79)]; // BUG
}

// ---- Arithmetic.

PLANTED(bug_integer_overflow) {
    int t = threadIdx.x;
    int k = 2147483647 - 100 + t; // BUG
    p.y[t] = static_cast<float>(k);
}

PLANTED(bug_shift_too_far) {
    int t = threadIdx.x;
    p.y[t] = static_cast<float>(1 << (t & 63)); // BUG
}

PLANTED(bug_division_by_zero) {
    int t = threadIdx.x;
    p.y[t] = static_cast<float>(100 / (t - 100)); // BUG
}

PLANTED(bug_trap) {
    if (threadIdx.x == 33) __trap(); // BUG
}
