// What decoding keeps of its newest tokens.
#include "prelude.cuh"

// k, v [rows, width] → row places[i] of keys, values [tokens, width] for row i; a block each.
KERNEL(append)(In<Y> k, In<Y> v, In<u32> places, Out<Y> keys, Out<Y> values, u64 width) {
    const u64 from = block() * width, to = places[block()] * width;
    for (u64 c = thread(); c < width; c += threads()) {
        keys[to + c] = k[from + c];
        values[to + c] = v[from + c];
    }
}
