// The gradients of log-probabilities and entropies with regard to a chunk of the logits. Z is the type of dz.
#include "softmax.cuh"

// As `absorb`, after the last chunk; dy [pairs,2] f32 -> dz [rows,columns] Z:
// sum over the row's pairs of dy0 * (1[token] - p) - dy1 * p * (z - mean z), over the temperature. A row whose
// upstream is zero stays zero, whatever its logits are.
KERNEL(softmax_grad)(In<float> logits, In<float> running, In<u32> first, In<u32> tokens, In<float> dy, Out<Z> dz,
                     u32 columns, u32 from, float scale, float cap) {
    u64 row = block();
    float z[EACH], grad[EACH];
    load_logits(logits, row, columns, cap, scale, z);
    float top = running[3 * row], sum = running[3 * row + 1];
    float lse = top + exact_log(sum), mean = running[3 * row + 2] / sum;
    u32 start = first[row], end = first[row + 1];
    float logprob = 0.0f, entropy = 0.0f;
    for (u32 pair = start; pair < end; pair++) {
        logprob += dy[2 * (u64)pair];
        entropy += dy[2 * (u64)pair + 1];
    }
    bool zero = logprob == 0.0f && entropy == 0.0f;
    for (int k = 0; k < EACH; k++) {
        if ((u32)thread() + k * THREADS >= columns) break;
        grad[k] = zero ? 0.0f : -exact_exp(z[k] - lse) * (logprob + entropy * (z[k] - mean)) * scale;
    }
    for (u32 pair = start; pair < end; pair++) {
        u32 column = tokens[pair] - from; // far beyond the columns where the token comes before them
        if (column >= columns || column % THREADS != (u32)thread()) continue;
        float more = dy[2 * (u64)pair] * scale;
        for (int k = 0; k < EACH; k++)
            if ((u32)k == column / THREADS) grad[k] += more;
    }
    for (int k = 0; k < EACH; k++) {
        u32 column = thread() + k * THREADS;
        if (column >= columns) break;
        store(dz, row * columns + column, before_cap(grad[k], z[k], cap, scale));
    }
}
