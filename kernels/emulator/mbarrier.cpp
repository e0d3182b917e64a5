// Barriers in shared memory: phases of arrivals and of bytes that copies bring.
#include "async.h"
#include "clocks.h"
#include "engine.h"
#include "twins.h"
#include <algorithm>
#include <map>

namespace simt {

namespace {

struct Mbarrier {
    int count, pending, bytes;
    unsigned phase;
    bool unseen; // copies have landed, and nobody has waited for them
    // What the arrivals of the running phase released, and what complete phases did.
    Clock arriving, complete;
};

// What lies in shared memory where a barrier is: a store over it shows.
constexpr Word TOKEN = 0x6d62617272696572;

} // namespace

struct Mbarriers {
    std::map<Word*, Mbarrier> all;
};
std::shared_ptr<Mbarriers> new_mbarriers() { return std::make_shared<Mbarriers>(); }

namespace {

std::map<Word*, Mbarrier>& all() { return engine->mbarriers->all; }

Mbarrier& find(const Site* site, Word* bar) {
    auto found = all().find(bar);
    if (found == all().end()) {
        fail("%s at %s:%d on a barrier that has not been initialised", site->what, site->file, site->line);
    }
    if (*bar != TOKEN) fail("%s at %s:%d on a barrier that has been written over", site->what, site->file, site->line);
    access_at(site, bar, sizeof *bar, Access::READ);
    return found->second;
}

void step(Mbarrier& m) {
    if (m.pending || m.bytes) return;
    m.phase++;
    m.pending = m.count;
    m.complete.merge(m.arriving);
    m.arriving = Clock();
    engine->idle_rounds = 0;
}

} // namespace

void reset_mbarriers() { all().clear(); }

bool mbarrier_unseen() {
    return std::any_of(all().begin(), all().end(), [](const auto& m) { return m.second.unseen; });
}

void mbarrier_init(const Site* site, Word* bar, int count) {
    shared_offset(bar);
    if (reinterpret_cast<uintptr_t>(bar) & 7) {
        fail("misaligned: %s at %s:%d takes an address aligned to 8 bytes", site->what, site->file, site->line);
    }
    if (count < 1 || count >= 1 << 20) {
        fail("%s at %s:%d for %d arrivals", site->what, site->file, site->line, count);
    }
    access_at(site, bar, sizeof *bar, Access::WRITE);
    *bar = TOKEN;
    all()[bar] = Mbarrier{count, count, 0, 0, false, {}, {}};
}

void mbarrier_arrive(const Site* site, Word* bar, int bytes) {
    Mbarrier& m = find(site, bar);
    if (!m.pending) {
        fail("%s at %s:%d: more than the %d arrivals of a phase", site->what, site->file, site->line, m.count);
    }
    if (bytes < 0) fail("%s at %s:%d expects %d bytes", site->what, site->file, site->line, bytes);
    m.bytes += bytes;
    m.pending--;
    release(engine->running, m.arriving);
    step(m);
}

bool mbarrier_try_wait(const Site* site, Word* bar, int parity) {
    Mbarrier* m = &find(site, bar);
    if ((m->phase & 1) == static_cast<unsigned>(parity & 1)) {
        poll(site);
        m = &find(site, bar);
    }
    if ((m->phase & 1) == static_cast<unsigned>(parity & 1)) return false;
    m->unseen = false;
    acquire(engine->running, m->complete);
    return true;
}

void mbarrier_check(const Site* site, Word* bar) { find(site, bar); }

void mbarrier_landed(Word* bar, int bytes, int issuer, uint16_t time) {
    auto found = all().find(bar);
    if (found == all().end() || *bar != TOKEN) fail("a copy lands at a barrier that is no longer there");
    Mbarrier& m = found->second;
    m.bytes -= bytes;
    m.unseen = true;
    Clock copied;
    copied.known.resize(static_cast<size_t>(engine->threads));
    copied.known[static_cast<size_t>(issuer)] = time;
    m.arriving.merge(copied);
    step(m);
}

} // namespace simt
