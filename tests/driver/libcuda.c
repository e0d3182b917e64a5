// A stand-in for the driver's library, so that the code that calls it runs on machines without a GPU. Device memory is
// the host's; work waits in a queue until something waits for it, so that what is read too early is seen to be wrong.
//
// STANDIN says what is wrong with it: nothing where it is not set, else `stub`, `old`, `none`, `mismatch`. Every kernel
// adds: its arguments begin with y = a + b on n floats {a, b, y, n} and are 40 bytes; `layer_norm_forward_f32` faults.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Answer;
typedef unsigned long long Address;
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, STUB = 34, NO_DEVICE = 100, MISMATCH = 803, BAD_IMAGE = 200 };
enum { NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };

// The device has 64 MiB.
static const size_t TOTAL = 64u << 20;
static size_t taken;
static int allocations, pinned, modules, events, streams, graphs, contexts;

typedef struct {
    enum { COPY, FILL, ADD, FAULT, MARK } kind;
    void* to;
    const void* from;
    const void* other;
    size_t n;
    unsigned word;
} Work;

typedef struct {
    Work* work;
    int count, room;
} List;

typedef struct {
    int pending;
    double time;
} Event;

typedef struct {
    char name[64];
    int allowed;
} Function;

static List queue, captured;
static int capturing, invalidated, mode;  // mode: 0 global, 1 of the thread, 2 relaxed
static Answer sticky;
static double clock_now;

static void append(List* list, Work work) {
    if (list->count == list->room) {
        list->room = list->room ? 2 * list->room : 16;
        list->work = realloc(list->work, list->room * sizeof(Work));
    }
    list->work[list->count++] = work;
}

static void run(const Work* w) {
    clock_now += 0.25;
    if (sticky) return;
    if (w->kind == COPY) memmove(w->to, w->from, w->n);
    if (w->kind == FILL) for (size_t i = 0; i < w->n; i++) ((unsigned*)w->to)[i] = w->word;
    if (w->kind == ADD) for (size_t i = 0; i < w->n; i++) ((float*)w->to)[i] = ((float*)w->from)[i] + ((float*)w->other)[i];
    if (w->kind == FAULT) sticky = ILLEGAL_ADDRESS;
}

// Runs what is queued, up to the last mark of `until` where there is one.
static void drain(const Event* until) {
    int stop = queue.count;
    if (until) {
        stop = 0;
        for (int i = 0; i < queue.count; i++) if (queue.work[i].kind == MARK && queue.work[i].to == until) stop = i + 1;
    }
    for (int i = 0; i < stop; i++) {
        run(&queue.work[i]);
        if (queue.work[i].kind == MARK) {
            ((Event*)queue.work[i].to)->pending--;
            ((Event*)queue.work[i].to)->time = clock_now;
        }
    }
    memmove(queue.work, queue.work + stop, (queue.count - stop) * sizeof(Work));
    queue.count -= stop;
}

static Answer add_work(Work work) {
    if (sticky) return sticky;
    append(capturing ? &captured : &queue, work);
    return OK;
}

// What a capture forbids, unless the thread's mode is relaxed.
static Answer unsafe_call(void) {
    if (capturing && mode != 2) {
        invalidated = 1;
        return CAPTURE_UNSUPPORTED;
    }
    return sticky;
}

static int is(const char* what) {
    const char* set = getenv("STANDIN");
    return set && strcmp(set, what) == 0;
}

Answer cuInit(unsigned flags) { return is("stub") ? STUB : is("mismatch") ? MISMATCH : is("none") ? NO_DEVICE : OK; }
Answer cuDriverGetVersion(int* version) {
    *version = is("old") ? 11040 : 13000;
    return is("stub") ? STUB : OK;
}
Answer cuGetErrorString(Answer answer, const char** text) {
    *text = answer == ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : "of the stand-in";
    return OK;
}
Answer cuDeviceGetCount(int* count) { return *count = 1, OK; }
Answer cuDeviceGet(int* device, int ordinal) { return *device = ordinal, OK; }
Answer cuDeviceGetAttribute(int* value, int which, int device) {
    *value = which == 75 ? 9 : which == 76 ? 0 : which == 16 ? 132 : 1;
    return OK;
}
Answer cuDeviceGetName(char* name, int room, int device) { return snprintf(name, room, "Stand-in"), OK; }
Answer cuDeviceTotalMem_v2(size_t* bytes, int device) { return *bytes = TOTAL, OK; }

static void* current;
Answer cuDevicePrimaryCtxRetain(void** context, int device) { return contexts++, *context = &contexts, OK; }
Answer cuDevicePrimaryCtxRelease_v2(int device) { return contexts--, OK; }
Answer cuCtxGetCurrent(void** context) { return *context = current, OK; }
Answer cuCtxSetCurrent(void* context) { return current = context, OK; }
Answer cuCtxSynchronize(void) { return drain(NULL), sticky; }

Answer cuStreamCreate(void** stream, unsigned flags) { return streams++, *stream = &streams, OK; }
Answer cuStreamDestroy_v2(void* stream) { return streams--, OK; }
Answer cuStreamSynchronize(void* stream) {
    Answer answer = unsafe_call();
    if (answer) return answer;
    drain(NULL);
    return sticky;
}

Answer cuMemGetInfo_v2(size_t* left, size_t* total) { return *left = TOTAL - taken, *total = TOTAL, OK; }
Answer cuMemAlloc_v2(Address* at, size_t bytes) {
    Answer answer = unsafe_call();
    if (answer) return answer;
    if (bytes > TOTAL - taken) return NO_MEMORY;
    size_t* block = aligned_alloc(256, (bytes + 511) / 256 * 256);
    *block = bytes;
    memset((char*)block + 256, 0xa5, bytes);
    taken += bytes, allocations++;
    return *at = (Address)block + 256, OK;
}
Answer cuMemFree_v2(Address at) {
    drain(NULL);
    taken -= *(size_t*)(at - 256), allocations--;
    return free((void*)(at - 256)), OK;
}
Answer cuMemHostAlloc(void** at, size_t bytes, unsigned flags) { return pinned++, *at = malloc(bytes), OK; }
Answer cuMemFreeHost(void* at) { return pinned--, free(at), OK; }
Answer cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t n, void* stream) {
    return add_work((Work){COPY, (void*)to, from, NULL, n, 0});
}
Answer cuMemcpyDtoHAsync_v2(void* to, Address from, size_t n, void* stream) {
    return add_work((Work){COPY, to, (void*)from, NULL, n, 0});
}
Answer cuMemcpyDtoDAsync_v2(Address to, Address from, size_t n, void* stream) {
    return add_work((Work){COPY, (void*)to, (void*)from, NULL, n, 0});
}
Answer cuMemsetD32Async(Address to, unsigned word, size_t n, void* stream) {
    return add_work((Work){FILL, (void*)to, NULL, NULL, n, word});
}

Answer cuEventCreate(Event** event, unsigned flags) { return events++, *event = calloc(1, sizeof(Event)), OK; }
Answer cuEventDestroy_v2(Event* event) { return drain(NULL), events--, free(event), OK; }
Answer cuEventRecord(Event* event, void* stream) {
    event->pending++;
    return add_work((Work){MARK, event, NULL, NULL, 0, 0});
}
Answer cuEventSynchronize(Event* event) {
    Answer answer = unsafe_call();
    if (answer) return answer;
    if (event->pending) drain(event);
    return sticky;
}
Answer cuEventElapsedTime_v2(float* milliseconds, Event* start, Event* end) {
    return *milliseconds = (float)(end->time - start->time), OK;
}

Answer cuModuleLoadDataEx(void** module, const void* image, unsigned n, int* options, void** values) {
    Answer answer = unsafe_call();
    if (answer) return answer;
    // What fat binaries begin with.
    if (*(const unsigned*)image != 0xba55ed50u || (Address)image % 8) return BAD_IMAGE;
    return modules++, *module = &modules, OK;
}
Answer cuModuleUnload(void* module) { return modules--, OK; }
static Function functions[16];
Answer cuModuleGetFunction(Function** function, void* module, const char* name) {
    static int count;
    if (count == 16) return NOT_FOUND;
    *function = &functions[count++];
    return snprintf((*function)->name, 64, "%s", name), OK;
}
Answer cuFuncLoad(Function* function) { return unsafe_call(); }
Answer cuFuncGetParamInfo(Function* f, size_t index, size_t* offset, size_t* size) {
    return index ? INVALID : (*offset = 0, *size = 40, OK);
}
Answer cuFuncGetAttribute(int* value, int which, Function* function) { return *value = which == 0 ? 256 : 0, OK; }
Answer cuFuncSetAttribute(Function* function, int which, int value) {
    if (which != 8 || value > 227 << 10) return INVALID;
    return function->allowed = value, OK;
}
Answer cuLaunchKernel(Function* f, unsigned x, unsigned y, unsigned z, unsigned a, unsigned b, unsigned c, unsigned shared,
                      void* stream, void** args, void** extra) {
    if (!x || !y || !z || !a || a * b * c > 256 || (int)shared > f->allowed) return INVALID;
    Address words[5];
    memcpy(words, args[0], sizeof words);
    if (strcmp(f->name, "layer_norm_forward_f32") == 0) return add_work((Work){FAULT, NULL, NULL, NULL, 0, 0});
    return add_work((Work){ADD, (void*)words[2], (void*)words[0], (void*)words[1], words[3], 0});
}

Answer cuThreadExchangeStreamCaptureMode(int* with) {
    // 0 global, 1 thread-local, 2 relaxed, as CUDA counts.
    int before = mode;
    return mode = *with, *with = before, OK;
}
Answer cuStreamBeginCapture_v2(void* stream, int how) {
    if (capturing || how != 1) return INVALID;
    return capturing = 1, invalidated = 0, captured = (List){0}, OK;
}
Answer cuStreamEndCapture(void* stream, List** graph) {
    if (!capturing) return INVALID;
    capturing = 0;
    if (invalidated) return *graph = NULL, CAPTURE_INVALIDATED;
    *graph = malloc(sizeof(List)), **graph = captured;
    return graphs++, OK;
}
Answer cuGraphInstantiateWithFlags(List** exec, List* graph, Address flags) { return graphs++, *exec = graph, OK; }
Answer cuGraphUpload(List* exec, void* stream) { return OK; }
Answer cuGraphLaunch(List* exec, void* stream) {
    for (int i = 0; i < exec->count; i++) add_work(exec->work[i]);
    return sticky;
}
Answer cuGraphExecDestroy(List* exec) { return graphs--, OK; }
Answer cuGraphDestroy(List* graph) { return graphs--, OK; }

Answer cuTensorMapEncodeTiled(Address* map, int type, unsigned axes, Address at, const Address* sizes,
                              const Address* strides, const unsigned* boxes, const unsigned* steps, int interleave,
                              int swizzle, int promotion, int fill) {
    // In the order given, to be looked at.
    Address words[16] = {type, axes, at, sizes[0], sizes[1], strides[0], boxes[0], boxes[1], steps[0], steps[1],
                         interleave, swizzle, promotion, fill};
    memcpy(map, words, sizeof words);
    return (Address)map % 64 ? INVALID : OK;
}

// What is still held: every device that was opened gives all of it back.
int standin_held(void) { return allocations + pinned + modules + events + streams + graphs + contexts; }
