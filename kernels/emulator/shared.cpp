// The block's shared memory: static arrays from the bottom, each between red zones, then what the launch asked for.
#include "engine.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace simt {

namespace {

// What a device allows: static arrays of a kernel, and all of a block on sm_90.
constexpr size_t MOST_STATIC = 48 << 10, MOST = 227 << 10;
constexpr size_t STATIC = 64 << 10, RED = 64, TAIL = 4096;

struct Placed {
    const SharedArray* array;
    size_t at;
};

} // namespace

struct SharedMemory {
    std::vector<Placed> arrays;
    char* memory = nullptr;
    size_t used = 0, declared = 0, dynamic = 0;
    ~SharedMemory() { free(memory); }
};
std::shared_ptr<SharedMemory> new_shared_memory() { return std::make_shared<SharedMemory>(); }

void start_shared(size_t bytes) {
    SharedMemory& s = *engine->shared;
    if (!s.memory) s.memory = static_cast<char*>(aligned_alloc(1024, STATIC + MOST + TAIL + 1024));
    s.arrays.clear();
    s.used = RED;
    s.declared = 0;
    s.dynamic = bytes;
    Shadow* shadow = engine->options.checked ? new_shadow(STATIC + s.dynamic) : nullptr;
    engine->shared_range = {s.memory, s.memory + STATIC + s.dynamic, shadow, 0, Range::SHARED, s.memory + STATIC};
}

void end_shared() {
    if (Shadow* shadow = engine->shared_range.shadow) free_shadow(shadow, STATIC + engine->shared->dynamic);
    engine->shared_range = {nullptr, nullptr, nullptr, 0, Range::SHARED, nullptr};
}

// Poison, so that what is read before it is written shows: a NaN as a float or bf16, -1 as an integer.
void reset_shared() {
    SharedMemory& s = *engine->shared;
    memset(s.memory, 0xff, s.used);
    memset(s.memory + STATIC, 0xff, s.dynamic + TAIL);
}

void* shared_array(const SharedArray* array) {
    SharedMemory& s = *engine->shared;
    for (const Placed& p : s.arrays) {
        if (p.array == array) return s.memory + p.at;
    }
    // Aligned to 16 bytes and no more, so that a kernel that counts on more is found out.
    s.used = (s.used + 127) / 128 * 128 + 16;
    s.declared += (array->bytes + 15) / 16 * 16;
    if (s.declared > MOST_STATIC || s.used + array->bytes + RED > STATIC) {
        fail("static shared arrays of %zu bytes with `%s`; a kernel may have %zu", s.declared, array->name,
             MOST_STATIC);
    }
    // Dynamic memory lies behind, at the most that a kernel may count on.
    const size_t before = s.dynamic ? (s.declared + 1023) / 1024 * 1024 : s.declared;
    if (before + s.dynamic > MOST) {
        fail("%zu bytes of static and %zu of dynamic shared memory; a block may have %zu", s.declared, s.dynamic, MOST);
    }
    char* at = s.memory + s.used;
    s.arrays.push_back({array, s.used});
    s.used += array->bytes + RED;
    memset(at, 0xff, array->bytes + RED);
    mark(at, array->bytes, IN_ARRAY, true);
    return at;
}

void* dynamic_shared() {
    const SharedMemory& s = *engine->shared;
    if (!s.dynamic) fail("the kernel uses dynamic shared memory and was launched with none");
    return s.memory + STATIC;
}

unsigned shared_offset(const void* p) {
    const char* at = static_cast<const char*>(p);
    const Range& all = engine->shared_range;
    if (at < all.low || at >= all.high) fail("address %p is not in shared memory", p);
    return static_cast<unsigned>(at - all.low);
}

std::string name_of(const Range& range, const char* at) {
    const SharedMemory& s = *engine->shared;
    char name[256];
    ptrdiff_t byte = at - range.low;
    size_t bytes = static_cast<size_t>(range.high - range.low);
    bool is_static = range.kind == Range::SHARED && at < range.end_of_static;
    if (range.kind == Range::GLOBAL) {
        snprintf(name, sizeof name, "global memory (buffer %d of %zu bytes", range.id, bytes);
    } else if (!is_static) {
        byte = at - range.end_of_static;
        snprintf(name, sizeof name, "dynamic shared memory (%zu bytes", s.dynamic);
    } else {
        auto above = [&](const Placed& p) { return p.at <= static_cast<size_t>(byte); };
        auto found = std::find_if(s.arrays.rbegin(), s.arrays.rend(), above);
        if (found == s.arrays.rend()) return "shared memory below all arrays";
        byte -= static_cast<ptrdiff_t>(found->at);
        bytes = found->array->bytes;
        snprintf(name, sizeof name, "shared array `%s` (%zu bytes", found->array->name, bytes);
    }
    // Past the end it is the access that says how far.
    bool inside = at >= range.low && at < range.high;
    return std::string(name) + (inside ? ", byte " + std::to_string(byte) + ")" : ")");
}

} // namespace simt
