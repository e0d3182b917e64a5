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
std::vector<Placed> arrays;
char* memory = nullptr;
size_t used = 0, declared = 0, dynamic = 0;

} // namespace

Range shared_range{nullptr, nullptr, nullptr, 0, Range::SHARED, nullptr};

void start_shared(size_t bytes) {
    if (!memory) memory = static_cast<char*>(aligned_alloc(1024, STATIC + MOST + TAIL + 1024));
    arrays.clear();
    used = RED;
    declared = 0;
    dynamic = bytes;
    Shadow* shadow = engine.options.checked ? new_shadow(STATIC + dynamic) : nullptr;
    shared_range = {memory, memory + STATIC + dynamic, shadow, 0, Range::SHARED, memory + STATIC};
}

void end_shared() {
    if (shared_range.shadow) free_shadow(shared_range.shadow, STATIC + dynamic);
    shared_range = {nullptr, nullptr, nullptr, 0, Range::SHARED, nullptr};
}

// Poison, so that what is read before it is written shows: a NaN as a float or bf16, -1 as an integer.
void reset_shared() {
    memset(memory, 0xff, used);
    memset(memory + STATIC, 0xff, dynamic + TAIL);
}

void* shared_array(SharedArray* array) {
    if (array->launch == engine.launch) return array->at;
    // Aligned to 16 bytes and no more, so that a kernel that counts on more is found out.
    used = (used + 127) / 128 * 128 + 16;
    declared += (array->bytes + 15) / 16 * 16;
    if (declared > MOST_STATIC || used + array->bytes + RED > STATIC) {
        fail("static shared arrays of %zu bytes with `%s`; a kernel may have %zu", declared, array->name, MOST_STATIC);
    }
    // Dynamic memory lies behind, at the most that a kernel may count on.
    const size_t before = dynamic ? (declared + 1023) / 1024 * 1024 : declared;
    if (before + dynamic > MOST) {
        fail("%zu bytes of static and %zu of dynamic shared memory; a block may have %zu", declared, dynamic, MOST);
    }
    char* at = memory + used;
    arrays.push_back({array, used});
    used += array->bytes + RED;
    memset(at, 0xff, array->bytes + RED);
    mark(at, array->bytes, IN_ARRAY, true);
    array->launch = engine.launch;
    array->at = at;
    return at;
}

void* dynamic_shared() {
    if (!dynamic) fail("the kernel uses dynamic shared memory and was launched with none");
    return memory + STATIC;
}

unsigned shared_offset(const void* p) {
    const char* at = static_cast<const char*>(p);
    if (at < shared_range.low || at >= shared_range.high) fail("address %p is not in shared memory", p);
    return static_cast<unsigned>(at - memory);
}

std::string name_of(const Range& range, const char* at) {
    char name[256];
    ptrdiff_t byte = at - range.low;
    size_t bytes = static_cast<size_t>(range.high - range.low);
    bool is_static = range.kind == Range::SHARED && at < range.end_of_static;
    if (range.kind == Range::GLOBAL) {
        snprintf(name, sizeof name, "global memory (buffer %d of %zu bytes", range.id, bytes);
    } else if (!is_static) {
        byte = at - range.end_of_static;
        snprintf(name, sizeof name, "dynamic shared memory (%zu bytes", dynamic);
    } else {
        auto above = [&](const Placed& p) { return p.at <= static_cast<size_t>(byte); };
        auto found = std::find_if(arrays.rbegin(), arrays.rend(), above);
        if (found == arrays.rend()) return "shared memory below all arrays";
        byte -= static_cast<ptrdiff_t>(found->at);
        bytes = found->array->bytes;
        snprintf(name, sizeof name, "shared array `%s` (%zu bytes", found->array->name, bytes);
    }
    // Past the end it is the access that says how far.
    bool inside = at >= range.low && at < range.high;
    return std::string(name) + (inside ? ", byte " + std::to_string(byte) + ")" : ")");
}

} // namespace simt
