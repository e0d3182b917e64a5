// Vector clocks, kept small: rows are cleared when first touched in an epoch, and a __syncwarp joins the columns of its
// own warp alone while nothing else has ordered threads.
#include "clocks.h"
#include "engine.h"
#include <algorithm>

namespace simt {

struct Clocks {
    uint32_t now = 0; // the epoch
    size_t threads = 0;
    std::vector<uint16_t> known; // [thread][thread]
    std::vector<uint16_t> times, turned;
    std::vector<uint32_t> fresh; // the epoch that a thread's row belongs to
    uint32_t crossed = 0;        // the last epoch in which something ordered threads across warps
};
std::shared_ptr<Clocks> new_clocks() { return std::make_shared<Clocks>(); }

namespace {

uint16_t next(uint16_t count) { return count < 0xffff ? count + 1 : count; }

uint16_t* row(int thread) {
    Clocks& c = *engine->clocks;
    size_t t = static_cast<size_t>(thread);
    uint16_t* at = c.known.data() + t * c.threads;
    if (c.fresh[t] != c.now) {
        std::fill(at, at + c.threads, static_cast<uint16_t>(0));
        c.fresh[t] = c.now;
        c.times[t] = 1;
        c.turned[t] = 0;
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
    Clocks& c = *engine->clocks;
    c.threads = static_cast<size_t>(n);
    c.known.resize(c.threads * c.threads);
    c.times.resize(c.threads);
    c.turned.resize(c.threads);
    c.fresh.assign(c.threads, c.now);
    next_epoch();
}

void next_epoch() { engine->clocks->now++; }
uint32_t epoch() { return engine->clocks->now; }

uint16_t time_of(int thread) {
    row(thread);
    return engine->clocks->times[static_cast<size_t>(thread)];
}

bool ordered(int thread, int other, uint16_t time) {
    return thread == other || row(thread)[other] >= time;
}

uint16_t turns(int thread) {
    row(thread);
    return engine->clocks->turned[static_cast<size_t>(thread)];
}

bool crosses_warps() { return engine->clocks->crossed == engine->clocks->now; }

void release(int thread, Clock& to) {
    Clocks& c = *engine->clocks;
    uint16_t* mine = row(thread);
    uint16_t& time = c.times[static_cast<size_t>(thread)];
    mine[thread] = time;
    to.known.resize(c.threads);
    raise(to.known.data(), mine, c.threads);
    time = next(time);
    c.crossed = c.now;
}

void acquire(int thread, const Clock& from) {
    if (from.known.empty()) return;
    Clocks& c = *engine->clocks;
    raise(row(thread), from.known.data(), c.threads);
    uint16_t& turn = c.turned[static_cast<size_t>(thread)];
    turn = next(turn);
    c.crossed = c.now;
}

void order_warp(int warp, unsigned mask) {
    Clocks& c = *engine->clocks;
    size_t first = crosses_warps() ? 0 : static_cast<size_t>(warp) * 32, n = crosses_warps() ? c.threads : 32;
    uint16_t all[THREADS];
    std::fill(all, all + n, static_cast<uint16_t>(0));
    for (unsigned m = mask; m; m &= m - 1) {
        int t = warp * 32 + __builtin_ctz(m);
        uint16_t* mine = row(t);
        mine[t] = c.times[static_cast<size_t>(t)];
        raise(all, mine + first, n);
    }
    for (unsigned m = mask; m; m &= m - 1) {
        size_t t = static_cast<size_t>(warp * 32 + __builtin_ctz(m));
        std::copy(all, all + n, c.known.data() + t * c.threads + first);
        c.times[t] = next(c.times[t]);
        c.turned[t] = next(c.turned[t]);
    }
}

} // namespace simt
