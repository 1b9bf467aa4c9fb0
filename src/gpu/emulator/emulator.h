// What kernels/prelude.cuh needs where kernels are compiled for the CPU: pointers that check every access, and the
// names of a kernel's surroundings. What is only called now and then is in emulator.cpp, so that each of the many
// specialisations compiles quickly.
//
// Every cell of two or four bytes, in memory of the device and in memory that a block shares, knows who wrote it last
// and who has read it since. An access fails that is out of its array's bounds, misaligned, reads what nothing wrote, or
// is separated by no barrier from another thread's access to the same cell where one of the two is a write.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

namespace emu {

// When an access was made, and by whom: the phase (32 bits), the thread + 1 (11 bits), the thread's warp barriers so far
// (21 bits). The device's clock of phases goes on with every launch, every block and every barrier of a block, so that
// one comparison says whether an earlier access is ordered before this one. 0: never.
typedef u64 Touch;
const Touch THREAD = 0x7ffull << 21, WARP_BARRIERS = (1ull << 21) - 1;
const Touch IN_FLIGHT = 0xffffffffull << 32; // an asynchronous copy into the cell has not arrived
// In the place of a thread + 1, where several threads of the same warp, or of different ones, have read.
const u32 WARP = 1025, SEVERAL = 0x7ff;

struct Cell {
    Touch writer, reader;
};

// A place in memory as a kernel sees it: an argument of the launch, or an array that the block shares.
struct View {
    u8* data;
    Cell* cells;
    u64 bytes;
    u64 shift;         // a cell has 1 << shift bytes
    const char* name;  // of the parameter
    const char* array; // what the memory was allocated for; null in shared memory
};

// Where this operating system's thread is; the phases are where the launch and the block began, and the present one.
struct Now {
    Touch touch;
    u32 launch_start, block_start, phase;
    int thread, threads, block, block_y, blocks, blocks_y;
};
extern __thread Now now __attribute__((tls_model("initial-exec")));

[[noreturn]] void out_of_bounds(const View* v, u64 at, u64 size, bool write);
[[noreturn]] void misaligned(const View* v, u64 at, u64 size, bool write);
[[noreturn]] void unordered(const View* v, const Cell* cell, bool write); // finds out what is wrong with the cell

inline u32 warp_of(Touch t) {
    u32 thread = (u32)((t & THREAD) >> 21);
    return thread < WARP ? (thread - 1) / 32 : thread - WARP;
}

// Whether a barrier, or the launch's beginning, lies between that access and this one.
inline bool ordered(Touch t) {
    u32 phase = t >> 32;
    if (phase < now.launch_start) return true;
    if (phase - now.block_start < now.phase - now.block_start) return true; // wraps where the block is another one
    if (phase != now.phase) return false;
    if (((t ^ now.touch) & THREAD) == 0) return true;
    return warp_of(t) == (u32)now.thread / 32 && ((t ^ now.touch) & WARP_BARRIERS) != 0;
}

// Those that read before, and the present thread.
inline Touch with_reader(Touch t) {
    if (ordered(t)) return now.touch;
    if (t >> 32 != now.phase) return (Touch)now.launch_start << 32 | (Touch)SEVERAL << 21; // of another block
    u32 warp = now.thread / 32;
    return (now.touch & ~THREAD) | (Touch)(warp_of(t) == warp ? WARP + warp : SEVERAL) << 21;
}

template <u64 size> void check_read(const View* v, u64 at) {
    if (at >= v->bytes || v->bytes - at < size) out_of_bounds(v, at, size, false);
    u64 first = at >> v->shift, last = (at + size - 1) >> v->shift;
    for (Cell *c = v->cells + first, *end = v->cells + last; c <= end; c++) {
        // Written by an earlier launch or copy, which is the usual case; or at all, and ordered.
        bool before = (u32)(c->writer >> 32) - 1 < now.launch_start - 1;
        if (!before && (c->writer == 0 || !ordered(c->writer))) unordered(v, c, false);
        c->reader = (u32)(c->reader >> 32) < now.launch_start ? now.touch : with_reader(c->reader);
    }
}

template <u64 size> void check_write(const View* v, u64 at) {
    if (at >= v->bytes || v->bytes - at < size) out_of_bounds(v, at, size, true);
    u64 first = at >> v->shift, last = (at + size - 1) >> v->shift;
    for (Cell *c = v->cells + first, *end = v->cells + last; c <= end; c++) {
        if (!ordered(c->writer) || !ordered(c->reader)) unordered(v, c, true);
        c->writer = now.touch;
    }
}

inline void check_aligned(const View* v, u64 at, u64 size, bool write) {
    if ((u64)(v->data + at) % size) misaligned(v, at, size, write);
}

template <class T> struct Ref {
    const View* view;
    u64 at; // bytes
    operator T() const {
        check_read<sizeof(T)>(view, at);
        T x;
        memcpy(&x, view->data + at, sizeof(T));
        return x;
    }
    const Ref& operator=(T x) const {
        check_write<sizeof(T)>(view, at);
        memcpy(view->data + at, &x, sizeof(T));
        return *this;
    }
    const Ref& operator=(const Ref& other) const { return *this = (T)other; }
    const Ref& operator+=(T x) const { return *this = (T)*this + x; }
    const Ref& operator-=(T x) const { return *this = (T)*this - x; }
    const Ref& operator*=(T x) const { return *this = (T)*this * x; }
};

// Pointers: the array that they point into, and how far (in bytes).
template <class T> struct Pointer {
    typedef T type;
    const View* view = nullptr;
    u64 at = 0;
    Pointer() {}
    Pointer(const View* view, u64 at = 0) : view(view), at(at) {}
    Ref<T> operator[](u64 i) const { return Ref<T>{view, at + i * sizeof(T)}; }
    Pointer operator+(u64 i) const { return Pointer(view, at + i * sizeof(T)); }
};
template <class T> struct ReadOnly {
    typedef T type;
    const View* view = nullptr;
    u64 at = 0;
    ReadOnly() {}
    ReadOnly(const View* view, u64 at = 0) : view(view), at(at) {}
    ReadOnly(Pointer<T> p) : view(p.view), at(p.at) {}
    T operator[](u64 i) const { return Ref<T>{view, at + i * sizeof(T)}; }
    ReadOnly operator+(u64 i) const { return ReadOnly(view, at + i * sizeof(T)); }
};

// ---- emulator.cpp ------------------------------------------------------------------------------------------------
typedef void (*Collective)(void* in[32], void* out[32]);
void barrier(int line);
void collective(Collective op, void* in, void* out, int line); // all lanes of a warp meet
void warp_barrier(int line);
const View* shared_array(const void* site, const char* name, u64 bytes, u64 align);
const View* shared_place(const void* site, const char* name, u64 at, u64 bytes, u64 align);
void copy_async(const View* to, u64 at, const View* from, u64 source, bool valid);
void commit_copies();
void wait_for_copies(u64 groups); // until so many groups are still in flight

// ---- the table of kernels ----------------------------------------------------------------------------------------
// Kinds of parameters: a number, or an array of such numbers. The host has the same constants.
enum Kind : u8 { F32, BF16, U32, U64, F64, I32, OTHER, ARRAY = 16 };

// An argument as the host gives it.
struct Argument {
    View view;
    u64 number;
};

struct Entry {
    const char *file, *definitions, *function; // no file: the end of a list of entries
    const char* parameters; // their names, each with a comma behind it
    u64 count;              // of parameters
    const u8* kinds;        // of the parameters
    void (*code)();         // null where the definitions leave the kernel out
    void (*call)(void (*code)(), const Argument* arguments); // runs one thread of a launch
};
} // namespace emu

struct alignas(2) bf16 {
    u16 bits;
};
struct alignas(16) vec4 {
    u32 w[4];
};

namespace emu {
template <class T> struct KindOf { static const u8 value = OTHER; };
template <> struct KindOf<float> { static const u8 value = F32; };
template <> struct KindOf<bf16> { static const u8 value = BF16; };
template <> struct KindOf<u32> { static const u8 value = U32; };
template <> struct KindOf<u64> { static const u8 value = U64; };
template <> struct KindOf<double> { static const u8 value = F64; };
template <> struct KindOf<int> { static const u8 value = I32; };
template <class T> struct KindOf<Pointer<T>> { static const u8 value = ARRAY + KindOf<T>::value; };
template <class T> struct KindOf<ReadOnly<T>> { static const u8 value = ARRAY + KindOf<T>::value; };

template <class T> struct Unpack {
    static T from(const Argument& a) {
        T x;
        memcpy(&x, &a.number, sizeof(T));
        return x;
    }
};
template <class T> struct Unpack<Pointer<T>> {
    static Pointer<T> from(const Argument& a) { return Pointer<T>(&a.view); }
};
template <class T> struct Unpack<ReadOnly<T>> {
    static ReadOnly<T> from(const Argument& a) { return ReadOnly<T>(&a.view); }
};

template <int... I> struct Indices {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> { typedef Indices<I...> type; };

template <class... A> struct Signature {
    static constexpr u8 kinds[sizeof...(A) + 1] = {KindOf<A>::value..., 0};
    template <int... I> static void call(void (*f)(A...), const Argument* a, Indices<I...>) {
        f(Unpack<A>::from(a[I])...);
    }
    static void call(void (*code)(), const Argument* a) {
        call((void (*)(A...))code, a, typename Count<sizeof...(A)>::type());
    }
};
template <class... A>
Entry entry(const char* file, const char* definitions, const char* function, const char* parameters, void (*f)(A...)) {
    typedef Signature<A...> S;
    return {file, definitions, function, parameters, sizeof...(A), S::kinds, (void (*)())f, S::call};
}
// Stands for a kernel of the source that the definitions leave out: a name further out than the kernel's would be.
struct Absent {};
inline Entry entry(const char* file, const char* definitions, const char* function, const char*, Absent) {
    return {file, definitions, function, "", 0, nullptr, nullptr, nullptr};
}
} // namespace emu

// ---- the names that kernels use ----------------------------------------------------------------------------------
#define KERNEL(name) static void name
#define DEVICE static inline
// A place in the source, by the address of a variable that lies there.
#define EMU_SITE ({ static const char site = 0; (const void*)&site; })
#define SHARED(T, name, n) emu::Pointer<T> name(emu::shared_array(EMU_SITE, #name, sizeof(T) * (u64)(n), sizeof(T)))
#define SHARED_AT(T, name, at, n) \
    emu::Pointer<T> name(emu::shared_place(EMU_SITE, #name, at, sizeof(T) * (u64)(n), sizeof(T)))
template <class T> using In = emu::ReadOnly<T>;
template <class T> using Out = emu::Pointer<T>;
template <class T> using Shared = emu::Pointer<T>;

DEVICE u32 bits_of(float x) {
    u32 b;
    memcpy(&b, &x, 4);
    return b;
}
DEVICE float float_of(u32 b) {
    float x;
    memcpy(&x, &b, 4);
    return x;
}
DEVICE float to_float(bf16 x) { return float_of((u32)x.bits << 16); }
DEVICE bf16 to_bf16(float x) {
    u32 b = bits_of(x);
    if ((b & 0x7fffffff) > 0x7f800000) return bf16{0x7fff}; // as cvt.rn does
    return bf16{(u16)((b + 0x7fff + ((b >> 16) & 1)) >> 16)};
}
DEVICE int thread() { return emu::now.thread; }
DEVICE int threads() { return emu::now.threads; }
DEVICE int block() { return emu::now.block; }
DEVICE int block_y() { return emu::now.block_y; }
DEVICE int blocks() { return emu::now.blocks; }
DEVICE int blocks_y() { return emu::now.blocks_y; }
DEVICE void sync_block(int line = __builtin_LINE()) { emu::barrier(line); }
DEVICE void sync_warp(int line = __builtin_LINE()) { emu::warp_barrier(line); }

namespace emu {
template <class T> struct Exchange {
    T value;
    int lane;
};
template <class T> void exchange(void* in[32], void* out[32]) {
    for (int l = 0; l < 32; l++) *(T*)out[l] = ((Exchange<T>*)in[((Exchange<T>*)in[l])->lane])->value;
}
void multiply_matrices(void* in[32], void* out[32]);
void spread_matrices(void* in[32], void* out[32]);
void spread_matrices_t(void* in[32], void* out[32]);
struct MatrixRow {
    u16 cells[8];
};
struct MmaIn {
    u32 a[4], b[2];
    float c[4];
};
inline void matrix_row(Pointer<bf16> s, u32 i, MatrixRow* row) {
    check_aligned(s.view, s.at + 2 * i, 16, false);
    check_read<16>(s.view, s.at + 2 * i);
    memcpy(row, s.view->data + s.at + 2 * i, 16);
}
} // namespace emu

template <class T> static T shuffle(T x, int lane, int line = __builtin_LINE()) {
    emu::Exchange<T> in = {x, lane & 31};
    T out;
    emu::collective(emu::exchange<T>, &in, &out, line);
    return out;
}
template <class T> static T shuffle_xor(T x, int lanes, int line = __builtin_LINE()) {
    return shuffle(x, (thread() & 31) ^ lanes, line);
}
template <class P> static bool aligned16(P p) { return (u64)(p.view->data + p.at) % 16 == 0; }
template <class P> static vec4 load16(P p, u64 i) {
    u64 at = p.at + i * sizeof(typename P::type);
    emu::check_aligned(p.view, at, 16, false);
    emu::check_read<16>(p.view, at);
    vec4 v;
    memcpy(&v, p.view->data + at, 16);
    return v;
}
template <class T> static void store16(emu::Pointer<T> p, u64 i, vec4 v) {
    u64 at = p.at + i * sizeof(T);
    emu::check_aligned(p.view, at, 16, true);
    emu::check_write<16>(p.view, at);
    memcpy(p.view->data + at, &v, 16);
}
template <class T, class P> static void copy16_async(emu::Pointer<T> to, u32 i, P from, u64 j, bool valid) {
    emu::copy_async(to.view, to.at + i * sizeof(T), from.view, from.at + j * sizeof(T), valid);
}
DEVICE void copies_commit() { emu::commit_copies(); }
template <int N> static void copies_wait() { emu::wait_for_copies(N); }
DEVICE void load_matrix4(Shared<bf16> s, u32 i, u32 r[4], int line = __builtin_LINE()) {
    emu::MatrixRow row;
    emu::matrix_row(s, i, &row);
    emu::collective(emu::spread_matrices, &row, r, line);
}
DEVICE void load_matrix4_t(Shared<bf16> s, u32 i, u32 r[4], int line = __builtin_LINE()) {
    emu::MatrixRow row;
    emu::matrix_row(s, i, &row);
    emu::collective(emu::spread_matrices_t, &row, r, line);
}
DEVICE void mma(float c[4], const u32 a[4], u32 b0, u32 b1, int line = __builtin_LINE()) {
    emu::MmaIn in = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
    emu::collective(emu::multiply_matrices, &in, c, line);
}
DEVICE u64 mul_high(u64 a, u64 b) { return (u64)((unsigned __int128)a * b >> 64); }
DEVICE float fast_exp2(float x) { return exp2f(x); }
