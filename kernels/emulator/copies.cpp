// Asynchronous copies: cp.async, which a thread waits for, and TMA, which a barrier in shared memory waits for.
#include "async.h"
#include "clocks.h"
#include "engine.h"
#include "twins.h"
#include <algorithm>

namespace simt {

namespace {

// What Emulator::tensor_map writes: a plane of 16-bit numbers.
struct Map {
    Word magic, base, columns, rows, pitch, box_columns, box_rows, swizzle;
};
constexpr Word MAGIC = 0x46495f4d4150ull; // any number that no other data starts with
static_assert(sizeof(Map) <= sizeof(TensorMap), "the host's reading of a tensor map");

struct Own { // a cp.async
    const Site* site;
    char* to;
    const char* from;
    size_t bytes;
    bool take;
};
struct Piece { // of a bulk copy, without a gap in either memory; from == nullptr: zeros, to == nullptr: dropped
    char* to;
    const char* from;
    size_t bytes;
};
struct Load {
    std::vector<Piece> pieces;
    Word* bar;
    int bytes, issuer;
    uint16_t time;
};
struct Store {
    std::vector<Piece> pieces;
};
template <class T> struct Groups {
    std::vector<T> open;
    std::vector<std::vector<T>> closed;
};

} // namespace

struct Copies {
    Groups<Own> own[THREADS];
    Groups<Store> stores[THREADS];
    std::vector<Load> loads;
    uint8_t fences[THREADS] = {};
};
std::shared_ptr<Copies> new_copies() { return std::make_shared<Copies>(); }

namespace {

Copies& copies() { return *engine->copies; }

void land(const Own& c) {
    if (engine->options.checked) mark(c.to, c.bytes, IN_FLIGHT, false);
    if (c.take) {
        access_at(c.site, c.from, c.bytes, Access::READ);
        memcpy(c.to, c.from, c.bytes);
    } else {
        memset(c.to, 0, c.bytes);
    }
    access_at(c.site, c.to, c.bytes, Access::WRITE);
}

void land(const Piece& p) {
    if (!p.to) return;
    if (p.from) {
        memcpy(p.to, p.from, p.bytes);
    } else {
        memset(p.to, 0, p.bytes);
    }
}

void land_load(size_t i) {
    Load load = std::move(copies().loads[i]);
    copies().loads.erase(copies().loads.begin() + static_cast<ptrdiff_t>(i));
    for (const Piece& p : load.pieces) {
        if (engine->options.checked) mark(p.to, p.bytes, IN_FLIGHT, false);
        land(p);
    }
    mbarrier_landed(load.bar, load.bytes, load.issuer, load.time);
}

const Map& map_of(const Site* site, const TensorMap* map) {
    const Map& m = *reinterpret_cast<const Map*>(map);
    if (reinterpret_cast<uintptr_t>(map) & 63) {
        fail("misaligned: %s at %s:%d takes a tensor map aligned to 64 bytes", site->what, site->file, site->line);
    }
    if (m.magic != MAGIC) fail("%s at %s:%d on what is no tensor map", site->what, site->file, site->line);
    return m;
}

// The box at column x, row y, in runs of 16 bytes, which the swizzle moves whole, or of single elements at an edge.
std::vector<Piece> box_of(const Site* site, const Map& m, char* shared, int x, int y) {
    size_t row_bytes = static_cast<size_t>(m.box_columns) * 2;
    size_t alignment = m.swizzle ? 1024 : 128;
    if (shared_offset(shared) % alignment) {
        fail("misaligned: %s at %s:%d takes shared memory aligned to %zu bytes", site->what, site->file, site->line,
             alignment);
    }
    auto inside = [](long long at, Word size) { return at >= 0 && at < static_cast<long long>(size); };
    std::vector<Piece> pieces;
    for (Word r = 0; r < m.box_rows; r++) {
        for (Word c = 0; c < m.box_columns; c++) {
            size_t offset = r * row_bytes + c * 2;
            if (m.swizzle) offset ^= (offset >> 7 & 7) << 4;
            long long column = x + static_cast<long long>(c), row = y + static_cast<long long>(r);
            const char* global = nullptr;
            if (inside(column, m.columns) && inside(row, m.rows)) {
                global = reinterpret_cast<const char*>(m.base) + row * static_cast<long long>(m.pitch) + column * 2;
            }
            Piece next{shared + offset, global, 2};
            if (!pieces.empty() && c % 8) {
                Piece& last = pieces.back();
                if (!last.from == !global && (!global || last.from + last.bytes == global)) {
                    last.bytes += 2;
                    continue;
                }
            }
            pieces.push_back(next);
        }
    }
    return pieces;
}

void issue(const Site* site, std::vector<Piece> pieces, Word* bar) {
    mbarrier_check(site, bar);
    int bytes = 0, me = engine->running;
    for (const Piece& p : pieces) {
        bytes += static_cast<int>(p.bytes);
        if (p.from) access_at(site, p.from, p.bytes, Access::READ);
        access_at(site, p.to, p.bytes, Access::COPY);
        if (engine->options.checked) mark(p.to, p.bytes, IN_FLIGHT, true);
    }
    uint16_t time = time_of(me);
    Clock until_now;
    release(me, until_now); // so that what the thread does from here on has another time
    copies().loads.push_back(Load{std::move(pieces), bar, bytes, me, time});
}

template <class T, class F> void wait_for(Groups<T>& groups, int most, F land) {
    while (static_cast<int>(groups.closed.size()) > most) {
        for (const T& copy : groups.closed.front()) land(copy);
        groups.closed.erase(groups.closed.begin());
    }
}

void land_store(const Store& store) {
    for (const Piece& p : store.pieces) {
        if (engine->options.checked) mark(p.from, p.bytes, IN_USE, false);
        land(p);
    }
}

} // namespace

void reset_async() {
    for (auto& g : copies().own) g = {};
    for (auto& g : copies().stores) g = {};
    copies().loads.clear();
    memset(copies().fences, 0, sizeof copies().fences);
    reset_mbarriers();
    reset_wgmma();
}

bool land_one() {
    if (copies().loads.empty()) return false;
    land_load(engine->options.random ? draw() % copies().loads.size() : 0);
    return true;
}

void exit_async(int thread) {
    wait_for(copies().own[thread], 0, [](const Own& c) { land(c); });
    if (!copies().stores[thread].open.empty() || !copies().stores[thread].closed.empty()) {
        fail("a thread exits without a wait for the stores of TMA that it has issued");
    }
    exit_wgmma(thread);
}

void end_async() {
    if (engine->failed || (copies().loads.empty() && !mbarrier_unseen())) return;
    engine->failed = true;
    engine->error = "a block ends and nobody has waited for a copy of TMA to its shared memory";
}

uint8_t proxy_fences(int thread) { return copies().fences[thread]; }
void fence_proxy_async() { copies().fences[engine->running]++; }

void cp_async(const Site* site, void* to, const void* from, size_t bytes, bool take) {
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) & (bytes - 1)) {
        fail("misaligned: %s at %s:%d takes addresses aligned to %zu bytes", site->what, site->file, site->line, bytes);
    }
    shared_offset(to);
    Own copy{site, static_cast<char*>(to), static_cast<const char*>(from), bytes, take};
    // A write both now and when it lands.
    access_at(site, to, bytes, Access::WRITE);
    if (engine->options.checked) mark(copy.to, bytes, IN_FLIGHT, true);
    copies().own[engine->running].open.push_back(copy);
}

void cp_async_commit() {
    auto& groups = copies().own[engine->running];
    groups.closed.push_back(std::move(groups.open));
    groups.open.clear();
}

void cp_async_wait(int most) {
    wait_for(copies().own[engine->running], most, [](const Own& c) { land(c); });
}

void tma_load_2d(const Site* site, void* to, const TensorMap* map, Word* bar, int x, int y) {
    issue(site, box_of(site, map_of(site, map), static_cast<char*>(to), x, y), bar);
}

void bulk_load(const Site* site, void* to, const void* from, int bytes, Word* bar) {
    uintptr_t both = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from);
    if (both & 15 || bytes <= 0 || bytes % 16) {
        fail("misaligned: %s at %s:%d takes addresses and sizes in steps of 16 bytes", site->what, site->file,
             site->line);
    }
    shared_offset(to);
    issue(site, {{static_cast<char*>(to), static_cast<const char*>(from), static_cast<size_t>(bytes)}}, bar);
}

void tma_store_2d(const Site* site, const TensorMap* map, const void* from, int x, int y) {
    char* shared = const_cast<char*>(static_cast<const char*>(from));
    Store store{box_of(site, map_of(site, map), shared, x, y)};
    for (Piece& p : store.pieces) {
        access_at(site, p.to, p.bytes, Access::PEEK);
        if (engine->options.checked) mark(p.to, p.bytes, IN_USE, true);
        char* global = const_cast<char*>(p.from);
        p.from = p.to;
        p.to = global;
        if (global) access_at(site, global, p.bytes, Access::COPY);
    }
    copies().stores[engine->running].open.push_back(std::move(store));
}

void tma_store_commit() {
    auto& groups = copies().stores[engine->running];
    groups.closed.push_back(std::move(groups.open));
    groups.open.clear();
}

void tma_store_wait(int most) { wait_for(copies().stores[engine->running], most, land_store); }

} // namespace simt
