// Philox4x32-10 (Salmon et al., SC 2011), as src/rng.rs has it: a number depends on (key, counter) alone.
#pragma once
#include "fipk.cuh"

struct Words {
    u32 v[4];
};

FIPK_DEVICE Words philox(u64 counter_low, u64 counter_high, u64 seed) {
    u32 c0 = static_cast<u32>(counter_low), c1 = static_cast<u32>(counter_low >> 32);
    u32 c2 = static_cast<u32>(counter_high), c3 = static_cast<u32>(counter_high >> 32);
    u32 k0 = static_cast<u32>(seed), k1 = static_cast<u32>(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        c0 = static_cast<u32>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<u32>(p1);
        c2 = static_cast<u32>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<u32>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}
