// The engine: schedules the fibers of a block, and runs the blocks of a launch one after another.
#include "engine.h"
#include "async.h"
#include "context.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sys/mman.h>

namespace simt {

__thread Engine* engine;
__thread Place* place;

namespace {

std::vector<Kernel>& kernels() {
    static std::vector<Kernel> all;
    return all;
}

// Rounds in which nothing but polling threads ran, until the block is taken to be deadlocked.
constexpr unsigned IDLE_ROUNDS = 1000;

void jump(int to) { // -1: back to run_block
    int from = engine->running;
    if (from == to) return;
    engine->switches++;
    engine->running = to;
    void** save = from >= 0 ? &engine->fibers[from].stack : &engine->main_stack;
    if (to >= 0) place = &engine->fibers[to].place;
    simt_switch(save, to >= 0 ? engine->fibers[to].stack : engine->main_stack);
}

[[noreturn]] void deadlock() {
    std::map<std::string, std::vector<int>> waiting;
    for (int i = 0; i < engine->threads; i++) {
        const Fiber& f = engine->fibers[i];
        char text[512];
        if (f.state == State::EXITED) {
            snprintf(text, sizeof text, "exited");
        } else {
            const char* how = f.state == State::POLLS ? "spin in" : "wait in";
            snprintf(text, sizeof text, "%s %s at %s:%d", how, f.site->what, f.site->file, f.site->line);
        }
        waiting[text].push_back(i);
    }
    std::string message;
    for (auto& [text, threads] : waiting) {
        if (!message.empty()) message += ", ";
        message += std::to_string(threads.size()) + " thread(s) from " + std::to_string(threads[0]) + " on " + text;
    }
    fail("deadlock: %s", message.c_str());
}

// A lane of the ready ones: the first, or any.
int pick_lane(unsigned ready) {
    if (!engine->options.random) return __builtin_ctz(ready);
    int by = static_cast<int>(draw() & 31);
    unsigned turned = by ? ready >> by | ready << (32 - by) : ready;
    return (__builtin_ctz(turned) + by) & 31;
}

// The thread that runs next; -1 once all have exited.
int pick() {
    for (int round = 0;; round++) {
        int warps = static_cast<int>(engine->ready.size());
        int first = engine->running >= 0 ? engine->fibers[engine->running].place.warp : 0;
        if (engine->options.random) {
            first = static_cast<int>(draw() % static_cast<uint64_t>(warps));
            if (draw() % 16 == 0) land_one();
        }
        for (int k = 0; k < warps; k++) {
            int warp = first + k < warps ? first + k : first + k - warps;
            if (engine->ready[warp]) return warp * 32 + pick_lane(engine->ready[warp]);
        }
        if (engine->live == 0) return -1;
        if (round > 0) deadlock();
        // Nothing can run but threads that poll: copies land now, as late as they may.
        if (!land_one() && ++engine->idle_rounds > IDLE_ROUNDS) deadlock();
        for (int i = 0; i < engine->threads; i++) {
            if (engine->fibers[i].state == State::POLLS) make_ready(i);
        }
    }
}

void fiber_main() {
    engine->kernel->run(engine->args);
    int me = engine->running;
    exit_async(me);
    engine->idle_rounds = 0;
    engine->fibers[me].state = State::EXITED;
    engine->live--;
    engine->ready[me >> 5] &= ~(1u << (me & 31));
    engine->alive[me >> 5] &= ~(1u << (me & 31));
    exit_barriers(me);
    jump(pick());
    abort();
}

void run_block(dim3 block, dim3 blocks, dim3 threads) {
    for (int i = 0; i < engine->threads; i++) {
        Fiber& f = engine->fibers[i];
        unsigned n = static_cast<unsigned>(i);
        uint3 thread{n % threads.x, n / threads.x % threads.y, n / (threads.x * threads.y)};
        f.place = Place{thread, {block.x, block.y, block.z}, threads, blocks, i & 31, i >> 5, i};
        f.state = State::READY;
        f.site = nullptr;
        // Tops at different offsets, or else all stacks would fall in the same sets of the cache.
        f.stack = new_stack(stack_of(i) + STACK - static_cast<size_t>(i & 63) * 64, fiber_main);
    }
    size_t warps = static_cast<size_t>(engine->threads) / 32;
    engine->ready.assign(warps, 0xffffffffu);
    engine->alive = engine->ready;
    engine->live = engine->threads;
    engine->idle_rounds = 0;
    reset_barriers();
    reset_shared();
    reset_async();
    start_block();
    engine->running = -1;
    jump(pick());
    end_async();
}

} // namespace

Registration::Registration(const char* name, void (*run)(const void*), size_t args, unsigned threads) {
    kernels().push_back(Kernel{name, run, args, threads});
}

const Kernel* find_kernel(const char* name) {
    for (const Kernel& k : kernels()) {
        if (k.name == name) return &k;
    }
    return nullptr;
}

uint64_t draw() {
    engine->random ^= engine->random << 13;
    engine->random ^= engine->random >> 7;
    engine->random ^= engine->random << 17;
    return engine->random;
}

bool same_site(const Site* a, const Site* b) {
    return a == b || (a->id == b->id && a->line == b->line && !strcmp(a->file, b->file));
}

void make_ready(int thread) {
    engine->fibers[thread].state = State::READY;
    engine->ready[thread >> 5] |= 1u << (thread & 31);
}

void wait_as(State state, const Site* site) {
    int me = engine->running;
    engine->fibers[me].state = state;
    engine->fibers[me].site = site;
    engine->ready[me >> 5] &= ~(1u << (me & 31));
}

void run_others() {
    if (engine->options.most_switches && engine->switches > engine->options.most_switches) {
        fail("more than %llu switches between threads", static_cast<unsigned long long>(engine->options.most_switches));
    }
    jump(pick());
}

void poll(const Site* site) {
    wait_as(State::POLLS, site);
    run_others();
}

// Goes back to run_block, for good: the stacks of the block are left as they are.
void fail(const char* format, ...) {
    char text[4096];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (!engine->failed) {
        engine->error = text;
        if (engine->running >= 0) {
            const Place& p = current().place;
            snprintf(text, sizeof text, " [block (%u, %u, %u), thread (%u, %u, %u), warp %d, lane %d, ", p.block.x,
                     p.block.y, p.block.z, p.thread.x, p.thread.y, p.thread.z, p.warp, p.lane);
            engine->error += text;
            engine->error += engine->options.random ? "seed " + std::to_string(engine->options.seed) + "]" : "in turn]";
        }
    }
    engine->failed = true;
    if (engine->running >= 0) jump(-1);
    abort();
}

Engine::~Engine() {
    if (stacks) munmap(stacks, STACK * THREADS);
}

void run(dim3 blocks, dim3 threads) {
    engine->failed = false;
    engine->error.clear();
    engine->launch++;
    engine->switches = engine->barriers = engine->collectives = 0;
    engine->random = (engine->options.seed + 1) * 0x9e3779b97f4a7c15ull | 1;
    engine->threads = static_cast<int>(threads.x * threads.y * threads.z);
    if (!engine->stacks) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* at = mmap(nullptr, STACK * THREADS, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (at == MAP_FAILED) {
            engine->failed = true;
            engine->error = "no memory for the threads' stacks";
            return;
        }
        engine->stacks = static_cast<char*>(at);
        for (int i = 0; i < THREADS; i++) mprotect(stack_of(i), PAGE, PROT_NONE);
        engine->fibers.resize(THREADS);
    }
    start_launch();
    uint64_t count = static_cast<uint64_t>(blocks.x) * blocks.y * blocks.z;
    std::vector<uint32_t> order(count);
    for (uint64_t i = 0; i < count; i++) order[i] = static_cast<uint32_t>(i);
    for (uint64_t i = count; engine->options.random && i > 1; i--) std::swap(order[i - 1], order[draw() % i]);
    for (uint64_t i = 0; i < count && !engine->failed; i++) {
        uint32_t b = order[i];
        run_block(dim3(b % blocks.x, b / blocks.x % blocks.y, b / (blocks.x * blocks.y)), blocks, threads);
    }
    engine->running = -1;
    place = nullptr;
}

} // namespace simt

extern "C" {
size_t simt_kernels() { return simt::kernels().size(); }
const char* simt_kernel(size_t i, size_t* args, unsigned* threads) {
    const simt::Kernel& k = simt::kernels()[i];
    *args = k.args;
    *threads = k.threads;
    return k.name.c_str();
}
}
