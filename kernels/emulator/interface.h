// What the host's language layer asks of the engine. Kernels see it through macros and intrinsics alone.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

// Kernels are compiled with -fsanitize=thread,undefined, whose hooks are the engine's checker. These are not.
#define SIMT_UNCHECKED __attribute__((no_sanitize("thread", "undefined")))
#define SIMT_FN static inline SIMT_UNCHECKED

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace simt {

// A place in a kernel's source that threads meet at. `id` is one for all inlined and instantiated copies of the place.
struct Site {
    const char* file;
    int line, id;
    const char* what;
};
#define SIMT_SITE(what)                                                       \
    ([]() -> const ::simt::Site* {                                            \
        static const ::simt::Site site{__FILE__, __LINE__, __COUNTER__, what}; \
        return &site;                                                         \
    }())

struct Registration {
    Registration(const char* name, void (*run)(const void*), size_t args, unsigned threads);
};

// A thread's place in the launch.
struct Place {
    uint3 thread, block;
    dim3 threads, blocks;
    int lane, warp, index; // index: of the thread in its block
};
extern __thread Place* place;

struct SharedArray {
    const char* name;
    size_t bytes;
};
void* shared_array(const SharedArray*);
void* dynamic_shared();
// Where in the block's shared memory an address lies, as __cvta_generic_to_shared has it.
unsigned shared_offset(const void*);

enum Vote { COUNT, AND, OR };
void sync_block(const Site*);
int sync_block_vote(const Site*, int predicate, Vote);

// Something that a warp does together: the last lane of `mask` to arrive runs `op` for all. args[lane] points into the
// lane's own stack. `orders`: memory accesses before it are ordered against those after it. `whole`: needs 32 lanes.
struct Collective {
    const Site* site;
    void (*op)(void** args, unsigned mask, int width);
    int width;
    bool orders, whole;
};
void warp_collective(const Collective&, unsigned mask, void* args);
unsigned active_lanes();

// Named barriers: wait, or only arrive, at barrier `id` of `threads` threads.
void named_barrier(const Site*, int id, int threads, bool wait);

// Lets other threads run; a loop that waits for them must call it.
void poll(const Site*);

void fence(); // __threadfence
// An atomic access of the running thread.
void atomic(const void* at, size_t bytes);
void undefined_lane(int lane, unsigned mask);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

} // namespace simt
