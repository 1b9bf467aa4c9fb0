// The backward pass of attention.cu, without atomics: queries' gradients by tile of queries, keys' and values' by tile
// of keys, each walking what it is joined to in a fixed order and computing the probabilities again from the log-sum-exp
// (Dao et al. 2022, arXiv:2205.14135).
#include "attention.cuh"

// A score q·k → the probability, and the gradient of scale·q·k by way of the gradient of the probability.
struct Softmax {
    float scale, cap;
    bool seen;

    // lse in base 2; pull is the query's delta.
    void operator()(float& score, float& grad, float lse, float pull) const {
        float slope = scale;
        if (cap != 0.0f) {
            float t = fast_tanh(score * (scale / cap));
            score = cap / scale * t, slope = scale * fmaf(-t, t, 1.0f);
        }
        score = seen ? fast_exp2(fmaf(score, scale * LOG2E, -lse)) : 0.0f;
        grad = score * (grad - pull) * slope;
    }
};

// q, dy, dq [N, heads, dim]; k, v [N, heads / group, dim]; lse, delta [N, heads]; items and ranges as in attention.cu.
KERNEL(attention_dq)(In<bf16> q, In<bf16> k, In<bf16> v, In<bf16> dy, In<float> lse, In<float> delta, In<u32> items,
                     In<u32> ranges, Out<bf16> dq, int heads, int group, int dim, int window, float scale, float cap) {
    SHARED_AT(bf16, sq, 0, ROWS * PITCH);
    SHARED_AT(bf16, sdy, 2 * ROWS * PITCH, ROWS * PITCH);
    SHARED_AT(bf16, sk, 4 * ROWS * PITCH, OTHERS * PITCH);
    SHARED_AT(bf16, sv, 4 * ROWS * PITCH + 2 * OTHERS * PITCH, OTHERS * PITCH);
    const u64 item = 4 * (u64)block();
    const u32 first = items[item], place = items[item + 2], range0 = items[item + 3], end = place + items[item + 1];
    const int rows = items[item + 1], head = block_y(), key_head = head / group, key_heads = heads / group;
    const int lane = thread() % 32, warp = thread() / 32;
    auto query_row = [&](int r) { return (u64)(first + r) * heads + head; };
    fetch(sq, ROWS, q, dim, rows, query_row);
    fetch(sdy, ROWS, dy, dim, rows, query_row);

    float sum[2], pull[2], out[HEAD_DIM / 8][4];
    for (int h = 0; h < 2; h++) {
        const int r = 16 * warp + lane / 4 + 8 * h;
        sum[h] = r < rows ? lse[query_row(r)] : 0.0f;
        pull[h] = r < rows ? delta[query_row(r)] : 0.0f;
    }
    for (int n = 0; n < HEAD_DIM / 8; n++)
        for (int i = 0; i < 4; i++) out[n][i] = 0.0f;
    u32 tile = (int)place < window ? 0 : (place + 1 - window) / OTHERS * OTHERS;
    Range range = {range0, ranges[2 * range0], ranges[2 * range0 + 1], 0};
    for (; tile < end; tile += OTHERS) {
        range = range_of(ranges, range, tile);
        auto key_row = [&](int r) { return (u64)token_of(ranges, range, tile + r) * key_heads + key_head; };
        fetch(sk, OTHERS, k, dim, end - tile, key_row);
        fetch(sv, OTHERS, v, dim, end - tile, key_row);
        copies_commit();
        copies_wait<0>();
        sync_block();
        float s[OTHERS / 8][4], d[OTHERS / 8][4];
        times_rows<OTHERS>(s, sq, 16 * warp, sk);
        times_rows<OTHERS>(d, sdy, 16 * warp, sv);
#pragma unroll
        for (int n = 0; n < OTHERS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int key = tile + 8 * n + 2 * (lane % 4) + i % 2, r = 16 * warp + lane / 4 + 8 * (i / 2);
                bool seen = r < rows && sees((int)place + r - key, window);
                Softmax{scale, cap, seen}(s[n][i], d[n][i], sum[i / 2], pull[i / 2]);
            }
        add_product<OTHERS, HEAD_DIM>(out, d, sk);
        sync_block(); // before the next tile overwrites this one
    }
#pragma unroll
    for (int n = 0; n < HEAD_DIM / 8; n++)
        for (int i = 0; i < 4; i++) {
            int r = 16 * warp + lane / 4 + 8 * (i / 2), c = 8 * n + 2 * (lane % 4) + i % 2;
            if (r < rows && c < dim) dq[query_row(r) * dim + c] = to_bf16(out[n][i]);
        }
}

// Warps side by side: from a width of 128 on a warp has no registers for two sums of 16 whole rows, so that each of two
// has half of their columns, and makes half of the probabilities for both.
#define ACROSS (HEAD_DIM >= 128 ? 2 : 1)
#define QUERIES (HEAD_DIM <= 64 || HEAD_DIM == 128 ? 64 : 32) // of a tile
#define SCORES (QUERIES / ACROSS)    // queries that a warp scores its keys for
#define COLUMNS (HEAD_DIM / ACROSS) // columns that a warp sums
#define P_PITCH (QUERIES + 8)

// p[16, SCORES] as bf16 to where the warps of its rows find it.
DEVICE void put(Shared<bf16> to, const float p[SCORES / 8][4], int row0, int column0) {
    int lane = thread() % 32;
#pragma unroll
    for (int n = 0; n < SCORES / 8; n++)
        for (int i = 0; i < 4; i++)
            to[(row0 + lane / 4 + 8 * (i / 2)) * P_PITCH + column0 + 8 * n + 2 * (lane % 4) + i % 2] = to_bf16(p[n][i]);
}

// sum[16, COLUMNS] += the rows of p from row0 on, [16, QUERIES] · tile.
DEVICE void add_put(float sum[COLUMNS / 8][4], Shared<bf16> p, int row0, Shared<bf16> tile) {
#pragma unroll
    for (int step = 0; step < QUERIES / 16; step++) {
        u32 a[4];
        left<P_PITCH>(p, row0, step, a);
        add_rows<COLUMNS>(sum, a, tile, step);
    }
}

// dk, dv [N, heads / group, dim], the other arrays as above; 128·ACROSS threads.
// A block has an item: items[1] keys from items[0] on and items[3] entries from lists[6 * items[2]] on. An entry has
// lists[1] queries from lists[0] on, the first at place lists[2] of its row, where the item's first key would have place
// lists[3] (signed); the row has keys lists[4] .. lists[5] of the item. Where items[4] is no part's number, the sums are
// the gradients; otherwise they go to parts [.., heads / group, 2, ROWS, dim] for attention_add_parts.
KERNEL(attention_dkv)(In<bf16> q, In<bf16> k, In<bf16> v, In<bf16> dy, In<float> lse, In<float> delta, In<u32> items,
                      In<u32> lists, Out<bf16> dk, Out<bf16> dv, Out<float> parts, int heads, int group, int dim,
                      int window, float scale, float cap) {
    SHARED_AT(bf16, sk, 0, ROWS * PITCH);
    SHARED_AT(bf16, sv, 2 * ROWS * PITCH, ROWS * PITCH);
    SHARED_AT(bf16, sq, 4 * ROWS * PITCH, QUERIES * PITCH);
    SHARED_AT(bf16, sdy, 4 * ROWS * PITCH + 2 * QUERIES * PITCH, QUERIES * PITCH);
    const u32 after = 4 * ROWS * PITCH + 4 * QUERIES * PITCH;
    SHARED_AT(float, sums, after, QUERIES);
    SHARED_AT(float, pulls, after + 4 * QUERIES, QUERIES);
#if ACROSS > 1
    SHARED_AT(bf16, sp, after + 8 * QUERIES, ROWS * P_PITCH);
    SHARED_AT(bf16, sds, after + 8 * QUERIES + 2 * ROWS * P_PITCH, ROWS * P_PITCH);
#endif
    const u64 item = 5 * (u64)block();
    const u32 first = items[item], list = items[item + 2], count = items[item + 3], part = items[item + 4];
    const int keys = items[item + 1], key_head = block_y(), key_heads = heads / group;
    const int lane = thread() % 32, row0 = 16 * (thread() / 32 % 4), across = thread() / 128;
    auto key_row = [&](int r) { return (u64)(first + r) * key_heads + key_head; };
    fetch(sk, ROWS, k, dim, keys, key_row);
    fetch(sv, ROWS, v, dim, keys, key_row);

    float key_grad[COLUMNS / 8][4], value_grad[COLUMNS / 8][4];
    for (int n = 0; n < COLUMNS / 8; n++)
        for (int i = 0; i < 4; i++) key_grad[n][i] = value_grad[n][i] = 0.0f;
    for (u32 e = 0; e < count * group; e++) {
        const u64 entry = 6 * (u64)(list + e / group);
        const int head = key_head * group + e % group, most = lists[entry + 1], key_place = (int)lists[entry + 3];
        const int from = lists[entry + 4], to = lists[entry + 5];
        for (int skip = 0; skip < most; skip += QUERIES) {
            const u32 query = lists[entry] + skip;
            const int rows = most - skip, query_place = (int)lists[entry + 2] + skip;
            // Where the queries all lie before the keys, or their windows behind them, there is nothing to add.
            const int last = query_place + (rows < QUERIES ? rows : QUERIES) - 1;
            if (last < key_place + from || query_place - (key_place + to - 1) >= window) continue;
            auto query_row = [&](int r) { return (u64)(query + r) * heads + head; };
            fetch(sq, QUERIES, q, dim, rows, query_row);
            fetch(sdy, QUERIES, dy, dim, rows, query_row);
            copies_commit();
            if (thread() < QUERIES) {
                sums[thread()] = thread() < rows ? lse[query_row(thread())] : 0.0f;
                pulls[thread()] = thread() < rows ? delta[query_row(thread())] : 0.0f;
            }
            copies_wait<0>();
            sync_block();
            float p[SCORES / 8][4], d[SCORES / 8][4];
            times_rows<SCORES>(p, sk, row0, sq + across * SCORES * PITCH);
            times_rows<SCORES>(d, sv, row0, sdy + across * SCORES * PITCH);
#pragma unroll
            for (int n = 0; n < SCORES / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int r = across * SCORES + 8 * n + 2 * (lane % 4) + i % 2, key = row0 + lane / 4 + 8 * (i / 2);
                    bool seen = r < rows && key >= from && key < to;
                    seen = seen && sees(query_place + r - (key_place + key), window);
                    Softmax{scale, cap, seen}(p[n][i], d[n][i], sums[r], pulls[r]);
                }
#if ACROSS == 1
            add_product<QUERIES, HEAD_DIM>(value_grad, p, sdy);
            add_product<QUERIES, HEAD_DIM>(key_grad, d, sq);
#else
            put(sp, p, row0, across * SCORES);
            put(sds, d, row0, across * SCORES);
            sync_block();
            add_put(value_grad, sp, row0, sdy + across * COLUMNS);
            add_put(key_grad, sds, row0, sq + across * COLUMNS);
#endif
            sync_block(); // before the next tile overwrites this one
        }
    }
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
        for (int i = 0; i < 4; i++) {
            int r = row0 + lane / 4 + 8 * (i / 2), c = across * COLUMNS + 8 * n + 2 * (lane % 4) + i % 2;
            if (r >= keys || c >= dim) continue;
            if (part == NO_PART) {
                dk[key_row(r) * dim + c] = to_bf16(key_grad[n][i]);
                dv[key_row(r) * dim + c] = to_bf16(value_grad[n][i]);
            } else {
                u64 at = (((u64)part * key_heads + key_head) * 2 * ROWS + r) * dim + c;
                parts[at] = key_grad[n][i];
                parts[at + ROWS * dim] = value_grad[n][i];
            }
        }
}
