// Soft caps: y = by * tanh(x / by), of n numbers of type X.
#include "math.cuh"
#include "vector.cuh"

KERNEL(softcap_forward)(In<X> x, Out<X> y, u64 n, float by) {
    u64 i = first_of_all();
    if (i >= n) return;
    float inverse = 1.0f / by;
    float v[EACH];
    load_each(x, i, n - i, v);
    for (int k = 0; k < EACH; k++) v[k] = by * exact_tanh(v[k] * inverse);
    store_each(y, i, n - i, v);
}

// dx = dy * (1 - (y / by)^2) from the capped numbers y. A zero stays zero, whatever y is.
KERNEL(softcap_backward)(In<X> y, In<X> dy, Out<X> dx, u64 n, float by) {
    u64 i = first_of_all();
    if (i >= n) return;
    float inverse = 1.0f / by;
    float v[EACH];
    float g[EACH];
    load_each(y, i, n - i, v);
    load_each(dy, i, n - i, g);
    for (int k = 0; k < EACH; k++) {
        float t = v[k] * inverse;
        float moved = g[k] * (1.0f - t * t);
        g[k] = g[k] == 0.0f ? 0.0f : moved;
    }
    store_each(dx, i, n - i, g);
}
