// Rotary position embedding, the two-halves form: number i of a head turns with number i + half, by the angles of the
// row. Numbers past 2 * half stay as they are.
#include "prelude.cuh"

// One block of threads per row. x [rows, heads * size] X; cos and sin [rows,half] f32. `way` is 1, or -1 to turn back.
KERNEL(rotary)(In<X> x, In<float> cos, In<float> sin, Out<X> y, u64 width, u32 size, u32 half, float way) {
    u64 row = block();
    for (u64 i = thread(); i < width; i += threads()) {
        u32 at = (u32)i % size;
        u64 from = row * width + i;
        float v = load(x, from);
        if (at < half) {
            u64 angle = row * half + at;
            v = v * cos[angle] - load(x, from + half) * (way * sin[angle]);
        } else if (at < 2 * half) {
            u64 angle = row * half + at - half;
            v = v * cos[angle] + load(x, from - half) * (way * sin[angle]);
        }
        store(y, from, v);
    }
}
