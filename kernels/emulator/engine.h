// The state of an emulated device: one launch at a time, one block of it at a time, a fiber for each thread of the
// block. Devices share nothing, so that each may run in a thread of its own.
#pragma once
#include "emulator/checker.h"
#include "emulator/interface.h"
#include <memory>
#include <string>
#include <vector>

namespace simt {

// As many as a block may have.
constexpr int THREADS = 1024, WARPS = 32;
constexpr size_t STACK = 64 << 10, PAGE = 4096;

struct Kernel {
    std::string name;
    void (*run)(const void* args);
    size_t args;
    unsigned threads;
};
const Kernel* find_kernel(const char* name);

struct Options {
    uint64_t seed;
    uint32_t random; // draw the order of threads and blocks from the seed
    uint32_t checked;
    uint64_t most_switches; // 0: any number
};

enum class State : uint8_t { READY, IN_WARP, IN_BLOCK, IN_NAMED, IN_GROUP, POLLS, EXITED };

struct Fiber {
    Place place;
    void* stack = nullptr;
    State state = State::READY;
    const Site* site = nullptr; // where it waits
};

// A collective of a warp that some of its lanes have reached.
struct Meeting {
    Collective what;
    unsigned mask, arrived;
    void* args[32];
};

// What each file keeps to itself.
struct SharedMemory;
struct Barriers;
struct Checks;
struct Clocks;
struct Copies;
struct Mbarriers;
struct Products;
std::shared_ptr<SharedMemory> new_shared_memory();
std::shared_ptr<Barriers> new_barriers();
std::shared_ptr<Checks> new_checks();
std::shared_ptr<Clocks> new_clocks();
std::shared_ptr<Copies> new_copies();
std::shared_ptr<Mbarriers> new_mbarriers();
std::shared_ptr<Products> new_products();

struct Engine {
    Engine() = default;
    Engine(const Engine&) = delete;
    ~Engine();

    Options options{};
    const Kernel* kernel = nullptr;
    const void* args = nullptr;
    size_t args_bytes = 0;
    uint64_t launch = 0;
    uint64_t random = 1;

    std::vector<Fiber> fibers;
    int threads = 0, live = 0;
    int running = -1; // the index of the thread that runs, -1: none does
    std::vector<unsigned> ready, alive; // a word a warp, a bit a lane
    std::vector<std::vector<Meeting>> meetings; // by warp
    char* stacks = nullptr;
    void* main_stack = nullptr;

    int at_barrier = 0;
    const Site* barrier = nullptr;
    int votes[3] = {0, 1, 0}, voted[3] = {0, 0, 0};

    unsigned idle_rounds = 0;
    bool failed = false;
    std::string error;
    uint64_t switches = 0, barriers = 0, collectives = 0;

    // The buffers that the host allocated, by address, and the one that was found last; the block's shared memory.
    std::map<const char*, Range> buffers;
    Range* last_buffer = nullptr;
    int buffer_ids = 0;
    Range shared_range{nullptr, nullptr, nullptr, 0, Range::SHARED, nullptr};

    std::shared_ptr<SharedMemory> shared = new_shared_memory();
    std::shared_ptr<Barriers> meeting_places = new_barriers();
    std::shared_ptr<Checks> checks = new_checks();
    std::shared_ptr<Clocks> clocks = new_clocks();
    std::shared_ptr<Copies> copies = new_copies();
    std::shared_ptr<Mbarriers> mbarriers = new_mbarriers();
    std::shared_ptr<Products> products = new_products();
};
// That of the launch which this thread is in; nullptr: in none.
extern __thread Engine* engine;

uint64_t draw();
inline Fiber& current() { return engine->fibers[static_cast<size_t>(engine->running)]; }
inline char* stack_of(int thread) { return engine->stacks + static_cast<size_t>(thread) * STACK; }

void make_ready(int thread);
// Mark the running thread as waiting; `run_others` then leaves it until it is made ready.
void wait_as(State, const Site*);
void run_others();
bool same_site(const Site*, const Site*);

void reset_barriers();
// A thread has exited: barriers and collectives that count on it.
void exit_barriers(int thread);

// Blocks of shared memory: [static arrays, between red zones][dynamic][red zone].
void start_shared(size_t dynamic);
void reset_shared();
void end_shared();

// Runs all blocks; what went wrong is in engine->error.
void run(dim3 blocks, dim3 threads);

} // namespace simt
