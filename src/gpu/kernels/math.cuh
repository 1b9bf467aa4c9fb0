// Functions of a number, operation by operation those of src/kernel/simd.rs: the same bits on the CPU and on a device.
#pragma once
#include "prelude.cuh"

// e^x to about 1 ulp; 0 below -87.3, and NaN stays NaN (fminf and fmaxf would lose it).
DEVICE float exact_exp(float x) {
    const float magic = 12582912.0f;
    float clamped = x < -87.3f ? -87.3f : x > 88.7f ? 88.7f : x;
    float shifted = fmaf(clamped, 1.44269504088896340736f, magic);
    float n = shifted - magic;
    float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.6933594f, clamped));
    float p = 1.9875691e-4f;
    p = fmaf(p, r, 1.3981999e-3f);
    p = fmaf(p, r, 8.333452e-3f);
    p = fmaf(p, r, 4.1665796e-2f);
    p = fmaf(p, r, 1.6666665e-1f);
    p = fmaf(p, r, 0.5f);
    float y = fmaf(p, r * r, r) + 1.0f;
    float scale = float_of((bits_of(shifted) - bits_of(magic) + 127u) << 23);
    return x < -87.3f ? 0.0f : y * scale;
}

// tanh x to about 2 ulp: an odd polynomial near 0, where 1 - e^(-2|x|) would cancel, then that.
DEVICE float exact_tanh(float x) {
    float square = x * x;
    float p = -5.7049887e-3f;
    p = fmaf(p, square, 2.0639088e-2f);
    p = fmaf(p, square, -5.3739716e-2f);
    p = fmaf(p, square, 1.3331444e-1f);
    p = fmaf(p, square, -3.333328e-1f);
    float t = fabsf(x), e = exact_exp(-2.0f * t);
    float large = (1.0f - e) / (1.0f + e);
    return t < 0.625f ? fmaf(p * square, x, x) : x < 0.0f ? -large : large;
}

// The normal distribution, its tails included: the mass below x and the density at x.
struct Normal { float below, density; };
DEVICE Normal exact_normal(float x) {
    float t = fabsf(x) < 14.0f ? fabsf(x) : 14.0f;
    float square = t * t;
    float rounding = fmaf(t, t, -square); // of the square: at the end of the tail it would cost 40 ulp
    float e = exact_exp(-0.5f * square);
    e = fmaf(-0.5f * e, rounding, e);
    float near = -7.654199e-6f;
    near = fmaf(near, square, 1.1348635e-4f);
    near = fmaf(near, square, -1.1863299e-3f);
    near = fmaf(near, square, 9.973323e-3f);
    near = fmaf(near, square, -6.649036e-2f);
    near = fmaf(near, square, 0.3989423f);
    float s = 1.0f / fmaf(0.4f, t, 1.0f);
    float far = 6.8121366e-2f;
    far = fmaf(far, s, -0.18642798f);
    far = fmaf(far, s, 0.105363145f);
    far = fmaf(far, s, 5.5540573e-2f);
    far = fmaf(far, s, 0.13900231f);
    far = fmaf(far, s, 0.1591f);
    far = fmaf(far, s, 0.15959579f);
    float tail = e * (s * far);
    float middle = fmaf(x, near, 0.5f);
    float outer = x < 0.0f ? tail : 1.0f - tail;
    Normal y;
    y.below = t < 1.0f ? middle : outer, y.density = e * 0.3989423f;
    return y;
}

// ln x to about 1 ulp, which the host leaves to its library (Moshier's Cephes): the exponent, and a polynomial of the
// mantissa around 1. NaN stays NaN.
DEVICE float exact_log(float x) {
    if (!(x > 0.0f)) return x == 0.0f ? -INFINITY : float_of(0x7fffffffu);
    if (x == INFINITY) return x;
    float exponent = 0.0f;
    if (x < 1.17549435e-38f) x *= 8388608.0f, exponent = -23.0f; // 2^-126, 2^23: a subnormal has no exponent of its own
    u32 bits = bits_of(x) - 0x3f3504f3u; // from sqrt(1/2) on
    exponent += (float)((int)bits >> 23);
    float m = float_of((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f; // within [sqrt(1/2) - 1, sqrt(2) - 1)
    float p = 7.0376836292e-2f;
    p = fmaf(p, m, -1.1514610310e-1f);
    p = fmaf(p, m, 1.1676998740e-1f);
    p = fmaf(p, m, -1.2420140846e-1f);
    p = fmaf(p, m, 1.4249322787e-1f);
    p = fmaf(p, m, -1.6668057665e-1f);
    p = fmaf(p, m, 2.0000714765e-1f);
    p = fmaf(p, m, -2.4999993993e-1f);
    p = fmaf(p, m, 3.3333331174e-1f);
    float square = m * m;
    float y = fmaf(exponent, -2.12194440e-4f, p * m * square);
    y = fmaf(-0.5f, square, y) + m;
    return fmaf(exponent, 0.693359375f, y);
}
