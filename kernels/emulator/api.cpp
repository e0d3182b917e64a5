// What src/gpu/emulator.rs calls.
#include "engine.h"
#include <cstdio>
#include <cstdlib>

using namespace simt;

namespace {
int buffer_ids = 0;

int report(char* error, size_t bytes, const std::string& text) {
    snprintf(error, bytes, "%s", text.c_str());
    return 1;
}
} // namespace

extern "C" {

struct SimtCounts {
    uint64_t switches, barriers, collectives;
};

// Poisoned memory between red zones of a page.
void* simt_alloc(size_t bytes, int tracked) {
    std::lock_guard<std::mutex> lock(engine.mutex);
    size_t whole = (bytes + 255) / 256 * 256 + 2 * PAGE;
    char* raw = static_cast<char*>(aligned_alloc(256, whole));
    if (!raw) return nullptr;
    memset(raw, 0xff, whole);
    char* at = raw + PAGE;
    buffers[at] = Range{at, at + bytes, tracked ? new_shadow(bytes) : nullptr, ++buffer_ids, Range::GLOBAL, nullptr};
    forget_buffer();
    return at;
}

void simt_free(void* at) {
    std::lock_guard<std::mutex> lock(engine.mutex);
    auto found = buffers.find(static_cast<char*>(at));
    if (found == buffers.end()) return;
    const Range& range = found->second;
    if (range.shadow) free_shadow(range.shadow, static_cast<size_t>(range.high - range.low));
    buffers.erase(found);
    forget_buffer();
    free(static_cast<char*>(at) - PAGE);
}

// 0: done. 1: `error` says what went wrong.
int simt_launch(const char* name, const uint32_t blocks[3], uint32_t threads, size_t shared, const void* args,
                const Options* options, SimtCounts* counts, char* error, size_t error_bytes) {
    std::lock_guard<std::mutex> lock(engine.mutex);
    const Kernel* kernel = find_kernel(name);
    if (!kernel) return report(error, error_bytes, "no such kernel");
    engine.kernel = kernel;
    engine.args = args;
    engine.args_bytes = kernel->args;
    engine.options = *options;
    start_shared(shared);
    run(dim3(blocks[0], blocks[1], blocks[2]), dim3(threads, 1, 1));
    end_shared();
    *counts = {engine.switches, engine.barriers, engine.collectives};
    return engine.failed ? report(error, error_bytes, engine.error) : 0;
}
}
