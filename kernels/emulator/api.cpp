// What src/gpu/emulator.rs calls.
#include "engine.h"
#include <cstdio>
#include <cstdlib>

using namespace simt;

namespace {

int report(char* error, size_t bytes, const std::string& text) {
    snprintf(error, bytes, "%s", text.c_str());
    return 1;
}

void let_go(char* at, const Range& range) {
    if (range.shadow) free_shadow(range.shadow, static_cast<size_t>(range.high - range.low));
    free(at - PAGE);
}

} // namespace

extern "C" {

struct SimtCounts {
    uint64_t switches, barriers, collectives;
};

// A device; nobody else may use it while a call with it runs.
Engine* simt_new() { return new Engine; }

void simt_delete(Engine* device) {
    for (auto& [at, range] : device->buffers) let_go(range.low, range);
    delete device;
}

// Poisoned memory between red zones of a page.
void* simt_alloc(Engine* device, size_t bytes, int tracked) {
    size_t whole = (bytes + 255) / 256 * 256 + 2 * PAGE;
    char* raw = static_cast<char*>(aligned_alloc(256, whole));
    if (!raw) return nullptr;
    memset(raw, 0xff, whole);
    char* at = raw + PAGE;
    Shadow* shadow = tracked ? new_shadow(bytes) : nullptr;
    device->buffers[at] = Range{at, at + bytes, shadow, ++device->buffer_ids, Range::GLOBAL, nullptr};
    device->last_buffer = nullptr;
    return at;
}

void simt_free(Engine* device, void* at) {
    auto found = device->buffers.find(static_cast<char*>(at));
    if (found == device->buffers.end()) return;
    let_go(found->second.low, found->second);
    device->buffers.erase(found);
    device->last_buffer = nullptr;
}

// 0: done. 1: `error` says what went wrong.
int simt_launch(Engine* device, const char* name, const uint32_t blocks[3], uint32_t threads, size_t shared,
                const void* args, const Options* options, SimtCounts* counts, char* error, size_t error_bytes) {
    const Kernel* kernel = find_kernel(name);
    if (!kernel) return report(error, error_bytes, "no such kernel");
    engine = device;
    engine->kernel = kernel;
    engine->args = args;
    engine->args_bytes = kernel->args;
    engine->options = *options;
    start_shared(shared);
    run(dim3(blocks[0], blocks[1], blocks[2]), dim3(threads, 1, 1));
    end_shared();
    *counts = {engine->switches, engine->barriers, engine->collectives};
    engine = nullptr;
    return device->failed ? report(error, error_bytes, device->error) : 0;
}
}
