// y = x / sqrt(mean(x^2) + eps) * (offset + w) in rows of `width`: a row is a token's numbers, or one head's of them.
// X is the type of x and of its gradient, Y that of y and of its gradient; sums are f32.
#include "prelude.cuh"

// A thread has the numbers 8t .. 8t+7 of a row, then those 8 * threads further on: whether they are moved 16 bytes at a
// time or one by one, the order of the sums is the same.

// x [rows, width] X, w [width] f32 -> y [rows, width] Y, inverse [rows] f32, which the backward pass needs: 1 over the
// root. One block per row.
KERNEL(rms_norm_forward)(In<X> x, In<float> w, Out<Y> y, Out<float> inverse, int width, float eps, float offset) {
    SHARED(float, scratch, 32);
    u64 row = block();
    bool wide = width % 8 == 0 && aligned16(x) && aligned16(w) && aligned16(y);
    float v[8];
    float sum = 0.0f;
    for (int i = 8 * thread(); i < width; i += 8 * threads()) {
        load_up_to8(x, row * width + i, width - i, wide, v);
        for (int k = 0; k < 8; k++) sum = fmaf(v[k], v[k], sum);
    }
    float r = 1.0f / sqrtf(block_sum(sum, scratch) / width + eps);
    if (thread() == 0) inverse[row] = r;
    for (int i = 8 * thread(); i < width; i += 8 * threads()) {
        float weight[8];
        load_up_to8(x, row * width + i, width - i, wide, v);
        load_up_to8(w, i, width - i, wide, weight);
        for (int k = 0; k < 8; k++) v[k] = v[k] * r * (offset + weight[k]);
        store_up_to8(y, row * width + i, width - i, wide, v);
    }
}

// dx [rows, width] X = r * (dy*w' - x * r^2 * mean(dy*w'*x)), w' = offset + w;
// partial [blocks, width] f32 = the sum of dy*x*r over each block's rows, in order. Blocks walk the rows with a stride:
// the sums depend on the number of blocks. width <= 8 * threads.
KERNEL(rms_norm_backward)(In<X> x, In<float> w, In<Y> dy, In<float> inverse, Out<X> dx, Out<float> partial, u64 rows,
                          int width, float offset) {
    SHARED(float, scratch, 32);
    int i = 8 * thread();
    int mine = width - i; // 0 or less: none
    bool wide = mine > 0 && width % 8 == 0 && aligned16(x) && aligned16(w) && aligned16(dy) && aligned16(dx);
    float dw[8], weight[8];
    load_up_to8(w, i, mine, wide, weight);
    for (int k = 0; k < 8; k++) dw[k] = 0.0f, weight[k] += offset;
    for (u64 row = block(); row < rows; row += blocks()) {
        float r = inverse[row];
        float v[8], g[8];
        load_up_to8(x, row * width + i, mine, wide, v);
        load_up_to8(dy, row * width + i, mine, wide, g);
        float pull = 0.0f;
        for (int k = 0; k < 8; k++) pull = fmaf(g[k] * weight[k], v[k], pull);
        pull = block_sum(pull, scratch) * r * r / width;
        for (int k = 0; k < 8; k++) {
            dw[k] = fmaf(g[k] * v[k], r, dw[k]);
            v[k] = r * (g[k] * weight[k] - v[k] * pull);
        }
        store_up_to8(dx, row * width + i, mine, wide, v);
    }
    store_up_to8(partial, (u64)block() * width + i, mine, false, dw);
}

// into [width] f32 += the rows of partial [parts, width], in order.
KERNEL(add_partials)(In<float> partial, Out<float> into, int parts, int width) {
    int column = block() * threads() + thread();
    if (column >= width) return;
    float sum = 0.0f;
    for (int p = 0; p < parts; p++) sum += partial[(u64)p * width + column];
    into[column] += sum;
}
