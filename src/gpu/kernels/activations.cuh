// The functions of inner layers, as src/kernel/elementwise.rs has them: the value at a number, and the slope there.
#pragma once
#include "math.cuh"

struct Tangent { float value, slope; };

// x / (1 + e^-x)
DEVICE float silu(float x) { return x / (1.0f + exact_exp(-x)); }

// x * Phi(x)
DEVICE float gelu(float x) { return x * exact_normal(x).below; }
DEVICE Tangent gelu_tangent(float x) {
    Normal at = exact_normal(x);
    return Tangent{x * at.below, at.below + x * at.density};
}

// x/2 * (1 + tanh u), u = sqrt(2/pi) * (x + 0.044715 * x^3)
#define ROOT_2_BY_PI 0.7978845f // in f32: the root of 2/pi rounded, as the host has it
#define CUBIC 0.044715f
// (1 + tanh u)/2: the logistic function of 2u, without cancellation where it is small.
DEVICE float rise(float x) { return 1.0f / (1.0f + exact_exp(-2.0f * ROOT_2_BY_PI * x * (1.0f + CUBIC * x * x))); }
DEVICE float gelu_tanh(float x) { return x * rise(x); }
DEVICE Tangent gelu_tanh_tangent(float x) {
    float s = rise(x);
    float rising = x * s * (1.0f - s) * (2.0f * ROOT_2_BY_PI) * (1.0f + 3.0f * CUBIC * x * x);
    return Tangent{x * s, s + rising};
}
