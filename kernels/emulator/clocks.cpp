// Vector clocks, kept small: rows are cleared when first touched in an epoch, and a __syncwarp joins the columns of its
// own warp alone while nothing else has ordered threads.
#include "clocks.h"
#include <algorithm>

namespace simt {

namespace {

uint32_t now = 0; // the epoch
size_t threads = 0;
std::vector<uint16_t> known; // [thread][thread]
std::vector<uint16_t> times, turned;
std::vector<uint32_t> fresh; // the epoch that a thread's row belongs to
uint32_t crossed = 0;        // the last epoch in which something ordered threads across warps

uint16_t next(uint16_t count) { return count < 0xffff ? count + 1 : count; }

uint16_t* row(int thread) {
    size_t t = static_cast<size_t>(thread);
    uint16_t* at = known.data() + t * threads;
    if (fresh[t] != now) {
        std::fill(at, at + threads, static_cast<uint16_t>(0));
        fresh[t] = now;
        times[t] = 1;
        turned[t] = 0;
    }
    return at;
}

void raise(uint16_t* to, const uint16_t* from, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] = std::max(to[i], from[i]);
}

} // namespace

void Clock::merge(const Clock& other) {
    if (other.known.empty()) return;
    known.resize(other.known.size());
    raise(known.data(), other.known.data(), known.size());
}

void start_clocks(int n) {
    threads = static_cast<size_t>(n);
    known.resize(threads * threads);
    times.resize(threads);
    turned.resize(threads);
    fresh.assign(threads, now);
    next_epoch();
}

void next_epoch() { now++; }
uint32_t epoch() { return now; }

uint16_t time_of(int thread) {
    row(thread);
    return times[static_cast<size_t>(thread)];
}

bool ordered(int thread, int other, uint16_t time) {
    return thread == other || row(thread)[other] >= time;
}

uint16_t turns(int thread) {
    row(thread);
    return turned[static_cast<size_t>(thread)];
}

bool crosses_warps() { return crossed == now; }

void release(int thread, Clock& to) {
    uint16_t* mine = row(thread);
    uint16_t& time = times[static_cast<size_t>(thread)];
    mine[thread] = time;
    to.known.resize(threads);
    raise(to.known.data(), mine, threads);
    time = next(time);
    crossed = now;
}

void acquire(int thread, const Clock& from) {
    if (from.known.empty()) return;
    raise(row(thread), from.known.data(), threads);
    uint16_t& turn = turned[static_cast<size_t>(thread)];
    turn = next(turn);
    crossed = now;
}

void order_warp(int warp, unsigned mask) {
    size_t first = crosses_warps() ? 0 : static_cast<size_t>(warp) * 32, n = crosses_warps() ? threads : 32;
    static thread_local uint16_t all[1024];
    std::fill(all, all + n, static_cast<uint16_t>(0));
    for (unsigned m = mask; m; m &= m - 1) {
        int t = warp * 32 + __builtin_ctz(m);
        uint16_t* mine = row(t);
        mine[t] = times[static_cast<size_t>(t)];
        raise(all, mine + first, n);
    }
    for (unsigned m = mask; m; m &= m - 1) {
        size_t t = static_cast<size_t>(warp * 32 + __builtin_ctz(m));
        std::copy(all, all + n, known.data() + t * threads + first);
        times[t] = next(times[t]);
        turned[t] = next(turned[t]);
    }
}

} // namespace simt
