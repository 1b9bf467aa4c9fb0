// What the gradients of norms walk over: a row of x, with the weight and the upstream gradient beside it.
#pragma once
#include "vector.cuh"

// body(i, v, weight, g) for this thread's numbers of a row: v of x, g of dy, from number i of the row on.
template <class F> DEVICE void over_row(In<X> x, In<float> w, In<Y> dy, u64 row, u64 width, F body) {
    for (u64 i = EACH * thread(); i < width; i += EACH * threads()) {
        float v[EACH];
        float weight[EACH];
        float g[EACH];
        load_each(x, row * width + i, width - i, v);
        load_each(w, i, width - i, weight);
        load_each(dy, row * width + i, width - i, g);
        body(i, v, weight, g);
    }
}
