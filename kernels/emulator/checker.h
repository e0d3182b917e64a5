// Memory that kernels may touch, and what the checker remembers of every byte of it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace simt {

// Of one byte. Zeros: never touched.
struct Shadow {
    uint32_t write_epoch, read_epoch;
    uint16_t writer, reader;         // threads of the block that the epoch belongs to
    uint16_t write_time, read_time;  // their clocks
    uint16_t read_turn;              // the reader's turns() at the time
    uint8_t fences;                  // how many proxy fences the writer had executed, of which the low bits
    uint8_t is;                      // of the flags below
};
enum : uint8_t {
    WRITTEN = 1,      // in the epoch's block, if shared
    ATOMIC = 2,       // the last write was
    MANY_LANES = 4,   // lanes of the reader's warp besides it have read in its turn
    MANY_WARPS = 8,   // warps besides the reader's have read in this epoch
    IN_ARRAY = 16,    // of static shared memory: inside of an array, not a red zone
    IN_FLIGHT = 32,   // an asynchronous copy to it has been issued and has not landed
    BY_COPY = 64,     // written by an asynchronous copy of the async proxy
    IN_USE = 128,     // something asynchronous has been issued that reads it, and has not been waited for
};

struct Range {
    char *low, *high;
    Shadow* shadow; // nullptr: not tracked
    int id;
    enum Kind { GLOBAL, SHARED } kind;
    char* end_of_static; // SHARED: where dynamic memory starts
};

// The range that holds p, or nullptr.
Range* find_range(const char* p);

Shadow* new_shadow(size_t bytes);
void free_shadow(Shadow*, size_t bytes);

struct Site;

// COPY: by the async proxy. PEEK: a read by the async proxy, which is checked and not remembered.
enum class Access { READ, WRITE, ATOMIC, COPY, PEEK };
// What in the kernel does it: a place in the code, or a call of a wrapper.
struct By {
    const void* pc;
    const Site* site;
};
// Check an access of `thread`, and remember it.
void check(const char* at, size_t bytes, Access, By, int thread);
// One that a wrapper makes for the running thread.
void access_at(const Site*, const void* at, size_t bytes, Access);

// Set or clear IN_FLIGHT or IN_USE.
void mark(const char* at, size_t bytes, uint8_t flag, bool on);

void start_launch();
void start_block();

// "file:line" of an address in the code.
std::string source_line(const void* pc);
// "shared array `tile` (64 bytes, byte 12)"
std::string name_of(const Range&, const char* at);

} // namespace simt
