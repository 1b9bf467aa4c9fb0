// Rows and vectors of any width and type, eight numbers to a thread at a time: 16-byte accesses where the numbers are
// aligned to them, single ones elsewhere (odd widths, ends). Which of the two it is never changes what is computed.
#pragma once
#include "prelude.cuh"

#define EACH 8 // numbers to a thread at a time; src/kernel/device/launch.rs has it too

// v[k] = p[i + k] for k < count; zeros after that.
template <class P> DEVICE void load_each(P p, u64 i, u64 count, float v[EACH]) {
    load_up_to8(p, i, count < EACH ? (int)count : EACH, count >= EACH && aligned16(p + i), v);
}

// p[i + k] = v[k], rounded to p's type, for k < count.
template <class P> DEVICE void store_each(P p, u64 i, u64 count, const float v[EACH]) {
    store_up_to8(p, i, count < EACH ? (int)count : EACH, count >= EACH && aligned16(p + i), v);
}

// The first number of this thread where a vector is cut over all threads of all blocks.
DEVICE u64 first_of_all() { return ((u64)block() * threads() + thread()) * EACH; }
