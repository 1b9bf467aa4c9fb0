// attention.cu and attention_backward.cu in f32, without tensor cores: for models that are computed in f32, and to hold
// the others to. Arguments, items, lists and parts are the same; a warp has a row of the block's own tile, and a lane two
// rows of each tile of TILE that it is joined to.
#include "attention_rows.cuh"
#include "math.cuh"

#define TILE 64
#define WARPS 4
#define EACH 8 // columns of a lane, 32 apart: dim <= 256

DEVICE float dot(In<float> a, u64 row_a, In<float> b, u64 row_b, int dim) {
    float sum = 0.0f;
    for (int c = 0; c < dim; c++) sum = fmaf(a[row_a * dim + c], b[row_b * dim + c], sum);
    return sum;
}

// sum += weights[i] · the row rows[i] of x, i < count in order; a lane's columns.
DEVICE void add_rows(float sum[EACH], Shared<float> weights, Shared<u32> rows, int count, In<float> x, int dim) {
    for (int i = 0; i < count; i++) {
        const float weight = weights[i];
        const u64 row = rows[i];
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int c = thread() % 32 + 32 * j;
            if (c < dim) sum[j] = fmaf(weight, x[row * dim + c], sum[j]);
        }
    }
}

DEVICE float warp_max(float x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, shuffle_xor(x, lanes));
    return x;
}

// A product q·k → the score; its derivative by scale·q·k.
DEVICE float score_of(float product, float scale, float cap, float* slope) {
    *slope = 1.0f;
    const float score = product * scale;
    if (cap == 0.0f) return score;
    const float t = exact_tanh(score * (1.0f / cap));
    *slope = fmaf(-t, t, 1.0f);
    return cap * t;
}

// lse is in base e here.
KERNEL(attention_forward)(In<float> q, In<float> k, In<float> v, In<u32> items, In<u32> ranges, Out<float> y,
                          Out<float> lse, int heads, int group, int pack, int dim, int window, float scale, float cap) {
    SHARED(float, all_weights, WARPS * TILE);
    SHARED(u32, all_rows, WARPS * TILE);
    const u64 item = 4 * (u64)block();
    const u32 first = items[item], place = items[item + 2], range0 = items[item + 3];
    const int count = items[item + 1] * pack, head = block_y() * pack;
    const int key_head = head / group, key_heads = heads / group;
    const int lane = thread() % 32, warp = thread() / 32;
    Shared<float> weights = all_weights + warp * TILE;
    Shared<u32> rows = all_rows + warp * TILE;
    for (int r = warp; r < count; r += WARPS) {
        const u64 row = (u64)(first + r / pack) * heads + head + r % pack;
        const u32 own = place + r / pack;
        u32 tile = (int)own < window ? 0 : (own + 1 - window) / TILE * TILE;
        Range range = {range0, ranges[2 * range0], ranges[2 * range0 + 1], 0};
        float m = -INFINITY, l = 0.0f, o[EACH];
        for (int j = 0; j < EACH; j++) o[j] = 0.0f;
        for (; tile <= own; tile += TILE) {
            range = range_of(ranges, range, tile);
            float s[2], slope;
            sync_warp(); // the last tile's weights have been read
            for (int h = 0; h < 2; h++) {
                const u32 key = tile + lane + 32 * h;
                s[h] = -INFINITY;
                if (key > own) continue;
                const u32 key_row = token_of(ranges, range, key) * key_heads + key_head;
                rows[lane + 32 * h] = key_row;
                if (sees((int)(own - key), window)) s[h] = score_of(dot(q, row, k, key_row, dim), scale, cap, &slope);
            }
            const float top = fmaxf(m, warp_max(fmaxf(s[0], s[1])));
            const float carry = exact_exp(m - top);
            const float p[2] = {exact_exp(s[0] - top), exact_exp(s[1] - top)};
            m = top, l = l * carry + (p[0] + p[1]);
            for (int h = 0; h < 2; h++) weights[lane + 32 * h] = p[h];
            sync_warp();
            for (int j = 0; j < EACH; j++) o[j] *= carry;
            add_rows(o, weights, rows, own - tile < TILE ? own - tile + 1 : TILE, v, dim);
        }
        l = warp_sum(l);
        const float inverse = 1.0f / l;
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int c = lane + 32 * j;
            if (c < dim) y[row * dim + c] = o[j] * inverse;
        }
        if (lane == 0) lse[row] = m + exact_log(l);
    }
}

// The probability of a pair that see each other, and the gradient of q·k.
struct Pair {
    float p, ds;
};

DEVICE Pair pair_of(float product, float dp, float lse, float delta, float scale, float cap) {
    float slope;
    const float p = exact_exp(score_of(product, scale, cap, &slope) - lse);
    return {p, p * (dp - delta) * scale * slope};
}

KERNEL(attention_dq)(In<float> q, In<float> k, In<float> v, In<float> dy, In<float> lse, In<float> delta, In<u32> items,
                     In<u32> ranges, Out<float> dq, int heads, int group, int dim, int window, float scale, float cap) {
    SHARED(float, all_weights, WARPS * TILE);
    SHARED(u32, all_rows, WARPS * TILE);
    const u64 item = 4 * (u64)block();
    const u32 first = items[item], place = items[item + 2], range0 = items[item + 3];
    const int count = items[item + 1], head = block_y(), key_head = head / group, key_heads = heads / group;
    const int lane = thread() % 32, warp = thread() / 32;
    Shared<float> weights = all_weights + warp * TILE;
    Shared<u32> rows = all_rows + warp * TILE;
    for (int r = warp; r < count; r += WARPS) {
        const u64 row = (u64)(first + r) * heads + head;
        const u32 own = place + r;
        u32 tile = (int)own < window ? 0 : (own + 1 - window) / TILE * TILE;
        Range range = {range0, ranges[2 * range0], ranges[2 * range0 + 1], 0};
        float sum[EACH];
        for (int j = 0; j < EACH; j++) sum[j] = 0.0f;
        for (; tile <= own; tile += TILE) {
            range = range_of(ranges, range, tile);
            sync_warp(); // the last tile's weights have been read
            for (int i = lane; i < TILE && tile + i <= own; i += 32) {
                const u32 key_row = token_of(ranges, range, tile + i) * key_heads + key_head;
                Pair pair = {0.0f, 0.0f};
                if (sees((int)(own - tile) - i, window))
                    pair = pair_of(dot(q, row, k, key_row, dim), dot(dy, row, v, key_row, dim), lse[row], delta[row],
                                   scale, cap);
                rows[i] = key_row, weights[i] = pair.ds;
            }
            sync_warp();
            add_rows(sum, weights, rows, own - tile < TILE ? own - tile + 1 : TILE, k, dim);
        }
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int c = lane + 32 * j;
            if (c < dim) dq[row * dim + c] = sum[j];
        }
    }
}

KERNEL(attention_dkv)(In<float> q, In<float> k, In<float> v, In<float> dy, In<float> lse, In<float> delta, In<u32> items,
                      In<u32> lists, Out<float> dk, Out<float> dv, Out<float> parts, int heads, int group, int dim,
                      int window, float scale, float cap) {
    SHARED(float, all_p, WARPS * TILE);
    SHARED(float, all_ds, WARPS * TILE);
    SHARED(u32, all_rows, WARPS * TILE);
    const u64 item = 5 * (u64)block();
    const u32 first = items[item], list = items[item + 2], count = items[item + 3], part = items[item + 4];
    const int keys = items[item + 1], key_head = block_y(), key_heads = heads / group;
    const int lane = thread() % 32, warp = thread() / 32;
    Shared<float> weights = all_p + warp * TILE, grads = all_ds + warp * TILE;
    Shared<u32> rows = all_rows + warp * TILE;
    for (int r = warp; r < keys; r += WARPS) {
        const u64 key_row = (u64)(first + r) * key_heads + key_head;
        float key_grad[EACH], value_grad[EACH];
        for (int j = 0; j < EACH; j++) key_grad[j] = value_grad[j] = 0.0f;
        for (u32 e = 0; e < count * group; e++) {
            const u64 entry = 6 * (u64)(list + e / group);
            const u32 query = lists[entry];
            const int queries = lists[entry + 1], query_place = lists[entry + 2], key_place = (int)lists[entry + 3] + r;
            if (r < (int)lists[entry + 4] || r >= (int)lists[entry + 5]) continue;
            if (query_place + queries - 1 < key_place || query_place - key_place >= window) continue;
            sync_warp(); // the last tile's weights have been read
            for (int i = lane; i < queries; i += 32) {
                const u32 row = (query + i) * heads + key_head * group + e % group;
                Pair pair = {0.0f, 0.0f};
                if (sees(query_place + i - key_place, window))
                    pair = pair_of(dot(q, row, k, key_row, dim), dot(dy, row, v, key_row, dim), lse[row], delta[row],
                                   scale, cap);
                rows[i] = row, weights[i] = pair.p, grads[i] = pair.ds;
            }
            sync_warp();
            add_rows(value_grad, weights, rows, queries, dy, dim);
            add_rows(key_grad, grads, rows, queries, q, dim);
        }
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            int c = lane + 32 * j;
            if (c >= dim) continue;
            if (part == NO_PART) {
                dk[key_row * dim + c] = key_grad[j], dv[key_row * dim + c] = value_grad[j];
            } else {
                u64 at = (((u64)part * key_heads + key_head) * 2 * ROWS + r) * dim + c;
                parts[at] = key_grad[j], parts[at + ROWS * dim] = value_grad[j];
            }
        }
    }
}
