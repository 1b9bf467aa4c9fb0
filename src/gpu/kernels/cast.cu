// n numbers of type X as numbers of type Y.
#include "vector.cuh"

KERNEL(cast)(In<X> x, Out<Y> y, u64 n) {
    u64 i = first_of_all();
    if (i >= n) return;
    float v[EACH];
    load_each(x, i, n - i, v);
    store_each(y, i, n - i, v);
}
