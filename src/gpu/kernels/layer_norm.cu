// LayerNorm: y = (x - mean(x)) * r * w + b, r = 1 / sqrt(var(x) + eps), the variance biased; rows of `width` numbers.
// The number of threads comes from the width, never from the number of rows: a row has the same bits in any company.
#include "column_sums.cuh"
#include "norm_rows.cuh"

// One block per row. x [rows,width] X, w and b [width] f32 -> y [rows,width] Y; mean and inverse (r), [rows] f32, are
// kept for the gradients.
KERNEL(layer_norm_forward)(In<X> x, In<float> w, In<float> b, Out<Y> y, Out<float> mean, Out<float> inverse, u64 width,
                           float eps) {
    SHARED(float, scratch, 32);
    u64 row = block();
    float sum = 0.0f;
    for (u64 i = EACH * thread(); i < width; i += EACH * threads()) {
        float v[EACH];
        load_each(x, row * width + i, width - i, v);
        for (int k = 0; k < EACH; k++) sum += v[k];
    }
    float middle = block_sum(sum, scratch) / (float)width;
    float squares = 0.0f;
    for (u64 i = EACH * thread(); i < width; i += EACH * threads()) {
        float v[EACH];
        load_each(x, row * width + i, width - i, v);
        for (int k = 0; k < EACH; k++) {
            float distance = v[k] - middle;
            if (i + k < width) squares += distance * distance; // past the end there is no number, not a zero
        }
    }
    float r = 1.0f / sqrtf(block_sum(squares, scratch) / (float)width + eps);
    if (thread() == 0) mean[row] = middle, inverse[row] = r;
    for (u64 i = EACH * thread(); i < width; i += EACH * threads()) {
        float v[EACH];
        float weight[EACH];
        float bias[EACH];
        load_each(x, row * width + i, width - i, v);
        load_each(w, i, width - i, weight);
        load_each(b, i, width - i, bias);
        for (int k = 0; k < EACH; k++) v[k] = (v[k] - middle) * r * weight[k] + bias[k];
        store_each(y, row * width + i, width - i, v);
    }
}

// One block per row. With z = (x - mean)*r and g = dy*w: dx = r * (g - mean(g) - z * mean(g*z)), X.
KERNEL(layer_norm_backward)(In<X> x, In<float> w, In<float> mean, In<float> inverse, In<Y> dy, Out<X> dx, u64 width) {
    SHARED(float, scratch, 32);
    u64 row = block();
    float middle = mean[row], r = inverse[row];
    float level = 0.0f, pull = 0.0f;
    over_row(x, w, dy, row, width, [&](u64, float* v, const float* weight, const float* g) {
        for (int k = 0; k < EACH; k++) level += g[k] * weight[k], pull += g[k] * weight[k] * (v[k] - middle);
    });
    level = block_sum(level, scratch) / (float)width;
    pull = block_sum(pull, scratch) * r * r / (float)width;
    over_row(x, w, dy, row, width, [&](u64 i, float* v, const float* weight, const float* g) {
        for (int k = 0; k < EACH; k++) v[k] = r * (g[k] * weight[k] - level - (v[k] - middle) * pull);
        store_each(dx, row * width + i, width - i, v);
    });
}

// The weight's gradient, sum over rows of dy * (x - mean) * r: a partial sum of each slab of rows (column_sums.cuh).
KERNEL(layer_norm_weight)(In<X> x, In<float> mean, In<float> inverse, In<Y> dy, Out<float> partial, u64 rows,
                          u64 width, u64 slab) {
    column_partials(partial, rows, width, slab, [&](u64 row, u64 at) {
        return load(dy, at) * (load(x, at) - mean[row]) * inverse[row];
    });
}
