// RMSNorm: y = x * r * (offset + w), r = 1 / sqrt(mean(x^2) + eps). A row is `width` numbers: a token, or a head of it.
// The number of threads comes from the width, never from the number of rows: a row has the same bits in any company.
#include "column_sums.cuh"
#include "norm_rows.cuh"

// One block per row. x [rows,width] X, w [width] f32 -> y [rows,width] Y; inverse [rows] f32 is r, for the gradients.
KERNEL(rms_norm_forward)(In<X> x, In<float> w, Out<Y> y, Out<float> inverse, u64 width, float eps, float offset) {
    SHARED(float, scratch, 32);
    u64 row = block();
    float sum = 0.0f;
    for (u64 i = EACH * thread(); i < width; i += EACH * threads()) {
        float v[EACH];
        load_each(x, row * width + i, width - i, v);
        for (int k = 0; k < EACH; k++) sum += v[k] * v[k];
    }
    float r = 1.0f / sqrtf(block_sum(sum, scratch) / (float)width + eps);
    if (thread() == 0) inverse[row] = r;
    for (u64 i = EACH * thread(); i < width; i += EACH * threads()) {
        float v[EACH];
        float weight[EACH];
        load_each(x, row * width + i, width - i, v);
        load_each(w, i, width - i, weight);
        for (int k = 0; k < EACH; k++) v[k] = v[k] * r * (offset + weight[k]);
        store_each(y, row * width + i, width - i, v);
    }
}

// One block per row. dy Y -> dx = dy*w*r - x * mean(dy*w*x) * r^3, X, where w stands for offset + w.
KERNEL(rms_norm_backward)(In<X> x, In<float> w, In<float> inverse, In<Y> dy, Out<X> dx, u64 width, float offset) {
    SHARED(float, scratch, 32);
    u64 row = block();
    float r = inverse[row];
    float sum = 0.0f;
    over_row(x, w, dy, row, width, [&](u64, float* v, const float* weight, const float* g) {
        for (int k = 0; k < EACH; k++) sum += g[k] * (offset + weight[k]) * v[k];
    });
    float pull = block_sum(sum, scratch) * r * r * r / (float)width;
    over_row(x, w, dy, row, width, [&](u64 i, float* v, const float* weight, const float* g) {
        for (int k = 0; k < EACH; k++) v[k] = g[k] * (offset + weight[k]) * r - v[k] * pull;
        store_each(dx, row * width + i, width - i, v);
    });
}

// The weight's gradient, sum over rows of dy * x * r: a partial sum of each slab of rows (column_sums.cuh).
KERNEL(rms_norm_weight)(In<X> x, In<float> inverse, In<Y> dy, Out<float> partial, u64 rows, u64 width, u64 slab) {
    column_partials(partial, rows, width, slab, [&](u64 row, u64 at) {
        return load(dy, at) * load(x, at) * inverse[row];
    });
}
