// What every kernel file begins with. On a GPU it is compiled by NVRTC without any header of the toolkit; on the CPU
// the same names come from emulator.h. Kernels use nothing else.
#pragma once
#ifdef RHOPO_EMULATED
#include "../emulator/emulator.h"
#else
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#define KERNEL(name) extern "C" __global__ void name
#define DEVICE static __device__ __forceinline__
#define SHARED(T, name, n) __shared__ __align__(16) T name[n]
// Shared memory given at the launch: `at` is the first byte. More than 48 KiB of it must be asked for by the host.
extern __shared__ __align__(128) u8 shared_pool[];
#define SHARED_AT(T, name, at, n) T* name = reinterpret_cast<T*>(shared_pool + (at))
template <class T> using In = const T* __restrict__;
template <class T> using Out = T* __restrict__;
template <class T> using Shared = T*;
struct alignas(2) bf16 { u16 bits; };
struct alignas(16) vec4 { u32 w[4]; };
DEVICE float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
DEVICE bf16 to_bf16(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
DEVICE float float_of(u32 x) { return __uint_as_float(x); }
template <class T> DEVICE T shuffle_xor(T x, int lanes) { return __shfl_xor_sync(0xffffffffu, x, lanes); }
template <class T> DEVICE T shuffle(T x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }
DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }
DEVICE int thread() { return threadIdx.x; }
DEVICE int threads() { return blockDim.x; }
DEVICE int block() { return blockIdx.x; }
DEVICE int block_y() { return blockIdx.y; }
DEVICE int blocks() { return gridDim.x; }
DEVICE int blocks_y() { return gridDim.y; }
// Whether load16 and store16 can be used from here on, in steps of 16 bytes.
template <class T> DEVICE bool aligned16(const T* p) { return reinterpret_cast<u64>(p) % 16 == 0; }
// 16 bytes at element i, which must be aligned to them.
template <class T> DEVICE vec4 load16(const T* p, u64 i) { return *reinterpret_cast<const vec4*>(p + i); }
template <class T> DEVICE void store16(T* p, u64 i, vec4 v) { *reinterpret_cast<vec4*>(p + i) = v; }
// Asynchronous copy of 16 bytes from global to shared memory; zero-filled where `valid` is false.
template <class T> DEVICE void copy16_async(T* to, u32 i, const T* from, u64 j, bool valid) {
    u32 at = (u32)__cvta_generic_to_shared(to + i);
    int size = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from + j), "r"(size) : "memory");
}
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
// Four 8x8 matrices of 16-bit numbers; lane l gives the row l%8 of matrix l/8 as element index i.
DEVICE void load_matrix4(const bf16* s, u32 i, u32 r[4]) {
    u32 at = (u32)__cvta_generic_to_shared(s + i);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
DEVICE void load_matrix4_t(const bf16* s, u32 i, u32 r[4]) {
    u32 at = (u32)__cvta_generic_to_shared(s + i);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
// c[16x8] += a[16x16] * b[16x8], bf16 in, f32 sums.
DEVICE void mma(float c[4], const u32 a[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEVICE u64 mul_high(u64 a, u64 b) { return __umul64hi(a, b); }
DEVICE float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

// ---- what both sides share -------------------------------------------------------------------------------------
DEVICE u32 pack2(float a, float b) { return (u32)to_bf16(a).bits | (u32)to_bf16(b).bits << 16; }
DEVICE float low(u32 w) { return float_of(w << 16); }
DEVICE float high(u32 w) { return float_of(w & 0xffff0000u); }

// Numbers of either type as f32, one or eight neighbours; eight begin at a multiple of 16 bytes.
DEVICE float load(In<float> p, u64 i) { return p[i]; }
DEVICE float load(In<bf16> p, u64 i) { return to_float(p[i]); }
DEVICE void store(Out<float> p, u64 i, float x) { p[i] = x; }
DEVICE void store(Out<bf16> p, u64 i, float x) { p[i] = to_bf16(x); }
DEVICE void load8(In<float> p, u64 i, float x[8]) {
    vec4 a = load16(p, i), b = load16(p, i + 4);
    for (int k = 0; k < 4; k++) x[k] = float_of(a.w[k]), x[k + 4] = float_of(b.w[k]);
}
DEVICE void load8(In<bf16> p, u64 i, float x[8]) {
    vec4 a = load16(p, i);
    for (int k = 0; k < 4; k++) x[2 * k] = low(a.w[k]), x[2 * k + 1] = high(a.w[k]);
}
DEVICE void store8(Out<float> p, u64 i, const float x[8]) {
    vec4 a, b;
    for (int k = 0; k < 4; k++) a.w[k] = bits_of(x[k]), b.w[k] = bits_of(x[k + 4]);
    store16(p, i, a);
    store16(p, i + 4, b);
}
DEVICE void store8(Out<bf16> p, u64 i, const float x[8]) {
    vec4 a;
    for (int k = 0; k < 4; k++) a.w[k] = pack2(x[2 * k], x[2 * k + 1]);
    store16(p, i, a);
}
// `count` of them (8 at most), the others zero; `wide` says that there are eight, aligned.
template <class P> DEVICE void load_up_to8(P p, u64 i, int count, bool wide, float x[8]) {
    if (wide) return load8(p, i, x);
    for (int k = 0; k < 8; k++) x[k] = k < count ? load(p, i + k) : 0.0f;
}
template <class P> DEVICE void store_up_to8(P p, u64 i, int count, bool wide, const float x[8]) {
    if (wide) return store8(p, i, x);
    for (int k = 0; k < 8; k++)
        if (k < count) store(p, i + k, x[k]);
}

// The sum over a warp, the same bits in every lane.
DEVICE float warp_sum(float x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x += shuffle_xor(x, lanes);
    return x;
}

// The sum over the block in a fixed order, the same bits in every thread. `scratch` holds 32 numbers.
DEVICE float block_sum(float x, Shared<float> scratch) {
    x = warp_sum(x);
    sync_block(); // the last sum has been read by all
    if (thread() % 32 == 0) scratch[thread() / 32] = x;
    sync_block();
    float sum = 0.0f;
    for (int i = 0; i < threads() / 32; i++) sum += scratch[i];
    return sum;
}
