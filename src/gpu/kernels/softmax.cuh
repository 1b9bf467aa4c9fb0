// What the kernels of language-model heads share: how a block goes over a row of a chunk of logits.
#pragma once
#include "prelude.cuh"
#include "math.cuh"

// A block of THREADS threads takes a row; each of them holds EACH logits, THREADS columns apart. A chunk has THREADS *
// EACH columns at most. Sums are taken within a thread, then over the block, and chunk is added to chunk: what a row
// comes to depends on where the vocabulary is cut, and on no other row.
#define THREADS 256
#define EACH 16

// A product of a row of h with a row of W, soft-capped where cap > 0, over the temperature.
DEVICE float logit(float product, float cap, float scale) {
    if (cap > 0.0f) product = cap * exact_tanh(product * (1.0f / cap));
    return product * scale;
}

// This thread's part of row `row` of `logits` [rows,columns].
DEVICE void load_logits(In<float> logits, u64 row, u32 columns, float cap, float scale, float z[EACH]) {
    for (int k = 0; k < EACH; k++) {
        u32 column = thread() + k * THREADS;
        if (column < columns) z[k] = logit(logits[row * columns + column], cap, scale);
    }
}

// What the gradient of capped logits, of which z is one times scale, comes to before the cap. A zero stays zero,
// whatever z is.
DEVICE float before_cap(float dz, float z, float cap, float scale) {
    if (cap <= 0.0f || dz == 0.0f) return dz;
    float t = z / (cap * scale);
    return dz * (1.0f - t * t);
}

// The largest of the block, the same in every thread; NaN is passed over. `scratch` holds 32 numbers.
DEVICE float block_max(float x, Shared<float> scratch) {
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        float other = shuffle_xor(x, lanes);
        x = other > x ? other : x;
    }
    sync_block(); // the last result has been read by all
    if (thread() % 32 == 0) scratch[thread() / 32] = x;
    sync_block();
    float most = -INFINITY;
    for (int i = 0; i < threads() / 32; i++) {
        float other = scratch[i];
        most = other > most ? other : most;
    }
    return most;
}

DEVICE float largest(const float z[EACH], u32 columns, Shared<float> scratch) {
    float most = -INFINITY;
    for (int k = 0; k < EACH; k++)
        if ((u32)thread() + k * THREADS < columns && z[k] > most) most = z[k];
    return block_max(most, scratch);
}

// What a sum over exp(z - before) is multiplied by to be one over exp(z - top).
DEVICE float carried(float sum, float before, float top) { return sum == 0.0f ? 0.0f : exact_exp(before - top); }
