// y [rows,width] X += b [width] f32 in every row, in place. One block of threads per row.
#include "vector.cuh"

KERNEL(add_bias)(Out<X> y, In<float> b, u64 width) {
    u64 row = block();
    for (u64 i = EACH * thread(); i < width; i += EACH * threads()) {
        float v[EACH];
        float bias[EACH];
        load_each(y, row * width + i, width - i, v);
        load_each(b, i, width - i, bias);
        for (int k = 0; k < EACH; k++) v[k] += bias[k];
        store_each(y, row * width + i, width - i, v);
    }
}
