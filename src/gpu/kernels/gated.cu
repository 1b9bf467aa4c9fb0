// Gated linear units: y = f(gate) * up, of n numbers of type X; f is silu (SwiGLU) or a form of GELU (GeGLU).
#include "activations.cuh"
#include "vector.cuh"

template <float VALUE(float)> DEVICE void forward(In<X> gate, In<X> up, Out<X> y, u64 n) {
    u64 i = first_of_all();
    if (i >= n) return;
    float g[EACH];
    float u[EACH];
    load_each(gate, i, n - i, g);
    load_each(up, i, n - i, u);
    for (int k = 0; k < EACH; k++) g[k] = VALUE(g[k]) * u[k];
    store_each(y, i, n - i, g);
}

// Of the gate and of up: dy * up * f'(gate) and dy * f(gate).
struct Gradients { float gate, up; };

DEVICE Gradients of_silu(float g, float u, float dy) {
    float s = 1.0f / (1.0f + exact_exp(-g));
    return Gradients{dy * u * s * (1.0f + g * (1.0f - s)), dy * g * s};
}
DEVICE Gradients of_gelu(float g, float u, float dy) {
    Tangent at = gelu_tangent(g);
    return Gradients{dy * u * at.slope, dy * at.value};
}
DEVICE Gradients of_gelu_tanh(float g, float u, float dy) {
    Tangent at = gelu_tanh_tangent(g);
    return Gradients{dy * u * at.slope, dy * at.value};
}

template <Gradients GRADIENTS(float, float, float)>
DEVICE void backward(In<X> gate, In<X> up, In<X> dy, Out<X> dg, Out<X> du, u64 n) {
    u64 i = first_of_all();
    if (i >= n) return;
    float g[EACH];
    float u[EACH];
    float d[EACH];
    load_each(gate, i, n - i, g);
    load_each(up, i, n - i, u);
    load_each(dy, i, n - i, d);
    for (int k = 0; k < EACH; k++) {
        Gradients at = GRADIENTS(g[k], u[k], d[k]);
        g[k] = at.gate, u[k] = at.up;
    }
    store_each(dg, i, n - i, g);
    store_each(du, i, n - i, u);
}

KERNEL(gated_silu_forward)(In<X> gate, In<X> up, Out<X> y, u64 n) { forward<silu>(gate, up, y, n); }
KERNEL(gated_silu_backward)(In<X> gate, In<X> up, In<X> dy, Out<X> dg, Out<X> du, u64 n) {
    backward<of_silu>(gate, up, dy, dg, du, n);
}
KERNEL(gated_gelu_forward)(In<X> gate, In<X> up, Out<X> y, u64 n) { forward<gelu>(gate, up, y, n); }
KERNEL(gated_gelu_backward)(In<X> gate, In<X> up, In<X> dy, Out<X> dg, Out<X> du, u64 n) {
    backward<of_gelu>(gate, up, dy, dg, du, n);
}
KERNEL(gated_gelu_tanh_forward)(In<X> gate, In<X> up, Out<X> y, u64 n) { forward<gelu_tanh>(gate, up, y, n); }
KERNEL(gated_gelu_tanh_backward)(In<X> gate, In<X> up, In<X> dy, Out<X> dg, Out<X> du, u64 n) {
    backward<of_gelu_tanh>(gate, up, dy, dg, du, n);
}
