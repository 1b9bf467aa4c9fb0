// What attention's backward pass adds up before and after its products.
#include "attention_rows.cuh"

// y, dy [rows, dim] → delta [rows]: the sum of dy·y, a warp each.
KERNEL(attention_delta)(In<Y> y, In<Y> dy, Out<float> delta, u64 rows, int dim) {
    u64 row = (u64)block() * (threads() / 32) + thread() / 32;
    if (row >= rows) return;
    float sum = 0.0f;
    for (int c = thread() % 32; c < dim; c += 32) sum = fmaf(load(y, row * dim + c), load(dy, row * dim + c), sum);
    sum = warp_sum(sum);
    if (thread() % 32 == 0) delta[row] = sum;
}

// The sums of a long list's parts, in order. A block has an item: items[1] keys from items[0] on, items[3] parts from
// items[2] on.
KERNEL(attention_add_parts)(In<float> parts, In<u32> items, Out<Y> dk, Out<Y> dv, int key_heads, int dim) {
    const u64 item = 4 * (u64)block();
    const u32 first = items[item], keys = items[item + 1], part0 = items[item + 2], count = items[item + 3];
    const int key_head = block_y();
    for (u32 i = thread(); i < keys * dim; i += threads()) {
        float key_grad = 0.0f, value_grad = 0.0f;
        for (u32 part = part0; part < part0 + count; part++) {
            u64 at = ((u64)part * key_heads + key_head) * 2 * ROWS * dim + i;
            key_grad += parts[at], value_grad += parts[at + ROWS * dim];
        }
        u64 to = ((u64)(first + i / dim) * key_heads + key_head) * dim + i % dim;
        store(dk, to, key_grad);
        store(dv, to, value_grad);
    }
}
