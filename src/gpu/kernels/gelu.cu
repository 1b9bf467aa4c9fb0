// GELU, in its exact form and in that by tanh, of n numbers of type X.
#include "activations.cuh"
#include "vector.cuh"

template <float VALUE(float)> DEVICE void forward(In<X> x, Out<X> y, u64 n) {
    u64 i = first_of_all();
    if (i >= n) return;
    float v[EACH];
    load_each(x, i, n - i, v);
    for (int k = 0; k < EACH; k++) v[k] = VALUE(v[k]);
    store_each(y, i, n - i, v);
}

// dx = dy * the slope at x
template <Tangent TANGENT(float)> DEVICE void backward(In<X> x, In<X> dy, Out<X> dx, u64 n) {
    u64 i = first_of_all();
    if (i >= n) return;
    float v[EACH];
    float g[EACH];
    load_each(x, i, n - i, v);
    load_each(dy, i, n - i, g);
    for (int k = 0; k < EACH; k++) g[k] = g[k] * TANGENT(v[k]).slope;
    store_each(dx, i, n - i, g);
}

KERNEL(gelu_forward)(In<X> x, Out<X> y, u64 n) { forward<gelu>(x, y, n); }
KERNEL(gelu_backward)(In<X> x, In<X> dy, Out<X> dx, u64 n) { backward<gelu_tangent>(x, dy, dx, n); }
KERNEL(gelu_tanh_forward)(In<X> x, Out<X> y, u64 n) { forward<gelu_tanh>(x, y, n); }
KERNEL(gelu_tanh_backward)(In<X> x, In<X> dy, Out<X> dx, u64 n) { backward<gelu_tanh_tangent>(x, dy, dx, n); }
