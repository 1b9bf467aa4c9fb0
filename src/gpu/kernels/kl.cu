// Divergences between p = softmax(z) and p' = softmax(z') from the logits of two models, a chunk at a time; z = logits /
// temperature. Z is the type of dz. Where both are the same numbers, the divergence and its gradient are exactly 0.
#include "softmax.cuh"

// own, other [rows,columns] f32. running [rows,5] f32 is what each row came to so far, from the first chunk on: the
// largest z and the sum of exp(z - largest), both again of z', and the sum of exp(z - largest) * (z - z').
KERNEL(absorb_kl)(In<float> own, In<float> other, Out<float> running, u32 columns, u32 begins, float scale, float cap,
                  float other_cap) {
    SHARED(float, scratch, 32);
    u64 row = block();
    float z[EACH], reference[EACH], old[5] = {-INFINITY, 0.0f, -INFINITY, 0.0f, 0.0f};
    load_logits(own, row, columns, cap, scale, z);
    load_logits(other, row, columns, other_cap, scale, reference);
    if (!begins)
        for (int i = 0; i < 5; i++) old[i] = running[5 * row + i];
    float top = largest(z, columns, scratch), other_top = largest(reference, columns, scratch);
    top = old[0] > top ? old[0] : top;
    other_top = old[2] > other_top ? old[2] : other_top;
    float sum = 0.0f, other_sum = 0.0f, apart = 0.0f;
    for (int k = 0; k < EACH; k++) {
        if ((u32)thread() + k * THREADS >= columns) break;
        float e = exact_exp(z[k] - top);
        sum += e;
        apart += e * (z[k] - reference[k]);
        other_sum += exact_exp(reference[k] - other_top);
    }
    sum = block_sum(sum, scratch);
    other_sum = block_sum(other_sum, scratch);
    apart = block_sum(apart, scratch);
    if (thread() != 0) return;
    float carry = carried(old[1], old[0], top), other_carry = carried(old[3], old[2], other_top);
    running[5 * row] = top;
    running[5 * row + 1] = old[1] * carry + sum;
    running[5 * row + 2] = other_top;
    running[5 * row + 3] = old[3] * other_carry + other_sum;
    running[5 * row + 4] = old[4] * carry + apart;
}

// What a row comes to.
struct Divergence {
    float lse;   // log of the sum of exp(z)
    float other; // lse'
    float apart; // lse - lse'
    float kl;
};

DEVICE Divergence divergence(In<float> running, u64 row) {
    Divergence d;
    float sum = running[5 * row + 1];
    d.lse = running[5 * row] + exact_log(sum);
    d.other = running[5 * row + 2] + exact_log(running[5 * row + 3]);
    d.apart = d.lse - d.other;
    d.kl = running[5 * row + 4] / sum - d.apart;
    return d;
}

// y [pairs] f32: the divergence at each pair's row (nats). rows [pairs].
KERNEL(finish_kl)(In<float> running, In<u32> rows, Out<float> y, u64 pairs) {
    u64 pair = (u64)block() * threads() + thread();
    if (pair >= pairs) return;
    float kl = divergence(running, rows[pair]).kl;
    y[pair] = kl < 0.0f ? 0.0f : kl; // rounding may leave it just below 0; a NaN stays one
}

// What arrives at a row: dy of all its pairs, which begin at first [rows+1].
DEVICE float upstream(In<u32> first, In<float> dy, u64 row) {
    u32 end = first[row + 1];
    float g = 0.0f;
    for (u32 pair = first[row]; pair < end; pair++) g += dy[pair];
    return g;
}

// dy [pairs] f32 -> dz [rows,columns] Z: p * (log p - log p' - KL) times the row's upstream, over the temperature. A row
// whose upstream is zero stays zero, whatever its logits are.
KERNEL(kl_grad)(In<float> own, In<float> other, In<float> running, In<u32> first, In<float> dy, Out<Z> dz, u32 columns,
                float scale, float cap, float other_cap) {
    u64 row = block();
    Divergence d = divergence(running, row);
    float shift = d.apart + d.kl;
    float g = upstream(first, dy, row);
    for (int k = 0; k < EACH; k++) {
        u32 column = thread() + k * THREADS;
        if (column >= columns) break;
        float z = logit(own[row * columns + column], cap, scale);
        float reference = logit(other[row * columns + column], other_cap, scale);
        float grad = g == 0.0f ? 0.0f : exact_exp(z - d.lse) * (z - reference - shift) * g * scale;
        store(dz, row * columns + column, before_cap(grad, z, cap, scale));
    }
}

// dy [pairs] f32 -> dz [rows,columns] Z of KL(p' || p): (p - p') times the row's upstream, over the temperature. running
// [rows,5] is what absorb_kl came to with the reference in the policy's place.
KERNEL(forward_grad)(In<float> own, In<float> other, In<float> running, In<u32> first, In<float> dy, Out<Z> dz,
                     u32 columns, float scale, float cap, float other_cap) {
    u64 row = block();
    float other_lse = running[5 * row] + exact_log(running[5 * row + 1]);
    float lse = running[5 * row + 2] + exact_log(running[5 * row + 3]);
    float g = upstream(first, dy, row);
    for (int k = 0; k < EACH; k++) {
        u32 column = thread() + k * THREADS;
        if (column >= columns) break;
        float z = logit(own[row * columns + column], cap, scale);
        float reference = logit(other[row * columns + column], other_cap, scale);
        float grad = g == 0.0f ? 0.0f : (exact_exp(z - lse) - exact_exp(reference - other_lse)) * g * scale;
        store(dz, row * columns + column, before_cap(grad, z, cap, scale));
    }
}

// log(p/m) from apart = log p' - log p, m = beta * p' + (1 - beta) * p; exactly 0 at 0.
DEVICE float share(float apart, float beta) {
    bool above = apart > 0.0f;
    float keep = above ? beta : 1.0f - beta, with = above ? 1.0f - beta : beta;
    return -(above ? apart : 0.0f) - exact_log(fmaf(with, exact_exp(above ? -apart : apart), keep));
}

// A second look at all logits, once absorb_kl has found both softmaxes: sums [rows,2] f32 is what each row came to so far,
// the sums of p * log(p/m) and of p' * log(p'/m).
KERNEL(absorb_jsd)(In<float> own, In<float> other, In<float> running, Out<float> sums, u32 columns, u32 begins,
                   float scale, float cap, float other_cap, float beta) {
    SHARED(float, scratch, 32);
    u64 row = block();
    Divergence d = divergence(running, row);
    float z[EACH], reference[EACH], inner = 0.0f, outer = 0.0f;
    load_logits(own, row, columns, cap, scale, z);
    load_logits(other, row, columns, other_cap, scale, reference);
    for (int k = 0; k < EACH; k++) {
        if ((u32)thread() + k * THREADS >= columns) break;
        float logp = z[k] - d.lse, logq = reference[k] - d.other;
        float apart = logq - logp, of = share(apart, beta);
        inner += exact_exp(logp) * of;
        outer += exact_exp(logq) * (apart + of);
    }
    inner = block_sum(inner, scratch);
    outer = block_sum(outer, scratch);
    if (thread() != 0) return;
    sums[2 * row] = (begins ? 0.0f : sums[2 * row]) + inner;
    sums[2 * row + 1] = (begins ? 0.0f : sums[2 * row + 1]) + outer;
}

// y [pairs] f32: beta * KL(p' || m) + (1 - beta) * KL(p || m) at each pair's row.
KERNEL(finish_jsd)(In<float> sums, In<u32> rows, Out<float> y, u64 pairs, float beta) {
    u64 pair = (u64)block() * threads() + thread();
    if (pair >= pairs) return;
    u64 row = rows[pair];
    float found = beta * sums[2 * row + 1] + (1.0f - beta) * sums[2 * row];
    y[pair] = found < 0.0f ? 0.0f : found;
}

// dy [pairs] f32 -> dz [rows,columns] Z: (1 - beta) * p * (log(p/m) - KL(p || m)) times the row's upstream, over the
// temperature.
KERNEL(jsd_grad)(In<float> own, In<float> other, In<float> running, In<float> sums, In<u32> first, In<float> dy,
                 Out<Z> dz, u32 columns, float scale, float cap, float other_cap, float beta) {
    u64 row = block();
    Divergence d = divergence(running, row);
    float inner = sums[2 * row];
    float g = upstream(first, dy, row);
    for (int k = 0; k < EACH; k++) {
        u32 column = thread() + k * THREADS;
        if (column >= columns) break;
        float z = logit(own[row * columns + column], cap, scale);
        float reference = logit(other[row * columns + column], other_cap, scale);
        float logp = z - d.lse, of = share(reference - d.other - logp, beta);
        float grad = g == 0.0f ? 0.0f : (1.0f - beta) * exact_exp(logp) * (of - inner) * g * scale;
        store(dz, row * columns + column, before_cap(grad, z, cap, scale));
    }
}
