// Matrix products of a warp, and the loads of their operands.
#include "engine.h"
#include "twins.h"

namespace simt {

namespace {

float bf16_of(unsigned pair, int half) {
    unsigned u = half ? pair & 0xffff0000u : pair << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

// The tensor cores ignore the bits that tf32 does not have.
float tf32_of(unsigned u) {
    u &= 0xffffe000u;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

// D += A B for fragments whose A[i][k] and B[k][j] are known; a product of two bf16 or tf32 is exact in f32.
template <int K> void multiply(void** args, const float (&a)[16][K], const float (&b)[K][8]) {
    float d[16][8];
    auto place = [&](int lane, int i) -> float& { return d[lane / 4 + 8 * (i >> 1)][lane % 4 * 2 + (i & 1)]; };
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) place(lane, i) = static_cast<Mma*>(args[lane])->d[i];
    }
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < K; k++) {
            for (int j = 0; j < 8; j++) d[i][j] += a[i][k] * b[k][j];
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) static_cast<Mma*>(args[lane])->d[i] = place(lane, i);
    }
}

struct Row {
    unsigned* r;
    const void* at;
};

template <int MATRICES, bool TRANSPOSED> void spread(void** args, unsigned, int) {
    for (int m = 0; m < MATRICES; m++) {
        uint16_t matrix[8][8];
        for (int i = 0; i < 8; i++) memcpy(matrix[i], static_cast<Row*>(args[m * 8 + i])->at, 16);
        for (int lane = 0; lane < 32; lane++) {
            int row = lane / 4, column = lane % 4 * 2;
            unsigned low = TRANSPOSED ? matrix[column][row] : matrix[row][column];
            unsigned high = TRANSPOSED ? matrix[column + 1][row] : matrix[row][column + 1];
            static_cast<Row*>(args[lane])->r[m] = low | high << 16;
        }
    }
}

} // namespace

void mma_bf16(void** args, unsigned, int) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const Mma& m = *static_cast<Mma*>(args[lane]);
        int g = lane / 4, t = lane % 4;
        for (int half = 0; half < 2; half++) {
            for (int i = 0; i < 4; i++) a[g + 8 * (i & 1)][2 * t + 8 * (i >> 1) + half] = bf16_of(m.a[i], half);
            for (int i = 0; i < 2; i++) b[2 * t + 8 * i + half][g] = bf16_of(m.b[i], half);
        }
    }
    multiply<16>(args, a, b);
}

void mma_tf32(void** args, unsigned, int) {
    float a[16][8], b[8][8];
    for (int lane = 0; lane < 32; lane++) {
        const Mma& m = *static_cast<Mma*>(args[lane]);
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) a[g + 8 * (i & 1)][t + 4 * (i >> 1)] = tf32_of(m.a[i]);
        for (int i = 0; i < 2; i++) b[t + 4 * i][g] = tf32_of(m.b[i]);
    }
    multiply<8>(args, a, b);
}

void ldmatrix(const Site* site, unsigned* r, const void* row, int matrices, bool transposed) {
    // Lanes beyond the last matrix give no row.
    if (current().place.lane < 8 * matrices) {
        if (reinterpret_cast<uintptr_t>(row) & 15) {
            fail("misaligned: %s at %s:%d takes rows aligned to 16 bytes", site->what, site->file, site->line);
        }
        shared_offset(row);
        access_at(site, row, 16, Access::READ);
    }
    Row arg{r, row};
    auto op = matrices == 4 ? transposed ? spread<4, true> : spread<4, false>
                            : transposed ? spread<2, true> : spread<2, false>;
    warp_collective({site, op, 32, false, true}, 0xffffffffu, &arg);
}

} // namespace simt
