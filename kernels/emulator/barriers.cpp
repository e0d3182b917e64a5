// Where threads meet: the block's barrier, named barriers, and collectives of a warp.
#include "async.h"
#include "clocks.h"
#include "engine.h"

namespace simt {

namespace {

struct Named {
    int threads = 0, arrived = 0;
    const Site* site = nullptr;
    std::vector<int> waiting;
    unsigned lanes[WARPS] = {};
    Clock clock;
};

// What a warpgroup is doing together.
struct Group {
    const Site* site = nullptr;
    int arrived = 0;
    void* args[128];
};

} // namespace

struct Barriers {
    Named named[16];
    Group groups[THREADS / 128];
};
std::shared_ptr<Barriers> new_barriers() { return std::make_shared<Barriers>(); }

namespace {

void release_block() {
    engine->barriers++;
    engine->at_barrier = 0;
    for (int i = 0; i < 3; i++) engine->voted[i] = engine->votes[i];
    engine->votes[COUNT] = 0;
    engine->votes[AND] = 1;
    engine->votes[OR] = 0;
    next_epoch();
    for (int i = 0; i < engine->threads; i++) {
        if (engine->fibers[i].state == State::IN_BLOCK) make_ready(i);
    }
}

} // namespace

void reset_barriers() {
    engine->at_barrier = 0;
    engine->votes[COUNT] = 0;
    engine->votes[AND] = 1;
    engine->votes[OR] = 0;
    engine->meetings.resize(WARPS);
    for (auto& m : engine->meetings) m.clear();
    for (Named& n : engine->meeting_places->named) n = Named();
    for (Group& g : engine->meeting_places->groups) g = Group();
}

void exit_barriers(int thread) {
    int lane = thread & 31;
    for (const Meeting& m : engine->meetings[thread >> 5]) {
        if (!(m.mask >> lane & 1)) continue;
        fail("lane %d exits while lanes %08x wait for it in %s at %s:%d", lane, m.arrived, m.what.site->what,
             m.what.site->file, m.what.site->line);
    }
    if (!engine->at_barrier) return;
    const Site* b = engine->barrier;
    if (engine->options.checked) {
        fail("a thread exits while %d others wait in %s at %s:%d", engine->at_barrier, b->what, b->file, b->line);
    }
    if (engine->live == engine->at_barrier) release_block();
}

void sync_block(const Site* site) {
    engine->idle_rounds = 0;
    if (engine->options.checked && engine->live != engine->threads) {
        fail("%s at %s:%d after %d thread(s) of the block have exited", site->what, site->file, site->line,
             engine->threads - engine->live);
    }
    if (engine->at_barrier == 0) {
        engine->barrier = site;
    } else if (!same_site(engine->barrier, site)) {
        fail("divergent barrier: %s at %s:%d while others wait in %s at %s:%d", site->what, site->file, site->line,
             engine->barrier->what, engine->barrier->file, engine->barrier->line);
    }
    wait_as(State::IN_BLOCK, site);
    if (++engine->at_barrier == engine->live) release_block();
    run_others();
}

int sync_block_vote(const Site* site, int predicate, Vote vote) {
    engine->votes[COUNT] += predicate != 0;
    engine->votes[AND] &= predicate != 0;
    engine->votes[OR] |= predicate != 0;
    sync_block(site);
    return engine->voted[vote];
}

void named_barrier(const Site* site, int id, int threads, bool wait) {
    engine->idle_rounds = 0;
    const char* file = site->file;
    int line = site->line, me = engine->running;
    if (id < 1 || id > 15) fail("%s at %s:%d: named barriers are 1 to 15, this is %d", site->what, file, line, id);
    if (threads < 32 || threads % 32 || threads > engine->threads) {
        fail("%s at %s:%d: barrier %d of %d threads, which is not a number of whole warps of the block", site->what,
             file, line, id, threads);
    }
    Named& n = engine->meeting_places->named[id];
    if (n.arrived == 0) {
        n.threads = threads;
        n.site = site;
    } else if (n.threads != threads) {
        fail("%s at %s:%d: barrier %d of %d threads, which others entered as of %d at %s:%d", site->what, file, line,
             id, threads, n.threads, n.site->file, n.site->line);
    }
    unsigned bit = 1u << (me & 31);
    if (n.lanes[me >> 5] & bit) {
        fail("%s at %s:%d: a thread arrives at barrier %d again before it is complete", site->what, file, line, id);
    }
    n.lanes[me >> 5] |= bit;
    release(me, n.clock);
    if (wait) {
        n.waiting.push_back(me);
        wait_as(State::IN_NAMED, site);
    }
    if (++n.arrived == threads) {
        for (int w = 0; w < WARPS; w++) {
            if (!n.lanes[w] || n.lanes[w] == 0xffffffffu) continue;
            fail("%s at %s:%d: barrier %d completes with lanes %08x of warp %d alone", site->what, file, line, id,
                 n.lanes[w], w);
        }
        for (int t : n.waiting) {
            acquire(t, n.clock);
            make_ready(t);
        }
        n = Named();
    }
    if (wait) run_others();
}

void warp_collective(const Collective& what, unsigned mask, void* args) {
    engine->idle_rounds = 0;
    engine->collectives++;
    const Site* site = what.site;
    int warp = current().place.warp, lane = current().place.lane;
    if (!(mask >> lane & 1)) {
        fail("%s at %s:%d: lane %d calls it, which is not in mask %08x", site->what, site->file, site->line, lane,
             mask);
    }
    if (unsigned gone = mask & ~engine->alive[warp]) {
        fail("%s at %s:%d: mask %08x names lanes %08x, which have exited", site->what, site->file, site->line, mask,
             gone);
    }
    if (what.whole && mask != 0xffffffffu) {
        fail("%s at %s:%d needs all 32 lanes", site->what, site->file, site->line);
    }
    auto& meetings = engine->meetings[warp];
    Meeting* meeting = nullptr;
    for (Meeting& m : meetings) {
        if (!(m.mask & mask)) continue;
        const Site* other = m.what.site;
        if (m.mask != mask) {
            fail("warp divergence: %s at %s:%d with mask %08x while lanes %08x wait in %s at %s:%d with mask %08x",
                 site->what, site->file, site->line, mask, m.arrived, other->what, other->file, other->line, m.mask);
        }
        if (!same_site(other, site)) {
            fail("warp divergence: %s at %s:%d while lanes %08x wait in %s at %s:%d", site->what, site->file,
                 site->line, m.arrived, other->what, other->file, other->line);
        }
        meeting = &m;
    }
    if (!meeting) {
        meetings.push_back(Meeting{what, mask, 0, {}});
        meeting = &meetings.back();
    }
    meeting->arrived |= 1u << lane;
    meeting->args[lane] = args;
    wait_as(State::IN_WARP, site);
    if (meeting->arrived == mask) {
        what.op(meeting->args, mask, what.width);
        if (what.orders) order_warp(warp, mask);
        meetings.erase(meetings.begin() + (meeting - meetings.data()));
        for (unsigned m = mask; m; m &= m - 1) make_ready(warp * 32 + __builtin_ctz(m));
    }
    run_others();
}

void warpgroup_collective(const Site* site, void (*op)(void**), void* args) {
    engine->idle_rounds = 0;
    int me = engine->running, first = me & ~127;
    if (first + 128 > engine->threads) {
        fail("%s at %s:%d needs a warpgroup, 128 threads", site->what, site->file, site->line);
    }
    Group& g = engine->meeting_places->groups[me / 128];
    if (g.arrived && !same_site(g.site, site)) {
        fail("warpgroup divergence: %s at %s:%d while others wait in %s at %s:%d", site->what, site->file, site->line,
             g.site->what, g.site->file, g.site->line);
    }
    g.site = site;
    g.args[me - first] = args;
    wait_as(State::IN_GROUP, site);
    if (++g.arrived == 128) {
        op(g.args);
        g.arrived = 0;
        for (int t = first; t < first + 128; t++) make_ready(t);
    }
    run_others();
}

unsigned active_lanes() { return engine->alive[place->warp]; }

} // namespace simt
