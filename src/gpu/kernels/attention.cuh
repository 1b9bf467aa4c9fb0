// What attention's kernels on tensor cores share: tiles of rows in shared memory and their products.
#pragma once
#include "attention_rows.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64 // numbers of a head, `dim` of them its own and the others zero
#endif
#define OTHERS (HEAD_DIM > 128 ? 32 : 64) // rows of the tiles that it is joined to
#define PITCH (HEAD_DIM + 8)              // from row to row in shared memory: 16 bytes more, against bank conflicts
#define STEPS (HEAD_DIM / 16)
#define LOG2E 1.4426950408889634f

// `count` rows of a tile, row r being row of(r) of x [.., dim]; the other rows, and the columns past dim, become zero. By
// asynchronous copies where rows begin at whole 16 bytes, which the caller waits for in either case.
template <class Of> DEVICE void fetch(Shared<bf16> to, int tile_rows, In<bf16> x, int dim, int count, Of of) {
    if (dim % 8 == 0 && aligned16(x)) {
        for (int i = thread(); i < tile_rows * (HEAD_DIM / 8); i += threads()) {
            int row = i / (HEAD_DIM / 8), c = i % (HEAD_DIM / 8) * 8;
            bool valid = row < count && c < dim;
            u64 from = valid ? of(row) * dim + c : 0;
            copy16_async(to, row * PITCH + c, x, from, valid);
        }
    } else {
        for (int i = thread(); i < tile_rows * HEAD_DIM; i += threads()) {
            int row = i / HEAD_DIM, c = i % HEAD_DIM;
            bf16 number = {0};
            if (row < count && c < dim) number = x[of(row) * dim + c];
            to[row * PITCH + c] = number;
        }
    }
}

// 16 rows of a tile from row0 on, columns 16·step on, as the left operand.
template <int WIDTH> DEVICE void left(Shared<bf16> tile, int row0, int step, u32 a[4]) {
    int lane = thread() % 32;
    load_matrix4(tile, (row0 + lane % 8 + 8 * (lane / 8 % 2)) * WIDTH + 16 * step + 8 * (lane / 16), a);
}

// c[16, N] = the 16 rows of a from row0 on · tileᵀ: a row of the tile is a column. The rows of a are read again for each
// tile: registers are scarcer than reads.
template <int N> DEVICE void times_rows(float c[N / 8][4], Shared<bf16> a, int row0, Shared<bf16> tile) {
    int lane = thread() % 32;
#pragma unroll
    for (int n = 0; n < N / 8; n++)
        for (int i = 0; i < 4; i++) c[n][i] = 0.0f;
#pragma unroll 4
    for (int step = 0; step < STEPS; step++) {
        u32 rows[4];
        left<PITCH>(a, row0, step, rows);
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            u32 b[4];
            load_matrix4(tile, (16 * n + lane % 8 + 8 * (lane / 16)) * PITCH + 16 * step + 8 * (lane / 8 % 2), b);
            mma(c[2 * n], rows, b[0], b[1]);
            mma(c[2 * n + 1], rows, b[2], b[3]);
        }
    }
}

// sum[16, D] += a[16, 16] · the 16 rows of a tile from 16·step on.
template <int D> DEVICE void add_rows(float sum[D / 8][4], const u32 a[4], Shared<bf16> tile, int step) {
    int lane = thread() % 32;
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
        u32 b[4];
        load_matrix4_t(tile, (16 * step + lane % 8 + 8 * (lane / 8 % 2)) * PITCH + 16 * n + 8 * (lane / 16), b);
        mma(sum[2 * n], a, b[0], b[1]);
        mma(sum[2 * n + 1], a, b[2], b[3]);
    }
}

// sum[16, D] += p[16, N] · tile, p rounded to bf16.
template <int N, int D> DEVICE void add_product(float sum[D / 8][4], const float p[N / 8][4], Shared<bf16> tile) {
#pragma unroll
    for (int step = 0; step < N / 16; step++) {
        const float *l = p[2 * step], *r = p[2 * step + 1];
        u32 a[4] = {pack2(l[0], l[1]), pack2(l[2], l[3]), pack2(r[0], r[1]), pack2(r[2], r[3])};
        add_rows<D>(sum, a, tile, step);
    }
}

// tanh to 1e-7.
DEVICE float fast_tanh(float x) { return 1.0f - 2.0f / (fast_exp2(x * (2.0f * LOG2E)) + 1.0f); }
