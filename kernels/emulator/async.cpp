#include "async.h"
namespace simt {
void reset_async() {}
bool land_one() { return false; }
void land_own(int) {}
uint8_t proxy_fences(int) { return 0; }
} // namespace simt
