// The checker: bounds, races, uninitialised reads, for every access of a kernel to memory.
//
// Two accesses to a byte race if one of them writes, not both are atomic, and neither is ordered before the other: by
// the same thread, a barrier of the block, or what clocks.h knows. Blocks are ordered by nothing but a chain of fences
// and atomics: whoever has seen another block's atomic may read what that block wrote.
#include "checker.h"
#include "async.h"
#include "clocks.h"
#include "engine.h"
#include <algorithm>
#include <cstdio>
#include <sys/mman.h>

// The bounds of the program's own image, where constants of kernels lie.
extern char __executable_start[] __attribute__((weak));
extern char _end[] __attribute__((weak));

namespace simt {

struct Checks {
    uint32_t first_epoch = 0;           // of the launch
    std::vector<uint32_t> block_epochs; // the first epoch of every block so far
    std::vector<bool> seen;             // blocks whose writes the present one may read
    bool fenced = false;                // a thread of the present block has executed a fence
    std::map<const char*, std::vector<bool>> published; // by the address of an atomic: the blocks that it makes visible
};
std::shared_ptr<Checks> new_checks() { return std::make_shared<Checks>(); }

namespace {

Checks& checks() { return *engine->checks; }

size_t block_of(uint32_t epoch) {
    auto after = std::upper_bound(checks().block_epochs.begin(), checks().block_epochs.end(), epoch);
    return static_cast<size_t>(after - checks().block_epochs.begin()) - 1;
}

bool visible(size_t block) { return block < checks().seen.size() && checks().seen[block]; }

// Two threads in different blocks of the launch, in an order that nothing has established.
bool in_unseen_block(uint32_t epoch) {
    if (epoch < checks().first_epoch || epoch >= checks().block_epochs.back()) return false;
    return !visible(block_of(epoch));
}

const char* word(Access a) {
    switch (a) {
        case Access::READ: return "read";
        case Access::WRITE: return "write";
        case Access::ATOMIC: return "atomic";
        case Access::COPY: return "asynchronous copy";
        default: return "asynchronous read";
    }
}

std::string at_line(By by) {
    if (!by.site) return " at " + source_line(by.pc);
    return std::string(" by ") + by.site->what + " at " + by.site->file + ":" + std::to_string(by.site->line);
}

bool in_image(const char* p) { return p >= __executable_start && p < _end; }

[[noreturn]] void out_of_bounds(const char* p, size_t n, Access how, By by) {
    std::string line = at_line(by);
    if (p >= engine->stacks && p < engine->stacks + STACK * THREADS) {
        fail("%s of %zu bytes in another thread's local memory%s", word(how), n, line.c_str());
    }
    const Range* near = nullptr;
    size_t past = 0;
    auto consider = [&](const Range& r) {
        if (p >= r.high && p < r.high + PAGE && (!near || p - r.high < static_cast<ptrdiff_t>(past))) {
            near = &r;
            past = static_cast<size_t>(p - r.high);
        }
    };
    consider(engine->shared_range);
    for (auto& [at, range] : engine->buffers) consider(range);
    if (near) {
        fail("out of bounds: %s of %zu bytes, %zu bytes past the end of %s%s", word(how), n, past,
             name_of(*near, near->high).c_str(), line.c_str());
    }
    for (auto& [at, range] : engine->buffers) {
        if (p >= range.low || p + PAGE < range.low) continue;
        fail("out of bounds: %s of %zu bytes, %td bytes before %s%s", word(how), n, range.low - p,
             name_of(range, range.high).c_str(), line.c_str());
    }
    fail("out of bounds: %s of %zu bytes at %p, which is in no buffer%s", word(how), n, static_cast<const void*>(p),
         line.c_str());
}

struct Checked {
    const Range& range;
    const char* at; // the byte
    Access how;
    By by;
    int thread;
    // The present: the epoch and the block's first, the thread's clock and turns.
    uint32_t now, start;
    uint16_t time, turn;
    bool writes() const { return how != Access::READ && how != Access::PEEK; }
    bool shared() const { return range.kind == Range::SHARED; }

    [[noreturn]] void race(const char* other_kind, int other, bool other_block) const {
        char who[64];
        snprintf(who, sizeof who, "%sthread %d", other_block ? "another block's " : "", other);
        fail("race: %s of %s%s is not ordered after the %s by %s", word(how), name_of(range, at).c_str(),
             at_line(by).c_str(), other_kind, who);
    }
};

void check_write_before(const Checked& c, const Shadow& s, bool this_block) {
    if (!s.write_epoch || (c.how == Access::ATOMIC && s.is & ATOMIC)) return;
    const char* kind = s.is & ATOMIC ? "atomic" : s.is & BY_COPY ? "asynchronous copy" : "write";
    if (this_block) {
        if (s.write_epoch == c.now && !ordered(c.thread, s.writer, s.write_time)) c.race(kind, s.writer, false);
    } else if (!c.shared() && in_unseen_block(s.write_epoch)) {
        c.race(kind, s.writer, true);
    }
}

void check_reads_before(const Checked& c, const Shadow& s, bool this_block) {
    if (!s.read_epoch) return;
    if (!this_block) {
        if (!c.shared() && in_unseen_block(s.read_epoch)) c.race("read", s.reader, true);
        return;
    }
    if (s.read_epoch != c.now) return;
    if (!ordered(c.thread, s.reader, s.read_time)) c.race("read", s.reader, false);
    // One reader is remembered. Others are known to be unordered where nothing has happened that could order them.
    bool same_warp = s.reader >> 5 == c.thread >> 5;
    bool lanes = s.is & MANY_LANES && same_warp && s.read_turn == c.turn;
    bool warps = s.is & MANY_WARPS && !crosses_warps();
    if (lanes || warps) c.race("read by several threads, one of which is", s.reader, false);
}

void check_byte(const Checked& c, Shadow& s) {
    bool written_here = s.write_epoch >= c.start, read_here = s.read_epoch >= c.start;
    if (c.shared() && c.at < c.range.end_of_static && !(s.is & IN_ARRAY)) {
        fail("out of bounds: %s beyond %s%s", word(c.how), name_of(c.range, c.at).c_str(), at_line(c.by).c_str());
    }
    if (s.is & IN_FLIGHT && written_here) {
        fail("%s of %s%s while an asynchronous copy to it is in flight, which thread %d issued", word(c.how),
             name_of(c.range, c.at).c_str(), at_line(c.by).c_str(), s.writer);
    }
    if (s.is & IN_USE && c.writes() && c.shared()) {
        fail("%s of %s%s while something asynchronous that reads it has not been waited for", word(c.how),
             name_of(c.range, c.at).c_str(), at_line(c.by).c_str());
    }
    if (!c.writes() && c.shared() && !(s.is & WRITTEN && written_here)) {
        fail("uninitialised: read of %s%s", name_of(c.range, c.at).c_str(), at_line(c.by).c_str());
    }
    check_write_before(c, s, written_here);
    if (c.how == Access::PEEK) {
        if (!(s.is & BY_COPY) && s.fences == proxy_fences(s.writer)) {
            fail("%s of %s%s, which thread %d wrote and has not executed fence_proxy_async since", word(c.how),
                 name_of(c.range, c.at).c_str(), at_line(c.by).c_str(), s.writer);
        }
        return;
    }
    uint16_t thread = static_cast<uint16_t>(c.thread);
    if (c.writes()) {
        check_reads_before(c, s, read_here);
        s.write_epoch = c.now;
        s.writer = thread;
        s.write_time = c.time;
        s.fences = proxy_fences(c.thread);
        uint8_t how = c.how == Access::ATOMIC ? ATOMIC : c.how == Access::COPY ? BY_COPY : 0;
        s.is = static_cast<uint8_t>((s.is & ~(ATOMIC | BY_COPY)) | WRITTEN | how);
        return;
    }
    if (s.read_epoch != c.now) {
        s.is = static_cast<uint8_t>(s.is & ~(MANY_LANES | MANY_WARPS));
    } else if (s.reader >> 5 != c.thread >> 5) {
        s.is = static_cast<uint8_t>((s.is & ~MANY_LANES) | MANY_WARPS);
    } else if (s.read_turn != c.turn) {
        s.is = static_cast<uint8_t>(s.is & ~MANY_LANES);
    } else if (s.reader != thread) {
        s.is |= MANY_LANES;
    }
    s.read_epoch = c.now;
    s.reader = thread;
    s.read_time = c.time;
    s.read_turn = c.turn;
}

} // namespace

Shadow* new_shadow(size_t bytes) {
    // Zeros that take no memory until they are touched.
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* at = mmap(nullptr, bytes * sizeof(Shadow) + 1, PROT_READ | PROT_WRITE, flags, -1, 0);
    return at == MAP_FAILED ? nullptr : static_cast<Shadow*>(at);
}
void free_shadow(Shadow* shadow, size_t bytes) { munmap(shadow, bytes * sizeof(Shadow) + 1); }

Range* find_range(const char* p) {
    Engine& e = *engine;
    if (p >= e.shared_range.low && p < e.shared_range.high) return &e.shared_range;
    if (e.last_buffer && p >= e.last_buffer->low && p < e.last_buffer->high) return e.last_buffer;
    auto after = e.buffers.upper_bound(p);
    if (after == e.buffers.begin()) return nullptr;
    Range& range = (--after)->second;
    if (p >= range.high) return nullptr;
    e.last_buffer = &range;
    return e.last_buffer;
}

void check(const char* p, size_t n, Access how, By by, int thread) {
    Range* range = find_range(p);
    if (!range) {
        const char* own = stack_of(thread);
        if (p >= own && p + n <= own + STACK) return;
        const char* args = static_cast<const char*>(engine->args);
        bool readable = in_image(p) || (p >= args && p + n <= args + engine->args_bytes);
        if (readable && how == Access::READ) return;
        if (readable) fail("write to constant memory%s", at_line(by).c_str());
        out_of_bounds(p, n, how, by);
    }
    if (p + n > range->high) {
        fail("out of bounds: %s of %zu bytes reaches past the end of %s%s", word(how), n, name_of(*range, p).c_str(),
             at_line(by).c_str());
    }
    if (!range->shadow) return;
    Checked c{*range, p, how, by, thread, epoch(), checks().block_epochs.back(), time_of(thread), turns(thread)};
    Shadow* shadow = range->shadow + (p - range->low);
    Shadow before = shadow[0];
    check_byte(c, shadow[0]);
    for (size_t i = 1; i < n; i++) {
        // What has the same history is judged the same, and bytes of one number have.
        if (!memcmp(&shadow[i], &before, sizeof before)) {
            shadow[i] = shadow[i - 1];
            continue;
        }
        before = shadow[i];
        c.at = p + i;
        check_byte(c, shadow[i]);
    }
}

void mark(const char* at, size_t bytes, uint8_t flag, bool on) {
    Range* range = find_range(at);
    if (!range || !range->shadow) return;
    Shadow* shadow = range->shadow + (at - range->low);
    for (size_t i = 0; i < bytes; i++) {
        shadow[i].is = static_cast<uint8_t>(on ? shadow[i].is | flag : shadow[i].is & ~flag);
    }
}

void start_launch() {
    start_clocks(engine->threads);
    checks().first_epoch = epoch();
    checks().block_epochs.clear();
    checks().published.clear();
}

void start_block() {
    next_epoch();
    checks().block_epochs.push_back(epoch());
    checks().seen.assign(checks().block_epochs.size(), false);
    checks().seen.back() = true;
    checks().fenced = false;
}

void fence() { checks().fenced = true; }

// A fence, by whichever thread, and then an atomic publish all that the block has seen; whoever takes part in the
// atomic later sees it.
void atomic(const void* at, size_t bytes) {
    if (!engine->options.checked || engine->running < 0) return;
    const char* p = static_cast<const char*>(at);
    check(p, bytes, Access::ATOMIC, {__builtin_return_address(0), nullptr}, engine->running);
    Range* range = find_range(p);
    if (!range || range->kind != Range::GLOBAL) return;
    std::vector<bool>& blocks = checks().published[p];
    for (size_t i = 0; i < blocks.size(); i++) {
        if (blocks[i]) checks().seen[i] = true;
    }
    if (checks().fenced) {
        blocks.resize(std::max(blocks.size(), checks().seen.size()));
        for (size_t i = 0; i < checks().seen.size(); i++) {
            if (checks().seen[i]) blocks[i] = true;
        }
    }
}

void access_at(const Site* site, const void* at, size_t bytes, Access how) {
    if (engine->options.checked) check(static_cast<const char*>(at), bytes, how, {nullptr, site}, engine->running);
}

void undefined_lane(int lane, unsigned mask) {
    if (engine->options.checked) fail("a shuffle reads lane %d, which is not in mask %08x", lane, mask);
}

} // namespace simt
