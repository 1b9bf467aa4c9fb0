// softmax(scale·q·kᵀ)·v of packed rows that share prefixes, with a sliding window and a soft cap of the scores where
// asked; bf16 in and out, sums in f32 (Dao 2023, arXiv:2307.08691).
#include "attention.cuh"

// q, y [N, heads, dim]; k, v [tokens, heads / group, dim]; lse [N, heads], in base 2, for the backward pass.
// A block has an item: items[1] queries from items[0] on, the first at place items[2] of a row whose ranges (start,
// length) begin at ranges[2 * items[3]] and reach to the last query at least. It has `pack` heads of them, all of one key
// head: one head where queries are many, the group where a row has one query. The scale is above 0.
KERNEL(attention_forward)(In<bf16> q, In<bf16> k, In<bf16> v, In<u32> items, In<u32> ranges, Out<bf16> y,
                          Out<float> lse, int heads, int group, int pack, int dim, int window, float scale, float cap) {
    SHARED_AT(bf16, sq, 0, ROWS * PITCH);
    SHARED_AT(bf16, sk, 2 * ROWS * PITCH, 2 * OTHERS * PITCH);
    SHARED_AT(bf16, sv, 2 * ROWS * PITCH + 4 * OTHERS * PITCH, 2 * OTHERS * PITCH);
    const u64 item = 4 * (u64)block();
    const u32 first = items[item], queries = items[item + 1], place = items[item + 2], range0 = items[item + 3];
    const int rows = queries * pack, head = block_y() * pack, key_head = head / group, key_heads = heads / group;
    const int lane = thread() % 32, warp = thread() / 32;
    const bool busy = 16 * warp < rows; // this warp has queries

    // Row r of the tile is head r % pack of query r / pack.
    auto query_row = [&](int r) { return (u64)(first + r / pack) * heads + head + r % pack; };
    fetch(sq, ROWS, q, dim, rows, query_row);

    // From the tile of the first place that is seen to that of the last query.
    const u32 end = place + queries;
    u32 tile = (int)place < window ? 0 : (place + 1 - window) / OTHERS * OTHERS;
    Range range = range_of(ranges, {range0, ranges[2 * range0], ranges[2 * range0 + 1], 0}, tile);
    auto fetch_keys = [&](int stage) {
        auto key_row = [&](int r) { return (u64)token_of(ranges, range, tile + r) * key_heads + key_head; };
        fetch(sk + stage * OTHERS * PITCH, OTHERS, k, dim, end - tile, key_row);
        fetch(sv + stage * OTHERS * PITCH, OTHERS, v, dim, end - tile, key_row);
        copies_commit();
    };
    fetch_keys(0);

    float m[2], l[2], o[HEAD_DIM / 8][4];
    for (int h = 0; h < 2; h++) m[h] = -INFINITY, l[h] = 0.0f;
    for (int n = 0; n < HEAD_DIM / 8; n++)
        for (int i = 0; i < 4; i++) o[n][i] = 0.0f;
    const float factor = scale * LOG2E;

    for (int stage = 0;; stage ^= 1) {
        // The next tile is fetched while this one is used.
        const u32 here = tile;
        const bool more = end - tile > OTHERS;
        if (more) {
            tile += OTHERS;
            range = range_of(ranges, range, tile);
            fetch_keys(stage ^ 1);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        sync_block();
        if (busy) {
            float s[OTHERS / 8][4];
            times_rows<OTHERS>(s, sq, 16 * warp, sk + stage * OTHERS * PITCH);
            if (cap != 0.0f) {
                const float in = scale / cap, out = cap / scale;
#pragma unroll
                for (int n = 0; n < OTHERS / 8; n++)
                    for (int i = 0; i < 4; i++) s[n][i] = out * fast_tanh(s[n][i] * in);
            }
            // Some queries do not see all of the tile.
            if (here + OTHERS > place + 1 || (int)(end - 1 - here) >= window) {
#pragma unroll
                for (int n = 0; n < OTHERS / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        int key = here + 8 * n + 2 * (lane % 4) + i % 2, r = 16 * warp + lane / 4 + 8 * (i / 2);
                        if (!sees((int)place + r / pack - key, window)) s[n][i] = -INFINITY;
                    }
            }
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float top = m[h];
#pragma unroll
                for (int n = 0; n < OTHERS / 8; n++) top = fmaxf(top, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
                top = fmaxf(top, shuffle_xor(top, 1));
                top = fmaxf(top, shuffle_xor(top, 2));
                float base = top == -INFINITY ? 0.0f : top * factor;
                // Exactly 1 where nothing higher was found: a tile that a query does not see changes no bit of it.
                float carry = top == m[h] ? 1.0f : fast_exp2(fmaf(m[h], factor, -base));
                m[h] = top;
                l[h] *= carry;
#pragma unroll
                for (int n = 0; n < OTHERS / 8; n++)
                    for (int i = 2 * h; i < 2 * h + 2; i++) {
                        s[n][i] = fast_exp2(fmaf(s[n][i], factor, -base));
                        l[h] += s[n][i];
                    }
#pragma unroll
                for (int n = 0; n < HEAD_DIM / 8; n++) o[n][2 * h] *= carry, o[n][2 * h + 1] *= carry;
            }
            add_product<OTHERS, HEAD_DIM>(o, s, sv + stage * OTHERS * PITCH);
        }
        if (!more) break;
        sync_block(); // the next copies overwrite what was just read
    }
    if (!busy) return;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        l[h] += shuffle_xor(l[h], 1);
        l[h] += shuffle_xor(l[h], 2);
        const int r = 16 * warp + lane / 4 + 8 * h;
        if (r >= rows) continue;
        const u64 row = query_row(r);
        const float inverse = 1.0f / l[h];
#pragma unroll
        for (int n = 0; n < HEAD_DIM / 8; n++)
            for (int i = 0; i < 2; i++) {
                int c = 8 * n + 2 * (lane % 4) + i;
                if (c < dim) y[row * dim + c] = to_bf16(o[n][2 * h + i] * inverse);
            }
        if (lane % 4 == 0) lse[row] = fmaf(m[h], factor, log2f(l[h]));
    }
}
