// Sums of n numbers, x of type X and y of type Y: the sum has x's type.
#include "vector.cuh"

// `sum` may be `x` itself.
template <class P> DEVICE void add_numbers(P x, In<Y> y, Out<X> sum, u64 n) {
    u64 i = first_of_all();
    if (i >= n) return;
    float v[EACH];
    float w[EACH];
    load_each(x, i, n - i, v);
    load_each(y, i, n - i, w);
    for (int k = 0; k < EACH; k++) v[k] = v[k] + w[k];
    store_each(sum, i, n - i, v);
}

KERNEL(add)(In<X> x, In<Y> y, Out<X> sum, u64 n) { add_numbers(x, y, sum, n); }

// sum += y, in place
KERNEL(add_into)(Out<X> sum, In<Y> y, u64 n) { add_numbers(sum, y, sum, n); }
