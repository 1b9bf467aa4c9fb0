// Log-probabilities of tokens and entropies of rows, from the logits a chunk at a time: z = logits / temperature, forward.
#include "softmax.cuh"

// logits [rows,columns] f32: the columns from `from` on of the vocabulary. running [rows,3] f32 is each row's softmax
// under way: the largest z, the sums of exp(z - largest) and of exp(z - largest) * z; it begins with the first chunk.
// first [rows+1]: where each row's pairs begin among the tokens; target [pairs] f32: z at the tokens of this chunk.
KERNEL(absorb)(In<float> logits, In<u32> first, In<u32> tokens, Out<float> running, Out<float> target, u32 columns,
               u32 from, u32 begins, float scale, float cap) {
    SHARED(float, scratch, 32);
    u64 row = block();
    float z[EACH];
    load_logits(logits, row, columns, cap, scale, z);
    float before = -INFINITY, old_sum = 0.0f, old_weighted = 0.0f;
    if (!begins) before = running[3 * row], old_sum = running[3 * row + 1], old_weighted = running[3 * row + 2];
    float top = largest(z, columns, scratch);
    top = before > top ? before : top;
    float sum = 0.0f, weighted = 0.0f;
    for (int k = 0; k < EACH; k++) {
        if ((u32)thread() + k * THREADS >= columns) break;
        float e = exact_exp(z[k] - top);
        sum += e;
        weighted += e * z[k];
    }
    sum = block_sum(sum, scratch);
    weighted = block_sum(weighted, scratch);
    if (thread() == 0) {
        float carry = carried(old_sum, before, top);
        running[3 * row] = top;
        running[3 * row + 1] = old_sum * carry + sum;
        running[3 * row + 2] = old_weighted * carry + weighted;
    }
    u32 end = first[row + 1];
    for (u32 pair = first[row] + thread(); pair < end; pair += THREADS) {
        u32 token = tokens[pair];
        if (token < from || token - from >= columns) continue;
        target[pair] = logit(logits[row * columns + (token - from)], cap, scale);
    }
}

// y [pairs,2] f32: log softmax at each pair's token, and the entropy at its row (nats). rows [pairs].
KERNEL(finish)(In<float> running, In<float> target, In<u32> rows, Out<float> y, u64 pairs) {
    u64 pair = (u64)block() * threads() + thread();
    if (pair >= pairs) return;
    u64 row = rows[pair];
    float sum = running[3 * row + 1];
    float lse = running[3 * row] + exact_log(sum);
    y[2 * pair] = target[pair] - lse;
    y[2 * pair + 1] = lse - running[3 * row + 2] / sum;
}
