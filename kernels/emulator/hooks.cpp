// What -fsanitize=thread,undefined calls from compiled kernels. The names are the sanitizers', the checks are ours: no
// sanitizer's runtime is linked.
#include "engine.h"

using simt::Access;
using simt::engine;

namespace {
inline void hook(const void* at, size_t bytes, Access how, const void* pc) {
    if (!engine || !engine->options.checked || engine->running < 0) return;
    simt::check(static_cast<const char*>(at), bytes, how, {pc, nullptr}, engine->running);
}
} // namespace

#define PC __builtin_return_address(0)

extern "C" {

#define HOOK(prefix, bytes)                                                                       \
    void __tsan_##prefix##read##bytes(void* at) { hook(at, bytes, Access::READ, PC); }            \
    void __tsan_##prefix##write##bytes(void* at) { hook(at, bytes, Access::WRITE, PC); }
#define HOOKS(prefix) HOOK(prefix, 1) HOOK(prefix, 2) HOOK(prefix, 4) HOOK(prefix, 8) HOOK(prefix, 16)
HOOKS()
HOOKS(unaligned_)
HOOKS(volatile_)
HOOKS(unaligned_volatile_)

void __tsan_read_range(void* at, size_t bytes) { hook(at, bytes, Access::READ, PC); }
void __tsan_write_range(void* at, size_t bytes) { hook(at, bytes, Access::WRITE, PC); }
void* __tsan_memset(void* to, int value, size_t bytes) {
    hook(to, bytes, Access::WRITE, PC);
    return memset(to, value, bytes);
}
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    hook(from, bytes, Access::READ, PC);
    hook(to, bytes, Access::WRITE, PC);
    return memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
    hook(from, bytes, Access::READ, PC);
    hook(to, bytes, Access::WRITE, PC);
    return memmove(to, from, bytes);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

// The data of every handler starts with the place in the source.
struct UndefinedAt {
    const char* file;
    uint32_t line, column;
};

#define UNDEFINED(handler, words)                                                                       \
    void __ubsan_handle_##handler(const UndefinedAt* at) {                                              \
        if (engine && engine->options.checked && engine->running >= 0) {                                            \
            simt::fail("undefined: " words " at %s:%u", at->file, at->line);           \
        }                                                                                               \
    }                                                                                                   \
    void __ubsan_handle_##handler##_abort(const UndefinedAt* at) { __ubsan_handle_##handler(at); }
UNDEFINED(add_overflow, "signed addition overflows")
UNDEFINED(sub_overflow, "signed subtraction overflows")
UNDEFINED(mul_overflow, "signed multiplication overflows")
UNDEFINED(negate_overflow, "signed negation overflows")
UNDEFINED(divrem_overflow, "integer division by zero, or that overflows")
UNDEFINED(shift_out_of_bounds, "shift by more bits than there are, or of a negative number")
UNDEFINED(out_of_bounds, "index outside of an array")
UNDEFINED(pointer_overflow, "pointer arithmetic overflows")
UNDEFINED(vla_bound_not_positive, "array without elements")
UNDEFINED(load_invalid_value, "load of a value that the type cannot have")
UNDEFINED(float_cast_overflow, "conversion of a number that the type cannot hold")
UNDEFINED(nonnull_arg, "null argument")
UNDEFINED(nonnull_return_v1, "null returned")
UNDEFINED(builtin_unreachable, "unreachable code reached")
UNDEFINED(missing_return, "no value returned")
UNDEFINED(invalid_builtin, "zero given to a count of leading or trailing zeros")
UNDEFINED(function_type_mismatch, "call of a function of another type")

struct TypeMismatch {
    UndefinedAt at;
    const void* type;
    unsigned char log_alignment, kind;
};
void __ubsan_handle_type_mismatch_v1(const TypeMismatch* data, uintptr_t pointer) {
    if (!engine || !engine->options.checked || engine->running < 0) return;
    const char* file = data->at.file;
    size_t alignment = static_cast<size_t>(1) << data->log_alignment;
    if (!pointer) simt::fail("null pointer used at %s:%u", file, data->at.line);
    if (pointer & (alignment - 1)) {
        simt::fail("misaligned: access through a pointer that is not aligned to %zu bytes at %s:%u", alignment, file,
                   data->at.line);
    }
    simt::fail("undefined: access to too small an object at %s:%u", file, data->at.line);
}
void __ubsan_handle_type_mismatch_v1_abort(const TypeMismatch* data, uintptr_t pointer) {
    __ubsan_handle_type_mismatch_v1(data, pointer);
}
}
