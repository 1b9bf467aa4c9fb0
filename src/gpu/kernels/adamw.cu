// One step of AdamW over an array of parameters or a whole arena of them, operation by operation as the host's
// (kernel/adamw.rs): the same bits. C is the type of the copy that a model's operations read.
#include "prelude.cuh"

struct Rule {
    float beta1, beta2;
    float rate; // lr over the first moment's bias correction
    float root; // the square root of the second moment's bias correction
    float eps;
    float keep;  // what weight decay leaves of a parameter
    float scale; // what clipping leaves of a gradient
};

// Parameter number i, after the step.
DEVICE float step(Rule rule, Out<float> p, In<float> grad, Out<float> first, Out<float> second, u64 i) {
    float g = grad[i] * rule.scale;
    float m = rule.beta1 * first[i] + (1.0f - rule.beta1) * g;
    float v = rule.beta2 * second[i] + (1.0f - rule.beta2) * g * g;
    float next = rule.keep * p[i] - rule.rate * m / (sqrtf(v) / rule.root + rule.eps);
    first[i] = m;
    second[i] = v;
    p[i] = next;
    return next;
}

#define EACH 4

// p, grad, first, second [n] f32; p and both moments in place.
KERNEL(adamw)(Out<float> p, In<float> grad, Out<float> first, Out<float> second, u64 n, float beta1, float beta2,
              float rate, float root, float eps, float keep, float scale) {
    Rule rule = {beta1, beta2, rate, root, eps, keep, scale};
    u64 at = (u64)block() * threads() * EACH + thread();
    for (int k = 0; k < EACH; k++, at += threads())
        if (at < n) step(rule, p, grad, first, second, at);
}

// As `adamw`; copy [n] C: the parameters, rounded.
KERNEL(adamw_copy)(Out<float> p, In<float> grad, Out<float> first, Out<float> second, Out<C> copy, u64 n, float beta1,
                   float beta2, float rate, float root, float eps, float keep, float scale) {
    Rule rule = {beta1, beta2, rate, root, eps, keep, scale};
    u64 at = (u64)block() * threads() * EACH + thread();
    for (int k = 0; k < EACH; k++, at += threads())
        if (at < n) store(copy, at, step(rule, p, grad, first, second, at));
}
