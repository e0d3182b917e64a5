// Inline PTX, all of it: tensor cores, asynchronous copies, barriers in shared memory. Each wrapper has a host twin in
// emulator/ptx.h, and a kernel in wrappers.cu that compares the two. Not yet run on a GPU.
//
// Fragments are as the PTX ISA lays them out. With g = lane / 4 and t = lane % 4, all of row-major A [16 x K], B
// [K x 8] stored by columns, D [16 x 8]:
//
//     mma_bf16 (K = 16)  a[i]: A[g + 8 (i & 1)][2t + 8 (i >> 1) + {0, 1}]   b[i]: B[2t + 8 i + {0, 1}][g]
//     mma_tf32 (K = 8)   a[i]: A[g + 8 (i & 1)][t + 4 (i >> 1)]             b[i]: B[t + 4 i][g]
//     both               d[i]: D[g + 8 (i >> 1)][2t + (i & 1)]
//     wgmma              d[4 j + i]: D[16 w + g + 8 (i >> 1)][8 j + 2t + (i & 1)], w: the warp of the warpgroup
//
// Two bf16 in a word: the lower index in the lower half.
#pragma once
#include "fipk.cuh"

#ifndef __CUDACC__
// The twins are already here: emulator/simt.h includes them.
#else

// What cuTensorMapEncodeTiled writes; passed inside of a kernel's arguments.
struct alignas(64) TensorMap {
    u64 words[16];
};

FIPK_DEVICE u32 shared_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

// ---- Tensor cores of a warp.

// D += A B: bf16 [16 x 16] times [16 x 8].
FIPK_DEVICE void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// D += A B: tf32 [16 x 8] times [8 x 8], from `to_tf32`.
FIPK_DEVICE void mma_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// To nearest, ties away from zero.
FIPK_DEVICE u32 to_tf32(float x) {
    u32 r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}

// 2^x to 2 units in the last place of f32, by the unit for special functions; results below 2^-126 are 0.
FIPK_DEVICE float exp2_approx(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// 8 x 8 matrices of 16-bit numbers from shared memory: lanes 0 .. 7 give the rows of the first (16 bytes each,
// aligned), 8 .. 15 of the second, and so on. Each lane gets M[lane / 4][2 (lane % 4) + {0, 1}], or that of the
// transpose.
FIPK_DEVICE void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
FIPK_DEVICE void ldmatrix_x4_trans(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
FIPK_DEVICE void ldmatrix_x2(u32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
FIPK_DEVICE void ldmatrix_x2_trans(u32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

// ---- cp.async: copies of a thread that it waits for itself.

// 4 or 16 bytes to shared memory, both ends so aligned; zeros where not `take`, and `from` is then not read.
FIPK_DEVICE void cp_async_4(void* to, const void* from, bool take = true) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(take ? 4 : 0)
                 : "memory");
}
FIPK_DEVICE void cp_async_16(void* to, const void* from, bool take = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(take ? 16 : 0)
                 : "memory");
}
// Close the group of the copies so far.
FIPK_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Wait until at most N groups are on their way.
template <int N> FIPK_DEVICE void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// ---- Barriers of some warps of a block: 1 .. 15, of `threads` threads, who sync or only arrive.

FIPK_DEVICE void bar_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
FIPK_DEVICE void bar_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#if FIPK_SM90A

// ---- Barriers in shared memory that copies report to.

// A phase is complete once `count` threads have arrived and all expected bytes have landed.
FIPK_DEVICE void mbarrier_init(u64* bar, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(count) : "memory");
}
// After the inits, before a barrier of the block: makes them visible to the copies.
FIPK_DEVICE void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
FIPK_DEVICE void mbarrier_arrive(u64* bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
}
// Arrive, and expect so many bytes in this phase.
FIPK_DEVICE void mbarrier_expect(u64* bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes)
                 : "memory");
}
// Is the phase of this parity complete? The first phase has parity 0.
FIPK_DEVICE bool mbarrier_try_wait(u64* bar, int parity) {
    u32 done;
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}"
        : "=r"(done)
        : "r"(shared_address(bar)), "r"(parity)
        : "memory");
    return done;
}
FIPK_DEVICE void mbarrier_wait(u64* bar, int parity) {
    while (!mbarrier_try_wait(bar, parity)) {
    }
}
// Between a thread's own stores to shared memory and their use by TMA or wgmma (after a barrier, if by others' orders).
FIPK_DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- TMA: copies that one thread issues for all.

// The map's box whose first element is at column x, row y; what lies outside of the tensor becomes zeros.
FIPK_DEVICE void tma_load_2d(void* to, const TensorMap* map, u64* bar, int x, int y) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
            shared_address(to)),
        "l"(map), "r"(shared_address(bar)), "r"(x), "r"(y)
        : "memory");
}
// The other way; outside of the tensor nothing is written.
FIPK_DEVICE void tma_store_2d(const TensorMap* map, const void* from, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
                 "r"(shared_address(from)), "r"(x), "r"(y)
                 : "memory");
}
FIPK_DEVICE void tma_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Wait until at most N groups of stores still read shared memory.
template <int N> FIPK_DEVICE void tma_store_wait() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}
FIPK_DEVICE void tma_prefetch(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }
// `bytes`, a multiple of 16, in a row; both ends aligned to 16 bytes.
FIPK_DEVICE void bulk_load(void* to, const void* from, int bytes, u64* bar) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(bar))
                 : "memory");
}

// ---- wgmma: tensor cores of a warpgroup, on operands in shared memory.

// An operand with k along the row, as TMA writes it in 128-byte swizzle: rows of 64 bf16 (128 bytes), in groups of 8
// rows (1024 bytes, aligned) that follow each other. `p` is the first row, plus 32 bytes for every 16 further along it.
FIPK_DEVICE u64 wgmma_operand(const void* p) {
    constexpr u64 group = 1024 >> 4, swizzle_128 = 1;
    return static_cast<u64>((shared_address(p) & 0x3ffff) >> 4) | 1ull << 16 | group << 32 | swizzle_128 << 62;
}
// A turned operand, with m or n along the row: a row of 64 bf16 for each k, swizzled and in groups of 8 as above; the
// next 64 of m or n are a block of such rows `next` bytes further (a multiple of 1024). `p` is the row of the first k of
// the first block: 16 rows (2048 bytes) for every 16 further along k.
FIPK_DEVICE u64 wgmma_operand_turned(const void* p, int next) {
    constexpr u64 group = 1024 >> 4, swizzle_128 = 1;
    const u64 block = static_cast<u64>((next & 0x3ffff) >> 4);
    return static_cast<u64>((shared_address(p) & 0x3ffff) >> 4) | block << 16 | group << 32 | swizzle_128 << 62;
}
// Before the first wgmma after the accumulators were touched.
FIPK_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
FIPK_DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Wait until at most N groups are running.
template <int N> FIPK_DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// The instruction for N columns; it has no other way to name 128 registers than one by one.
template <int N> struct Wgmma;

// Eight accumulators: their places in the instruction, and what fills them.
#define FIPK_D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
                   "+f"(d[i + 6]), "+f"(d[i + 7])
#define FIPK_D32(i) FIPK_D8(i), FIPK_D8(i + 8), FIPK_D8(i + 16), FIPK_D8(i + 24)
#define FIPK_P32_0                                                                                             \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
    "%23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FIPK_P32_1                                                                                                 \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, " \
    "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define FIPK_P32_2                                                                                                 \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, " \
    "%86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define FIPK_P32_3                                                                                                   \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, " \
    "%115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
// `places` of N / 2 accumulators, then the operands' places: a, b, add, and whether a and b are turned.
#define FIPK_WGMMA(N, places, a_place, b_place, add_place, a_turned, b_turned, ...)                        \
    template <> struct Wgmma<N> {                                                                          \
        template <int A_TURNED, int B_TURNED>                                                              \
        static FIPK_DEVICE void bf16_f32(float (&d)[N / 2], u64 a, u64 b, int add) {                       \
            asm volatile(                                                                                  \
                "{\n.reg .pred p;\nsetp.ne.b32 p, " add_place ", 0;\n"                                     \
                "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" places "}, " a_place ", "     \
                b_place ", p, 1, 1, " a_turned ", " b_turned ";\n}"                                        \
                : __VA_ARGS__                                                                              \
                : "l"(a), "l"(b), "r"(add), "n"(A_TURNED), "n"(B_TURNED));                                 \
        }                                                                                                  \
    };
FIPK_WGMMA(64, FIPK_P32_0, "%32", "%33", "%34", "%35", "%36", FIPK_D32(0))
FIPK_WGMMA(128, FIPK_P32_0 ", " FIPK_P32_1, "%64", "%65", "%66", "%67", "%68", FIPK_D32(0), FIPK_D32(32))
FIPK_WGMMA(192, FIPK_P32_0 ", " FIPK_P32_1 ", " FIPK_P32_2, "%96", "%97", "%98", "%99", "%100", FIPK_D32(0), FIPK_D32(32),
           FIPK_D32(64))
FIPK_WGMMA(256, FIPK_P32_0 ", " FIPK_P32_1 ", " FIPK_P32_2 ", " FIPK_P32_3, "%128", "%129", "%130", "%131", "%132", FIPK_D32(0),
           FIPK_D32(32), FIPK_D32(64), FIPK_D32(96))
#undef FIPK_WGMMA
#undef FIPK_P32_0
#undef FIPK_P32_1
#undef FIPK_P32_2
#undef FIPK_P32_3
#undef FIPK_D32
#undef FIPK_D8

// D [64 x N] += A [64 x 16] Bᵀ, B [N x 16]: bf16, both from shared memory, each with the 16 along the row or turned.
// Without `add`, D =.
template <int N, bool A_TURNED = false, bool B_TURNED = false>
FIPK_DEVICE void wgmma_bf16(float (&d)[N / 2], u64 a, u64 b, bool add = true) {
    Wgmma<N>::template bf16_f32<A_TURNED, B_TURNED>(d, a, b, add);
}

// Registers a thread may use from here on, which all warps of a warpgroup ask for together: 24 .. 256 in steps of 8.
template <int N> FIPK_DEVICE void registers_raise() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> FIPK_DEVICE void registers_lower() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }

#endif // FIPK_SM90A
#endif // __CUDACC__
