// Runs kernels on the CPU, unkindly: every thread is a fiber, the order of blocks, and of threads between two barriers,
// is random (seeded), and asynchronous copies arrive at the last moment that is allowed.
#include "emulator.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace emu {

__thread Now now;

// ---- fibers ------------------------------------------------------------------------------------------------------
#ifndef __x86_64__
#error "the emulator's fibers are written for x86-64"
#endif
extern "C" void emu_switch(void** save, void* load);
asm(R"(
.pushsection .text
.globl emu_switch
.type emu_switch,@function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch,.-emu_switch
.popsection
)");

const size_t STACK = 128 << 10;
const size_t SHARED_DECLARED = 48 << 10, SHARED_MOST = 227 << 10;

enum State { READY, AT_BARRIER, IN_WARP, DONE };

struct Copy {
    const View* to;
    u64 at;
    const View* from;
    u64 source;
    bool valid;
};

struct Lane {
    void* sp = nullptr;
    char* stack = nullptr;
    State state = DONE;
    int line = 0;            // of the barrier or collective it waits at
    Collective op = nullptr; // and what it computes there
    void* in = nullptr;
    void* out = nullptr;
    u32 warp_barriers = 0;
    std::vector<Copy> pending;             // copies issued since the last commit
    std::vector<std::vector<Copy>> groups; // committed
    Lane() {}
    Lane(const Lane&) = delete;
    ~Lane() {
        if (stack) munmap(stack, STACK);
    }
};

// Memory that a block shares, as one array of the kernel sees it.
struct SharedArray {
    const void* site;
    View view;
};

struct Pool {
    std::vector<vec4> data;
    std::vector<Touch> writer;
    std::vector<Readers> readers;
    size_t used = 0;
    // Nothing is written in it when a block begins. What arrays were promised stays where it is.
    void clear(size_t bytes) {
        size_t room = std::max(bytes, used);
        if (data.size() < SHARED_MOST / 16) data.resize(SHARED_MOST / 16), writer.resize(SHARED_MOST / 2), readers.resize(SHARED_MOST / 2);
        memset(data.data(), 0xff, room); // NaN in every format
        memset(writer.data(), 0, room / 2 * sizeof(Touch));
        memset(readers.data(), 0, room / 2 * sizeof(Readers));
        used = bytes;
    }
    View view(size_t at, size_t bytes, const char* name) {
        return View{(u8*)data.data() + at, writer.data() + at / 2, readers.data() + at / 2, bytes, name, nullptr};
    }
};

// Of one thread of the operating system: a launch runs in one from beginning to end.
struct Machine {
    u64 seed = 1;
    std::vector<std::unique_ptr<Lane>> lanes;
    std::vector<int> ready;
    Lane* lane = nullptr;
    void* scheduler = nullptr;
    std::string error;
    const Entry* entry = nullptr;
    const Argument* arguments = nullptr;
    Pool declared, given; // by SHARED, by SHARED_AT
    size_t given_bytes = 0;
    std::vector<std::unique_ptr<SharedArray>> shared;
    u64 random() {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        return seed;
    }
};
static thread_local Machine machine_of_thread;
// Fibers call it: a function of its own keeps compilers from doing clever things with a thread's own variables.
__attribute__((noinline)) static Machine& machine() { return machine_of_thread; }

static std::string format(const char* text, va_list list) {
    char s[400];
    vsnprintf(s, sizeof s, text, list);
    return s;
}

// Ends the launch with an error; the fiber is not run again.
[[noreturn]] __attribute__((format(printf, 1, 2))) static void fail(const char* text, ...) {
    Machine& m = machine();
    va_list list;
    va_start(list, text);
    std::string what = format(text, list);
    va_end(list);
    char at[96];
    snprintf(at, sizeof at, " (block %d,%d thread %d)", now.block, now.block_y, now.thread);
    if (m.error.empty()) m.error = what + at;
    void* lost;
    emu_switch(&lost, m.scheduler);
    abort();
}

// ---- what is wrong with an access --------------------------------------------------------------------------------
static std::string place(const View* v) {
    std::string s = std::string("`") + v->name + "`";
    return v->array ? s + " (" + v->array + ")" : s + " (shared)";
}

void out_of_bounds(const View* v, u64 at, u64 size, bool write) {
    fail("%s: out of bounds: %llu bytes at byte %lld of %llu %s", place(v).c_str(), (unsigned long long)size, (long long)at,
         (unsigned long long)v->bytes, write ? "written" : "read");
}

void misaligned(const View* v, u64 at, u64 size, bool write) {
    fail("%s: %llu bytes %s at byte %llu, which is not aligned to them", place(v).c_str(), (unsigned long long)size,
         write ? "written" : "read", (unsigned long long)at);
}

static void report(const View* v, u64 cell, bool write, Touch earlier, bool earlier_write) {
    u32 phase = earlier >> 32;
    int other = (int)((earlier & THREAD) >> 21) - 1;
    fail("%s byte %llu: %s without a barrier after %s by thread %d of %s", place(v).c_str(), (unsigned long long)(2 * cell),
         write ? "written" : "read", earlier_write ? "a write" : "a read", other,
         phase >= now.block_start ? "the same block" : "another block");
}

void unordered(const View* v, u64 cell, bool write) {
    Touch w = v->writer[cell];
    const Readers& r = v->readers[cell];
    if (w >> 32 == IN_FLIGHT >> 32) fail("%s byte %llu: %s while a copy into it is in flight", place(v).c_str(), (unsigned long long)(2 * cell), write ? "written" : "read");
    if (w && !ordered(w)) report(v, cell, write, w, true);
    if (write) report(v, cell, write, ordered(r.last) ? r.other : r.last, false);
    fail("%s byte %llu: read before anything was written", place(v).c_str(), (unsigned long long)(2 * cell));
}

// ---- shared memory -----------------------------------------------------------------------------------------------
static SharedArray* find(const void* site) {
    for (auto& s : machine().shared)
        if (s->site == site) return s.get();
    return nullptr;
}

const View* shared_array(const void* site, const char* name, u64 bytes) {
    if (SharedArray* s = find(site)) return &s->view;
    Machine& m = machine();
    u64 at = (m.declared.used + 15) / 16 * 16;
    if (at + bytes > SHARED_DECLARED) fail("`%s` (shared): more than 48 KiB of shared memory declared", name);
    if (at + bytes + m.given_bytes > SHARED_MOST) fail("`%s` (shared): more than 227 KiB of shared memory in a block", name);
    m.declared.used = at + bytes;
    m.shared.emplace_back(new SharedArray{site, m.declared.view(at, bytes, name)});
    return &m.shared.back()->view;
}

const View* shared_place(const void* site, const char* name, u64 at, u64 bytes) {
    if (SharedArray* s = find(site)) return &s->view;
    Machine& m = machine();
    if (at + bytes > m.given_bytes)
        fail("`%s` (shared): it ends at byte %llu of the launch's shared memory, which has %zu", name, (unsigned long long)(at + bytes), m.given_bytes);
    m.shared.emplace_back(new SharedArray{site, m.given.view(at, bytes, name)});
    return &m.shared.back()->view;
}

// ---- waiting -----------------------------------------------------------------------------------------------------
static void stamp(const Lane& lane) {
    now.touch = (u64)now.phase << 32 | (u64)(now.thread + 1) << 21 | (lane.warp_barriers & WARP_BARRIERS);
}

static void yield() {
    Machine& m = machine();
    emu_switch(&m.lane->sp, m.scheduler);
}

void barrier(int line) {
    Lane* me = machine().lane;
    me->state = AT_BARRIER, me->line = line;
    yield();
}

// The last lane to come computes for all.
void collective(Collective op, void* in, void* out, int line) {
    Machine& m = machine();
    Lane* me = m.lane;
    me->state = IN_WARP, me->line = line, me->op = op, me->in = in, me->out = out;
    int first = now.thread / 32 * 32;
    void *ins[32], *outs[32];
    for (int l = 0; l < 32; l++) {
        Lane& lane = *m.lanes[first + l];
        if (lane.state != IN_WARP) return yield();
        if (lane.op != op || lane.line != line) fail("lanes of one warp meet in different collectives, lines %d and %d", line, lane.line);
        ins[l] = lane.in, outs[l] = lane.out;
    }
    op(ins, outs);
    for (int l = 0; l < 32; l++) {
        m.lanes[first + l]->state = READY;
        if (first + l != now.thread) m.ready.push_back(first + l);
    }
}

void warp_barrier(int line) {
    collective([](void**, void**) {}, nullptr, nullptr, line);
    Lane* me = machine().lane;
    me->warp_barriers++;
    stamp(*me);
}

// ---- asynchronous copies -----------------------------------------------------------------------------------------
void copy_async(const View* to, u64 at, const View* from, u64 source, bool valid) {
    check_aligned(to, at, 16, true);
    check_write(to, at, 16);
    if (valid) check_aligned(from, source, 16, false), check_read(from, source, 16);
    memset(to->data + at, 0xff, 16);
    for (u64 c = at / 2; c < at / 2 + 8; c++) to->writer[c] = IN_FLIGHT;
    machine().lane->pending.push_back(Copy{to, at, from, source, valid});
}

static void arrive(const Copy& c) {
    for (u64 i = c.at / 2; i < c.at / 2 + 8; i++) c.to->writer[i] = now.touch;
    check_write(c.to, c.at, 16);
    if (!c.valid) {
        memset(c.to->data + c.at, 0, 16);
        return;
    }
    check_read(c.from, c.source, 16);
    memcpy(c.to->data + c.at, c.from->data + c.source, 16);
}

void commit_copies() {
    Lane* me = machine().lane;
    me->groups.push_back(std::move(me->pending));
    me->pending.clear();
}

void wait_for_copies(u64 groups) {
    Lane* me = machine().lane;
    while (me->groups.size() > groups) {
        for (auto& c : me->groups.front()) arrive(c);
        me->groups.erase(me->groups.begin());
    }
}

// ---- what lanes compute together ---------------------------------------------------------------------------------
void spread_matrices(void* in[32], void* out[32]) {
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < 4; m++) {
            const u16* c = ((MatrixRow*)in[8 * m + l / 4])->cells + 2 * (l % 4);
            ((u32*)out[l])[m] = c[0] | (u32)c[1] << 16;
        }
}

void spread_matrices_t(void* in[32], void* out[32]) {
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < 4; m++) {
            u16 a = ((MatrixRow*)in[8 * m + 2 * (l % 4)])->cells[l / 4];
            u16 b = ((MatrixRow*)in[8 * m + 2 * (l % 4) + 1])->cells[l / 4];
            ((u32*)out[l])[m] = a | (u32)b << 16;
        }
}

void multiply_matrices(void* in[32], void* out[32]) {
    double A[16][16], B[16][8]; // products of two bf16 are exact in f64
    auto half = [](u32 w, int h) { return (double)to_float(bf16{(u16)(h ? w >> 16 : w)}); };
    for (int l = 0; l < 32; l++) {
        const MmaIn* x = (MmaIn*)in[l];
        int g = l / 4, t = l % 4;
        for (int h = 0; h < 2; h++) {
            A[g][2 * t + h] = half(x->a[0], h), A[g + 8][2 * t + h] = half(x->a[1], h);
            A[g][2 * t + 8 + h] = half(x->a[2], h), A[g + 8][2 * t + 8 + h] = half(x->a[3], h);
            B[2 * t + h][g] = half(x->b[0], h), B[2 * t + 8 + h][g] = half(x->b[1], h);
        }
    }
    for (int l = 0; l < 32; l++) {
        const MmaIn* x = (MmaIn*)in[l];
        float sums[4];
        for (int i = 0; i < 4; i++) {
            int row = l / 4 + 8 * (i / 2), column = 2 * (l % 4) + i % 2;
            double sum = x->c[i];
            for (int k = 0; k < 16; k++) sum += A[row][k] * B[k][column];
            sums[i] = (float)sum;
        }
        memcpy(out[l], sums, sizeof sums);
    }
}

// ---- launching ---------------------------------------------------------------------------------------------------
static void fiber_main() {
    Machine& m = machine();
    m.entry->call(m.entry->code, m.arguments);
    if (!m.lane->pending.empty() || !m.lane->groups.empty()) fail("a thread ended with copies still in flight");
    m.lane->state = DONE;
    yield();
    abort();
}

static void start(Lane& lane) {
    if (!lane.stack) {
        lane.stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (lane.stack == MAP_FAILED) abort();
        mprotect(lane.stack, 4096, PROT_NONE); // what runs over ends the process there and then
    }
    void** top = (void**)(lane.stack + STACK);
    *--top = nullptr; // keeps the stack aligned at fiber_main's entry
    *--top = (void*)fiber_main;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    lane.sp = top;
    lane.state = READY, lane.warp_barriers = 0, lane.pending.clear(), lane.groups.clear();
}

// All threads stand still: they wait at one barrier, or have ended, or something is wrong. True: the block has ended.
static bool all_ended(Machine& m) {
    int waiting = 0, done = 0, line = 0, n = now.threads;
    for (int t = 0; t < n; t++) {
        const Lane& l = *m.lanes[t];
        done += l.state == DONE;
        if (l.state != AT_BARRIER) continue;
        if (waiting++ && l.line != line && m.error.empty())
            m.error = "threads of one block wait at different barriers, lines " + std::to_string(std::min(line, l.line)) + " and " + std::to_string(std::max(line, l.line));
        line = l.line;
    }
    if (m.error.empty() && done != n && waiting != n)
        m.error = std::to_string(waiting) + " threads of a block wait at a barrier, " + std::to_string(done) + " have ended, " +
                  std::to_string(n - waiting - done) + " wait for other lanes of their warp";
    return done == n;
}

static void run_block(Machine& m) {
    int n = now.threads;
    m.shared.clear();
    m.declared.clear(0), m.given.clear(m.given_bytes);
    now.block_start = ++now.phase;
    m.ready.clear();
    for (int t = 0; t < n; t++) start(*m.lanes[t]), m.ready.push_back(t);
    for (;;) {
        while (!m.ready.empty()) {
            size_t pick = m.random() % m.ready.size();
            now.thread = m.ready[pick];
            m.ready[pick] = m.ready.back(), m.ready.pop_back();
            m.lane = m.lanes[now.thread].get();
            stamp(*m.lane);
            emu_switch(&m.scheduler, m.lane->sp);
            if (!m.error.empty()) return;
        }
        if (all_ended(m) || !m.error.empty()) return;
        now.phase++;
        for (int t = 0; t < n; t++) m.lanes[t]->state = READY, m.ready.push_back(t);
    }
}

struct Launch {
    u32 blocks, blocks_y, threads, shared;
    u64 seed;
};
} // namespace emu

// ---- for the host ------------------------------------------------------------------------------------------------
extern const emu::Entry* const* const emu_entries[];

extern "C" const emu::Entry* const* const* emu_table() { return emu_entries; }

// Runs every block, in a random order; what goes wrong is written to `why`. `clock`: phases of the device so far.
extern "C" int emu_launch(const emu::Entry* entry, const emu::Launch* launch, const emu::Argument* arguments, u32* clock, char* why, size_t room) {
    using namespace emu;
    Machine& m = machine();
    m.seed = launch->seed * 0x9E3779B97F4A7C15ull | 1;
    m.error.clear();
    m.entry = entry, m.arguments = arguments, m.given_bytes = launch->shared;
    while (m.lanes.size() < launch->threads) m.lanes.emplace_back(new Lane());
    now = Now();
    now.phase = *clock + 1;
    now.launch_start = now.phase;
    now.threads = launch->threads, now.blocks = launch->blocks, now.blocks_y = launch->blocks_y;
    std::vector<std::pair<u32, u32>> order;
    for (u32 y = 0; y < launch->blocks_y; y++)
        for (u32 x = 0; x < launch->blocks; x++) order.push_back({x, y});
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[m.random() % i]);
    for (auto b : order) {
        now.block = b.first, now.block_y = b.second;
        run_block(m);
        if (!m.error.empty()) break;
        if (now.phase > 0xf0000000u) m.error = "the emulator's clock ran out";
    }
    *clock = now.phase + 1;
    snprintf(why, room, "%s", m.error.c_str());
    return m.error.empty() ? 0 : 1;
}
