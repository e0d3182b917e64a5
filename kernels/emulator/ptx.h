// The host twins of the wrappers in ptx.cuh, which says what each does.
#pragma once
#include "emulator/twins.h"

namespace simt {

// The wrappers, called at a place in a kernel, which messages name.
struct At {
    const Site* site;
    SIMT_UNCHECKED explicit At(const Site* site) : site(site) {}

    SIMT_UNCHECKED void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) const {
        Mma arg{d, a, b};
        warp_collective({site, ::simt::mma_bf16, 32, false, true}, 0xffffffffu, &arg);
    }
    SIMT_UNCHECKED void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) const {
        Mma arg{d, a, b};
        warp_collective({site, ::simt::mma_tf32, 32, false, true}, 0xffffffffu, &arg);
    }
    SIMT_UNCHECKED void ldmatrix_x4(unsigned (&r)[4], const void* row) const { ldmatrix(site, r, row, 4, false); }
    SIMT_UNCHECKED void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) const { ldmatrix(site, r, row, 4, true); }
    SIMT_UNCHECKED void ldmatrix_x2(unsigned (&r)[2], const void* row) const { ldmatrix(site, r, row, 2, false); }
    SIMT_UNCHECKED void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) const { ldmatrix(site, r, row, 2, true); }

    SIMT_UNCHECKED void cp_async_4(void* to, const void* from, bool take = true) const {
        cp_async(site, to, from, 4, take);
    }
    SIMT_UNCHECKED void cp_async_16(void* to, const void* from, bool take = true) const {
        cp_async(site, to, from, 16, take);
    }

    SIMT_UNCHECKED void bar_sync(int id, int threads) const { named_barrier(site, id, threads, true); }
    SIMT_UNCHECKED void bar_arrive(int id, int threads) const { named_barrier(site, id, threads, false); }

    SIMT_UNCHECKED void mbarrier_init(Word* bar, int count) const { ::simt::mbarrier_init(site, bar, count); }
    SIMT_UNCHECKED void mbarrier_arrive(Word* bar) const { ::simt::mbarrier_arrive(site, bar, 0); }
    SIMT_UNCHECKED void mbarrier_expect(Word* bar, int bytes) const { ::simt::mbarrier_arrive(site, bar, bytes); }
    SIMT_UNCHECKED bool mbarrier_try_wait(Word* bar, int parity) const {
        return ::simt::mbarrier_try_wait(site, bar, parity);
    }
    SIMT_UNCHECKED void mbarrier_wait(Word* bar, int parity) const {
        while (!::simt::mbarrier_try_wait(site, bar, parity)) {
        }
    }

    SIMT_UNCHECKED void tma_load_2d(void* to, const TensorMap* map, Word* bar, int x, int y) const {
        ::simt::tma_load_2d(site, to, map, bar, x, y);
    }
    SIMT_UNCHECKED void tma_store_2d(const TensorMap* map, const void* from, int x, int y) const {
        ::simt::tma_store_2d(site, map, from, x, y);
    }
    SIMT_UNCHECKED void bulk_load(void* to, const void* from, int bytes, Word* bar) const {
        ::simt::bulk_load(site, to, from, bytes, bar);
    }

    template <int N, bool A_TURNED = false, bool B_TURNED = false>
    SIMT_UNCHECKED void wgmma_bf16(float (&d)[N / 2], Word a, Word b, bool add = true) const {
        static_assert(N == 64 || N == 128 || N == 192 || N == 256, "the shapes that ptx.cuh has");
        wgmma(site, d, N, {a, A_TURNED}, {b, B_TURNED}, add);
    }
    template <int N> SIMT_UNCHECKED void wgmma_wait() const { ::simt::wgmma_wait(site, N); }
    template <int N> SIMT_UNCHECKED void registers_raise() const { set_registers(site, N); }
    template <int N> SIMT_UNCHECKED void registers_lower() const { set_registers(site, N); }
};

} // namespace simt

#define mma_bf16 ::simt::At(SIMT_SITE("mma_bf16")).mma_bf16
#define mma_tf32 ::simt::At(SIMT_SITE("mma_tf32")).mma_tf32
#define ldmatrix_x4 ::simt::At(SIMT_SITE("ldmatrix_x4")).ldmatrix_x4
#define ldmatrix_x4_trans ::simt::At(SIMT_SITE("ldmatrix_x4_trans")).ldmatrix_x4_trans
#define ldmatrix_x2 ::simt::At(SIMT_SITE("ldmatrix_x2")).ldmatrix_x2
#define ldmatrix_x2_trans ::simt::At(SIMT_SITE("ldmatrix_x2_trans")).ldmatrix_x2_trans
#define cp_async_4 ::simt::At(SIMT_SITE("cp_async_4")).cp_async_4
#define cp_async_16 ::simt::At(SIMT_SITE("cp_async_16")).cp_async_16
#define bar_sync ::simt::At(SIMT_SITE("bar_sync")).bar_sync
#define bar_arrive ::simt::At(SIMT_SITE("bar_arrive")).bar_arrive
#define mbarrier_init ::simt::At(SIMT_SITE("mbarrier_init")).mbarrier_init
#define mbarrier_arrive ::simt::At(SIMT_SITE("mbarrier_arrive")).mbarrier_arrive
#define mbarrier_expect ::simt::At(SIMT_SITE("mbarrier_expect")).mbarrier_expect
#define mbarrier_try_wait ::simt::At(SIMT_SITE("mbarrier_try_wait")).mbarrier_try_wait
#define mbarrier_wait ::simt::At(SIMT_SITE("mbarrier_wait")).mbarrier_wait
#define tma_load_2d ::simt::At(SIMT_SITE("tma_load_2d")).tma_load_2d
#define tma_store_2d ::simt::At(SIMT_SITE("tma_store_2d")).tma_store_2d
#define bulk_load ::simt::At(SIMT_SITE("bulk_load")).bulk_load
#define wgmma_bf16 ::simt::At(SIMT_SITE("wgmma_bf16")).wgmma_bf16
#define wgmma_wait ::simt::At(SIMT_SITE("wgmma_wait")).wgmma_wait
#define registers_raise ::simt::At(SIMT_SITE("registers_raise")).registers_raise
#define registers_lower ::simt::At(SIMT_SITE("registers_lower")).registers_lower

SIMT_FN unsigned shared_address(const void* p) { return simt::shared_offset(p); }
// Half of the last bit that is kept is added; infinity stays as it is.
SIMT_FN unsigned to_tf32(float x) {
    unsigned u;
    memcpy(&u, &x, sizeof u);
    return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : (u + 0x1000u) & 0xffffe000u;
}
SIMT_FN float exp2_approx(float x) {
    if (fabsf(x) < 0x1p-126f) x = 0;
    const float r = exp2f(x);
    return r < 0x1p-126f ? 0 : r;
}
SIMT_FN void cp_async_commit() { simt::cp_async_commit(); }
template <int N> SIMT_FN void cp_async_wait() { simt::cp_async_wait(N); }
SIMT_FN void mbarrier_init_fence() {}
SIMT_FN void fence_proxy_async() { simt::fence_proxy_async(); }
SIMT_FN void tma_store_commit() { simt::tma_store_commit(); }
template <int N> SIMT_FN void tma_store_wait() { simt::tma_store_wait(N); }
SIMT_FN void tma_prefetch(const TensorMap*) {}
SIMT_FN unsigned long long wgmma_operand(const void* p) { return simt::wgmma_operand(p, 16); }
SIMT_FN unsigned long long wgmma_operand_turned(const void* p, int next) { return simt::wgmma_operand(p, next); }
SIMT_FN void wgmma_fence() { simt::wgmma_fence(); }
SIMT_FN void wgmma_commit() { simt::wgmma_commit(); }
