// Stands in for NVIDIA's libraries, so that what calls them can be tested without a GPU: memory of the host, no kernels.
// Unkind where the real ones may be: work is queued, and runs when the host waits; a copy reads its source only then.
// Compiled three times: as the driver (DRIVER), the compiler (COMPILER) and the library of products (PRODUCTS).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void Work(void*);

#ifdef DRIVER
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_CONTEXT = 201, ILLEGAL_ADDRESS = 700 };
#define MEMORY (96ull << 20)
#define QUEUE 100000
#define CONTEXT ((void*)0x1)
#define STREAM ((void*)0x2)

static __thread void* context;
static int sticky;
static uint64_t used, held;

struct Item { Work* run; void* data; };
static struct Item queue[QUEUE];
static int queued;

#define NEEDS_CONTEXT do { if (!context) return NO_CONTEXT; if (sticky) return sticky; } while (0)
#define NEEDS_STREAM(s) do { NEEDS_CONTEXT; if ((s) != STREAM) return INVALID_VALUE; } while (0)

void stand_in_queue(Work* run, void* data) {
    if (queued == QUEUE) abort();
    queue[queued++] = (struct Item){run, data};
}

static int drain(void) {
    for (int i = 0; i < queued; i++) queue[i].run(queue[i].data);
    queued = 0;
    return sticky;
}

struct Copy { void* to; const void* from; size_t bytes; };
static void copy(void* data) {
    struct Copy* c = data;
    memcpy(c->to, c->from, c->bytes);
    free(c);
}
static int later(void* to, const void* from, size_t bytes) {
    struct Copy* c = malloc(sizeof *c);
    *c = (struct Copy){to, from, bytes};
    stand_in_queue(copy, c);
    return OK;
}
static void clear(void* data) {
    struct Copy* c = data;
    memset(c->to, 0, c->bytes);
    free(c);
}
static void let_go(void* data) {
    uint64_t bytes = ((uint64_t*)data)[-32];
    memset(data, 0xff, bytes);
    used -= bytes;
    free((uint64_t*)data - 32);
}
static void fail(void* data) { (void)data, sticky = ILLEGAL_ADDRESS; }

int cuInit(unsigned flags) { return flags; }
int cuDriverGetVersion(int* version) { return *version = 13000, OK; }
int cuDeviceGetCount(int* count) { return *count = 1, OK; }
int cuDeviceGet(int* device, int index) { return *device = index, index ? 101 : OK; }
int cuDeviceGetName(char* name, int bytes, int device) { return snprintf(name, bytes, "stand-in %d", device), OK; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { return *bytes = MEMORY, device; }
int cuDeviceGetAttribute(int* value, int which, int device) {
    *value = which == 75 ? 9 : which == 76 ? 0 : which == 16 ? 1 : -1;
    return *value < 0 ? INVALID_VALUE : device;
}
int cuGetErrorName(int e, const char** text) { return *text = "A_NAME", e * 0; }
int cuGetErrorString(int e, const char** text) { return *text = e == 700 ? "an illegal access" : "an error", OK; }
int cuDevicePrimaryCtxRetain(void** c, int device) { return *c = CONTEXT, device; }
int cuDevicePrimaryCtxRelease_v2(int device) { return device; }
int cuCtxSetCurrent(void* c) { return context = c, sticky; }
int cuStreamCreate(void** stream, unsigned flags) {
    NEEDS_CONTEXT;
    return *stream = STREAM, flags == 1 ? OK : INVALID_VALUE; // not ordered behind the stream that all share
}
int cuStreamDestroy_v2(void* stream) { NEEDS_STREAM(stream); return queued ? INVALID_VALUE : OK; }
int cuStreamSynchronize(void* stream) { NEEDS_STREAM(stream); return drain(); }
int cuEventCreate(void** event, unsigned flags) { NEEDS_CONTEXT; return *event = malloc(1), flags == 2 ? OK : INVALID_VALUE; }
int cuEventDestroy_v2(void* event) { return free(event), OK; }
int cuEventRecord(void* event, void* stream) { NEEDS_STREAM(stream); return event ? OK : INVALID_VALUE; }
int cuEventSynchronize(void* event) { NEEDS_CONTEXT; return event ? drain() : INVALID_VALUE; }
struct Properties { int type, handles, place, id; void* security; size_t most; unsigned short usage; char rest[54]; };
int cuMemPoolCreate(void** pool, const struct Properties* p) {
    NEEDS_CONTEXT;
    return *pool = (void*)0x3, p->type == 1 && p->place == 1 && p->id == 0 && p->most == 0 ? OK : INVALID_VALUE;
}
int cuMemPoolDestroy(void* pool) { NEEDS_CONTEXT; return pool ? OK : INVALID_VALUE; }
int cuMemPoolSetAttribute(void* pool, int which, const uint64_t* value) {
    return pool && which == 4 && *value == UINT64_MAX ? OK : INVALID_VALUE;
}
int cuMemPoolGetAttribute(void* pool, int which, uint64_t* value) {
    return *value = which == 5 ? held : used, pool && (which == 5 || which == 7) ? OK : INVALID_VALUE;
}
int cuMemPoolTrimTo(void* pool, size_t bytes) { NEEDS_CONTEXT; return held = used, pool && !bytes ? OK : INVALID_VALUE; }
int cuMemGetInfo_v2(size_t* left, size_t* all) { NEEDS_CONTEXT; return *left = MEMORY - held, *all = MEMORY, OK; }
int cuMemAllocFromPoolAsync(void** address, size_t bytes, void* pool, void* stream) {
    NEEDS_STREAM(stream);
    if (!pool || !bytes) return INVALID_VALUE;
    // What the pool holds and does not use is never of the right size.
    if (held + bytes > MEMORY) return OUT_OF_MEMORY;
    uint64_t* memory = aligned_alloc(256, (bytes + 511) / 256 * 256);
    memory[0] = bytes;
    memset(memory + 32, 0xff, bytes);
    used += bytes, held += bytes;
    return *address = memory + 32, OK;
}
int cuMemFreeAsync(void* address, void* stream) { NEEDS_STREAM(stream); return stand_in_queue(let_go, address), OK; }
int cuMemHostAlloc(void** address, size_t bytes, unsigned flags) {
    NEEDS_CONTEXT;
    return *address = calloc(1, bytes), flags ? INVALID_VALUE : OK;
}
int cuMemFreeHost(void* address) { return free(address), OK; }
int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t n, void* s) { NEEDS_STREAM(s); return later(to, from, n); }
int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t n, void* s) { NEEDS_STREAM(s); return later(to, from, n); }
int cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t n, void* s) { NEEDS_STREAM(s); return later(to, from, n); }
int cuMemsetD8Async(void* to, unsigned char value, size_t bytes, void* stream) {
    NEEDS_STREAM(stream);
    struct Copy* c = malloc(sizeof *c);
    *c = (struct Copy){to, 0, bytes};
    return stand_in_queue(clear, c), value ? INVALID_VALUE : OK;
}
int cuModuleLoadData(void** module, const char* code) {
    NEEDS_CONTEXT;
    return *module = (void*)0x4, strcmp(code, "machine code") ? 200 : OK;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
    return *function = strdup(name), module ? OK : 400;
}
int cuFuncSetAttribute(void* function, int which, int value) {
    return function && which == 8 && value > 48 << 10 ? OK : INVALID_VALUE;
}
// No kernel runs here: each is one that goes astray.
int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                   unsigned shared, void* stream, void** arguments, void** extra) {
    NEEDS_STREAM(stream);
    stand_in_queue(fail, 0);
    return function && x && y && z == 1 && tx && ty == 1 && tz == 1 && !shared && arguments && !extra ? OK : INVALID_VALUE;
}
#endif

#ifdef COMPILER
int nvrtcVersion(int* major, int* minor) { return *major = 13, *minor = 0, 0; }
int nvrtcGetNumSupportedArchs(int* count) { return *count = 1, 0; }
int nvrtcGetSupportedArchs(int* all) { return all[0] = 90, 0; }
int nvrtcCreateProgram(void** program, const char* text, const char* name, int count, const char** texts,
                       const char** names) {
    int prelude = 0;
    for (int i = 0; i < count; i++) prelude |= !strcmp(names[i], "prelude.cuh") && strstr(texts[i], "KERNEL(name)");
    return *program = (void*)0x1, strstr(text, "KERNEL(") && strstr(name, ".cu") && prelude ? 0 : 4;
}
int nvrtcDestroyProgram(void** program) { return *program ? 0 : 4; }
int nvrtcCompileProgram(void* program, int count, const char** options) {
    return program && count >= 5 && !strcmp(options[0], "--gpu-architecture=sm_90a") ? 0 : 5;
}
int nvrtcGetProgramLogSize(void* program, size_t* bytes) { return *bytes = 1, program ? 0 : 4; }
int nvrtcGetProgramLog(void* program, char* log) { return *log = 0, program ? 0 : 4; }
int nvrtcGetCUBINSize(void* program, size_t* bytes) { return *bytes = sizeof "machine code", program ? 0 : 4; }
int nvrtcGetCUBIN(void* program, char* code) { return strcpy(code, "machine code"), program ? 0 : 4; }
const char* nvrtcGetErrorString(int e) { return e == 5 ? "INVALID_OPTION" : "INVALID_PROGRAM"; }
#endif

#ifdef PRODUCTS
enum { OK = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15, R_32F = 0, R_16BF = 14 };
struct Matrix { int type; uint64_t rows, columns; int64_t leading; };
struct Operation { int compute, scale, turned[2]; };
struct Preference { uint64_t workspace; uint32_t schemes, alignment[4]; int set; };
// Behaves like the library's 64 bytes: what it needs of addresses, and into how many parts it cuts the sums.
struct Algorithm { uint32_t alignment[4]; int32_t parts; char rest[44]; };
struct Answer { struct Algorithm algorithm; size_t workspace; int state; float waves; int rest[4]; };

size_t cublasLtGetVersion(void) { return 130002; }
int cublasLtCreate(void** handle) { return *handle = (void*)0x5, OK; }
int cublasLtDestroy(void* handle) { return handle ? OK : INVALID_VALUE; }
int cublasLtMatrixLayoutCreate(struct Matrix** m, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    if ((type != R_32F && type != R_16BF) || !rows || !columns || leading < (int64_t)rows) return INVALID_VALUE;
    *m = malloc(sizeof **m);
    return **m = (struct Matrix){type, rows, columns, leading}, OK;
}
int cublasLtMatrixLayoutDestroy(struct Matrix* m) { return free(m), OK; }
int cublasLtMatmulDescCreate(struct Operation** o, int compute, int scale) {
    *o = malloc(sizeof **o);
    return **o = (struct Operation){compute, scale, {0, 0}}, compute == 68 && scale == R_32F ? OK : NOT_SUPPORTED;
}
int cublasLtMatmulDescDestroy(struct Operation* o) { return free(o), OK; }
int cublasLtMatmulDescSetAttribute(struct Operation* o, int which, const int32_t* value, size_t bytes) {
    if ((which != 3 && which != 4) || bytes != 4 || (*value != 0 && *value != 1)) return INVALID_VALUE;
    return o->turned[which - 3] = *value, OK;
}
int cublasLtMatmulPreferenceCreate(struct Preference** p) { return *p = calloc(1, sizeof **p), OK; }
int cublasLtMatmulPreferenceDestroy(struct Preference* p) { return free(p), OK; }
int cublasLtMatmulPreferenceSetAttribute(struct Preference* p, int which, const void* value, size_t bytes) {
    if (bytes != (which == 1 ? 8 : 4)) return INVALID_VALUE;
    if (which == 1) memcpy(&p->workspace, value, 8);
    else if (which == 3) memcpy(&p->schemes, value, 4);
    else if (which >= 5 && which <= 8) memcpy(&p->alignment[which - 5], value, 4);
    else return INVALID_VALUE;
    return p->set |= 1 << which, OK;
}
static uint64_t inner(const struct Operation* o, const struct Matrix* a) { return o->turned[0] ? a->rows : a->columns; }
static int fits(const struct Operation* o, const struct Matrix* a, const struct Matrix* b, const struct Matrix* c,
                const struct Matrix* d) {
    return (o->turned[0] ? a->columns : a->rows) == d->rows && (o->turned[1] ? b->rows : b->columns) == d->columns &&
           (o->turned[1] ? b->columns : b->rows) == inner(o, a) && c->rows == d->rows && c->columns == d->columns &&
           c->type == d->type && a->type == b->type;
}
int cublasLtMatmulAlgoGetHeuristic(void* handle, struct Operation* o, struct Matrix* a, struct Matrix* b,
                                   struct Matrix* c, struct Matrix* d, struct Preference* p, int asked,
                                   struct Answer* answers, int* count) {
    if (!handle || asked < 2 || !fits(o, a, b, c, d) || p->set != 0x1ea || p->schemes) return INVALID_VALUE;
    for (int i = 0; i < 2; i++) {
        answers[i] = (struct Answer){.workspace = p->workspace};
        memcpy(answers[i].algorithm.alignment, p->alignment, 16);
        answers[i].algorithm.parts = 2 - i; // the better one cuts sums into parts
    }
    return *count = 2, OK;
}
int cublasLtMatmulAlgoConfigGetAttribute(const struct Algorithm* a, int which, int32_t* value, size_t bytes, size_t* n) {
    return *value = a->parts, *n = 4, which == 2 && bytes == 4 ? OK : INVALID_VALUE;
}
// Cannot do three columns with what was chosen for many.
int cublasLtMatmulAlgoCheck(void* handle, struct Operation* o, struct Matrix* a, struct Matrix* b, struct Matrix* c,
                            struct Matrix* d, const struct Algorithm* algorithm, struct Answer* answer) {
    answer->workspace = 0;
    return !handle || !fits(o, a, b, c, d) || !algorithm->parts ? INVALID_VALUE : d->columns == 3 ? NOT_SUPPORTED : OK;
}
static float number(const struct Matrix* m, const void* at, uint64_t row, uint64_t column) {
    uint64_t i = column * m->leading + row;
    if (m->type == R_32F) return ((const float*)at)[i];
    uint32_t bits = (uint32_t)((const uint16_t*)at)[i] << 16;
    float x;
    return memcpy(&x, &bits, 4), x;
}
struct Product {
    struct Operation o;
    struct Matrix a, b, c, d;
    const void *at_a, *at_b, *at_c;
    void* at_d;
    float alpha, beta;
};
static void multiply(void* data) {
    struct Product* p = data;
    uint64_t terms = inner(&p->o, &p->a);
    float* row = malloc(terms * sizeof *row);
    for (uint64_t i = 0; i < p->d.rows; i++) {
        for (uint64_t k = 0; k < terms; k++)
            row[k] = p->o.turned[0] ? number(&p->a, p->at_a, k, i) : number(&p->a, p->at_a, i, k);
        for (uint64_t j = 0; j < p->d.columns; j++) {
            float sum = 0;
            for (uint64_t k = 0; k < terms; k++)
                sum += row[k] * (p->o.turned[1] ? number(&p->b, p->at_b, j, k) : number(&p->b, p->at_b, k, j));
            sum *= p->alpha;
            if (p->beta != 0) sum += p->beta * number(&p->c, p->at_c, i, j);
            uint64_t to = j * p->d.leading + i;
            if (p->d.type == R_32F) {
                ((float*)p->at_d)[to] = sum;
            } else {
                uint32_t bits;
                memcpy(&bits, &sum, 4);
                ((uint16_t*)p->at_d)[to] = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
            }
        }
    }
    free(row);
    free(p);
}
int cublasLtMatmul(void* handle, struct Operation* o, const float* alpha, const void* at_a, struct Matrix* a,
                   const void* at_b, struct Matrix* b, const float* beta, const void* at_c, struct Matrix* c, void* at_d,
                   struct Matrix* d, const struct Algorithm* algorithm, void* workspace, size_t bytes, void* stream) {
    const void* places[4] = {at_a, at_b, at_c, at_d};
    for (int i = 0; i < 4; i++)
        if (!algorithm->alignment[i] || (uintptr_t)places[i] % algorithm->alignment[i]) return INVALID_VALUE;
    if (!handle || !fits(o, a, b, c, d) || algorithm->parts != 1 || !workspace || bytes != 32 << 20 || stream != (void*)0x2)
        return INVALID_VALUE;
    struct Product* p = malloc(sizeof *p);
    *p = (struct Product){*o, *a, *b, *c, *d, at_a, at_b, at_c, at_d, *alpha, *beta};
    // The driver that is open already.
    void (*queue)(Work*, void*) = (void (*)(Work*, void*))dlsym(dlopen("libcuda.so.1", RTLD_NOW), "stand_in_queue");
    return queue(multiply, p), OK;
}
#endif
