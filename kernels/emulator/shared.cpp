// The block's shared memory: static arrays from the bottom, each between red zones, then what the launch asked for.
#include "engine.h"
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
    used = (used + 127) / 128 * 128;
    declared += (array->bytes + 15) / 16 * 16;
    if (declared > MOST_STATIC || used + array->bytes + RED > STATIC) {
        fail("static shared arrays of %zu bytes with `%s`; a kernel may have %zu", declared, array->name, MOST_STATIC);
    }
    if (declared + dynamic > MOST) {
        fail("%zu bytes of static and %zu of dynamic shared memory; a block may have %zu", declared, dynamic, MOST);
    }
    char* at = memory + used;
    arrays.push_back({array, used});
    used += array->bytes + RED;
    memset(at, 0xff, array->bytes + RED);
    for (size_t i = 0; shared_range.shadow && i < array->bytes; i++) shared_range.shadow[at - memory + i].is |= IN_ARRAY;
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
    char text[256];
    if (range.kind == Range::GLOBAL) {
        snprintf(text, sizeof text, "global memory (buffer %d of %zu bytes, byte %td)", range.id,
                 static_cast<size_t>(range.high - range.low), at - range.low);
        return text;
    }
    if (at >= range.end_of_static) {
        snprintf(text, sizeof text, "dynamic shared memory (%zu bytes, byte %td)", dynamic, at - range.end_of_static);
        return text;
    }
    size_t offset = static_cast<size_t>(at - range.low);
    for (size_t i = arrays.size(); i-- > 0;) {
        if (arrays[i].at > offset) continue;
        snprintf(text, sizeof text, "shared array `%s` (%zu bytes, byte %zu)", arrays[i].array->name,
                 arrays[i].array->bytes, offset - arrays[i].at);
        return text;
    }
    return "static shared memory below all arrays";
}

} // namespace simt
