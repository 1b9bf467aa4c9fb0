// y = s * x, of n numbers of type X.
#include "vector.cuh"

KERNEL(scale)(In<X> x, Out<X> y, u64 n, float s) {
    u64 i = first_of_all();
    if (i >= n) return;
    float v[EACH];
    load_each(x, i, n - i, v);
    for (int k = 0; k < EACH; k++) v[k] = s * v[k];
    store_each(y, i, n - i, v);
}
