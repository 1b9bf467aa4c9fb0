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

// A thread of the block. It has a stack from its first instruction to its last.
struct Lane {
    void* sp = nullptr; // where it waits; null before it begins
    char* stack = nullptr;
    State state = DONE;
    int line = 0;            // of the barrier or collective it waits at
    Collective op = nullptr; // and what it computes there
    void* in = nullptr;
    void* out = nullptr;
    u32 warp_barriers = 0;
    std::vector<Copy> pending;             // copies issued since the last commit
    std::vector<std::vector<Copy>> groups; // committed
};

// Memory that a block shares, as one array of the kernel sees it.
struct SharedArray {
    const void* site;
    View view;
};

struct Pool {
    std::vector<vec4> data;
    std::vector<Cell> cells; // of two bytes
    size_t used = 0;
    // Nothing is written in it when a block begins.
    void clear(size_t bytes) {
        size_t room = std::max(bytes, used);
        if (data.empty()) data.resize(SHARED_MOST / 16), cells.resize(SHARED_MOST / 2);
        memset(data.data(), 0xff, room); // NaN in every format
        memset(cells.data(), 0, (room + 1) / 2 * sizeof(Cell));
        used = bytes;
    }
    View view(size_t at, size_t bytes, u64 shift, const char* name) {
        return View{(u8*)data.data() + at, cells.data() + at / 2, bytes, shift, name, nullptr};
    }
};

// Of one thread of the operating system: a launch runs in one from beginning to end.
struct Machine {
    u64 seed = 1;
    std::vector<Lane> lanes;
    std::vector<int> ready;
    std::vector<char*> stacks, free_stacks;
    Lane* lane = nullptr;
    void* scheduler = nullptr;
    std::string error;
    const Entry* entry = nullptr;
    const Argument* arguments = nullptr;
    Pool declared, given; // by SHARED, by SHARED_AT
    size_t given_bytes = 0;
    std::vector<std::unique_ptr<SharedArray>> shared;
    u32 random(size_t below) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        return (seed >> 32) * below >> 32;
    }
    Machine() {}
    Machine(const Machine&) = delete;
    ~Machine() {
        for (char* s : stacks) munmap(s, STACK);
    }
};
static thread_local Machine machine_of_thread;
static __thread Machine* current; // the same, without the question whether it was made
static Machine& machine() { return *current; }

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
    fail("%s: out of bounds: %llu bytes %s at byte %lld of %llu", place(v).c_str(), (unsigned long long)size,
         write ? "written" : "read", (long long)at, (unsigned long long)v->bytes);
}

void misaligned(const View* v, u64 at, u64 size, bool write) {
    fail("%s: %llu bytes %s at byte %llu, which is not aligned to them", place(v).c_str(), (unsigned long long)size,
         write ? "written" : "read", (unsigned long long)at);
}

void unordered(const View* v, const Cell* cell, bool write) {
    const char* what = write ? "written" : "read";
    Touch w = cell->writer, t = ordered(w) ? cell->reader : w;
    char at[32];
    snprintf(at, sizeof at, " byte %llu: ", (unsigned long long)(cell - v->cells) << v->shift);
    std::string here = place(v) + at;
    if (w >> 32 == IN_FLIGHT >> 32) fail("%s%s while a copy into it is in flight", here.c_str(), what);
    if (!write && w == 0) fail("%sread before anything was written", here.c_str());
    u32 other = (t & THREAD) >> 21;
    std::string who = "thread " + std::to_string(other - 1);
    if (other == SEVERAL) who = "several threads";
    else if (other >= WARP)
        who = "several threads of warp " + std::to_string(other - WARP);
    fail("%s%s without a barrier after %s by %s of %s", here.c_str(), what, t == w ? "a write" : "a read", who.c_str(),
         t >> 32 == now.phase ? "the same block" : "another block");
}

// ---- shared memory -----------------------------------------------------------------------------------------------
static SharedArray* find(const void* site) {
    for (auto& s : machine().shared)
        if (s->site == site) return s.get();
    return nullptr;
}

const View* shared_array(const void* site, const char* name, u64 bytes, u64 align) {
    if (SharedArray* s = find(site)) return &s->view;
    Machine& m = machine();
    u64 at = (m.declared.used + 15) / 16 * 16;
    if (at + bytes > SHARED_DECLARED) fail("`%s` (shared): more than 48 KiB of shared memory declared", name);
    if (at + bytes + m.given_bytes > SHARED_MOST)
        fail("`%s` (shared): more than 227 KiB of shared memory in a block", name);
    m.declared.used = at + bytes;
    m.shared.emplace_back(new SharedArray{site, m.declared.view(at, bytes, align < 4 ? 1 : 2, name)});
    return &m.shared.back()->view;
}

const View* shared_place(const void* site, const char* name, u64 at, u64 bytes, u64 align) {
    if (SharedArray* s = find(site)) return &s->view;
    Machine& m = machine();
    if (at % align)
        fail("`%s` (shared): it begins at byte %llu, which is not aligned to its numbers", name, (unsigned long long)at);
    if (at + bytes > m.given_bytes)
        fail("`%s` (shared): it ends at byte %llu of the launch's shared memory, which has %zu", name,
             (unsigned long long)(at + bytes), m.given_bytes);
    m.shared.emplace_back(new SharedArray{site, m.given.view(at, bytes, 1, name)});
    return &m.shared.back()->view;
}

// ---- waiting -----------------------------------------------------------------------------------------------------
static void stamp(const Lane& lane) {
    now.touch = (u64)now.phase << 32 | (u64)(now.thread + 1) << 21 | (lane.warp_barriers & WARP_BARRIERS);
}

static void fiber_main();

static char* take_stack(Machine& m) {
    if (m.free_stacks.empty()) {
        void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) abort();
        mprotect(stack, 4096, PROT_NONE); // what runs over ends the process there and then
        m.stacks.push_back((char*)stack), m.free_stacks.push_back((char*)stack);
    }
    char* stack = m.free_stacks.back();
    m.free_stacks.pop_back();
    return stack;
}

// Makes a thread that can run the present one, drawn at random.
static void draw(Machine& m) {
    size_t pick = m.random(m.ready.size());
    now.thread = m.ready[pick];
    m.ready[pick] = m.ready.back(), m.ready.pop_back();
    m.lane = &m.lanes[now.thread];
    stamp(*m.lane);
}

// Where to go on: a thread that can run, or else the scheduler.
static void* next(Machine& m) {
    if (m.ready.empty()) return m.scheduler;
    draw(m);
    if (m.lane->sp) return m.lane->sp;
    m.lane->stack = take_stack(m);
    // Tops at different places: caches hold few lines whose addresses differ in the upper bits only.
    void** top = (void**)(m.lane->stack + STACK - now.thread % 64 * 320);
    *--top = nullptr; // keeps the stack aligned at fiber_main's entry
    *--top = (void*)fiber_main;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    return top;
}

static void yield() {
    Machine& m = machine();
    void** save = &m.lane->sp;
    emu_switch(save, next(m));
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
        Lane& lane = m.lanes[first + l];
        if (lane.state != IN_WARP) return yield();
        if (lane.op != op || lane.line != line)
            fail("lanes of one warp meet in different collectives, lines %d and %d", line, lane.line);
        ins[l] = lane.in, outs[l] = lane.out;
    }
    op(ins, outs);
    for (int l = 0; l < 32; l++) {
        m.lanes[first + l].state = READY;
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
    check_write<16>(to, at);
    if (valid) check_aligned(from, source, 16, false), check_read<16>(from, source);
    memset(to->data + at, 0xff, 16);
    for (u64 c = at >> to->shift; c < (at + 16) >> to->shift; c++) to->cells[c].writer = IN_FLIGHT;
    machine().lane->pending.push_back(Copy{to, at, from, source, valid});
}

static void arrive(const Copy& c) {
    for (u64 i = c.at >> c.to->shift; i < (c.at + 16) >> c.to->shift; i++) c.to->cells[i].writer = now.touch;
    check_write<16>(c.to, c.at);
    if (!c.valid) {
        memset(c.to->data + c.at, 0, 16);
        return;
    }
    check_read<16>(c.from, c.source);
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

// ---- launching ---------------------------------------------------------------------------------------------------
// Runs one thread, and on its stack those that begin when it has ended.
static void fiber_main() {
    Machine& m = machine();
    for (;;) {
        m.entry->call(m.entry->code, m.arguments);
        if (!m.lane->pending.empty() || !m.lane->groups.empty()) fail("a thread ended with copies still in flight");
        m.lane->state = DONE, m.lane->sp = nullptr;
        char* stack = m.lane->stack;
        void* onward = m.scheduler;
        if (!m.ready.empty()) {
            draw(m);
            m.lane->stack = m.lane->sp ? m.lane->stack : stack;
            onward = m.lane->sp;
        }
        if (!onward) continue;
        m.free_stacks.push_back(stack);
        void* lost;
        emu_switch(&lost, onward);
    }
}

// All threads stand still: they wait at one barrier, or have ended, or something is wrong. False: they can go on.
static bool all_ended(Machine& m) {
    int waiting = 0, done = 0, line = 0, n = now.threads;
    for (int t = 0; t < n; t++) {
        const Lane& l = m.lanes[t];
        done += l.state == DONE;
        if (l.state != AT_BARRIER) continue;
        if (waiting++ && l.line != line && m.error.empty())
            m.error = "threads wait at different barriers, lines " + std::to_string(std::min(line, l.line)) + " and " +
                      std::to_string(std::max(line, l.line));
        line = l.line;
    }
    if (m.error.empty() && done != n && waiting != n)
        m.error = std::to_string(waiting) + " threads wait at a barrier, " + std::to_string(done) + " have ended, " +
                  std::to_string(n - waiting - done) + " wait for other lanes of their warp";
    if (!m.error.empty()) m.error += " (block " + std::to_string(now.block) + "," + std::to_string(now.block_y) + ")";
    return done == n || !m.error.empty();
}

static void run_block(Machine& m) {
    int n = now.threads;
    m.shared.clear();
    m.declared.clear(0), m.given.clear(m.given_bytes);
    now.block_start = ++now.phase;
    m.ready.clear();
    m.free_stacks = m.stacks;
    for (int t = 0; t < n; t++) {
        Lane& lane = m.lanes[t];
        lane.sp = nullptr, lane.state = READY, lane.warp_barriers = 0, lane.pending.clear(), lane.groups.clear();
        m.ready.push_back(t);
    }
    for (;;) {
        emu_switch(&m.scheduler, next(m));
        if (!m.error.empty() || all_ended(m)) return;
        now.phase++;
        for (int t = 0; t < n; t++) m.lanes[t].state = READY, m.ready.push_back(t);
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
extern "C" int emu_launch(const emu::Entry* entry, const emu::Launch* launch, const emu::Argument* arguments, u32* clock,
                          char* why, size_t room) {
    using namespace emu;
    Machine& m = machine_of_thread;
    current = &m;
    m.seed = launch->seed * 0x9E3779B97F4A7C15ull | 1;
    m.error.clear();
    m.entry = entry, m.arguments = arguments, m.given_bytes = launch->shared;
    if (m.lanes.size() < launch->threads) m.lanes.resize(launch->threads);
    now = Now();
    now.phase = *clock + 1;
    now.launch_start = now.phase;
    now.threads = launch->threads, now.blocks = launch->blocks, now.blocks_y = launch->blocks_y;
    std::vector<std::pair<u32, u32>> order;
    for (u32 y = 0; y < launch->blocks_y; y++)
        for (u32 x = 0; x < launch->blocks; x++) order.push_back({x, y});
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[m.random(i)]);
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
