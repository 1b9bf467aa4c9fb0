// Sums of a * b in f64, one for each of many parts of two arrays (the parameters of a model in arenas): norms, where a
// is b, and products of gradients. A number that is not finite leaves a sum that is not.
#include "prelude.cuh"

// The sum over the block in a fixed order, in thread 0. `scratch` holds 32 numbers.
DEVICE double sum_f64(double x, Shared<double> scratch) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x += shuffle_xor(x, lanes);
    if (thread() % 32 == 0) scratch[thread() / 32] = x;
    sync_block();
    double sum = 0.0;
    if (thread() == 0)
        for (int i = 0; i < threads() / 32; i++) sum += scratch[i];
    return sum;
}

// a, b f32; pieces [blocks,2]: from where to where; sums [blocks] f64.
KERNEL(dot_pieces)(In<float> a, In<float> b, In<u64> pieces, Out<double> sums) {
    SHARED(double, scratch, 32);
    u64 to = pieces[2 * (u64)block() + 1];
    double sum = 0.0;
    for (u64 i = pieces[2 * (u64)block()] + thread(); i < to; i += threads()) sum += (double)a[i] * (double)b[i];
    sum = sum_f64(sum, scratch);
    if (thread() == 0) sums[block()] = sum;
}

// A block to each part: the sum of its pieces, firsts[part] .. firsts[part + 1]. out [blocks] f64.
KERNEL(dot_parts)(In<double> sums, In<u64> firsts, Out<double> out) {
    SHARED(double, scratch, 32);
    u64 to = firsts[(u64)block() + 1];
    double sum = 0.0;
    for (u64 i = firsts[block()] + thread(); i < to; i += threads()) sum += sums[i];
    sum = sum_f64(sum, scratch);
    if (thread() == 0) out[block()] = sum;
}
