// What the other kernels take for granted of the hardware, one instruction a kernel: `rhopo gpu check intrinsics` holds a
// device to it. The emulator follows the same rules, and is held to them as well.
#include "prelude.cuh"

// f32 to the nearest bf16, ties to even. x, y [n].
KERNEL(round_bf16)(In<float> x, Out<bf16> y, u64 n) {
    u64 i = (u64)block() * threads() + thread();
    if (i < n) y[i] = to_bf16(x[i]);
}

// One rounding each. a, b, c and the results [n]; a is not negative.
KERNEL(arithmetic)(In<float> a, In<float> b, In<float> c, Out<float> fused, Out<float> quotient, Out<float> root, u64 n) {
    u64 i = (u64)block() * threads() + thread();
    if (i >= n) return;
    fused[i] = fmaf(a[i], b[i], c[i]);
    quotient[i] = a[i] / b[i];
    root[i] = sqrtf(a[i]);
}

// x, y [n].
KERNEL(powers_of_2)(In<float> x, Out<float> y, u64 n) {
    u64 i = (u64)block() * threads() + thread();
    if (i < n) y[i] = fast_exp2(x[i]);
}

// The upper half of 128-bit products. a, b, y [n].
KERNEL(high_halves)(In<u64> a, In<u64> b, Out<u64> y, u64 n) {
    u64 i = (u64)block() * threads() + thread();
    if (i < n) y[i] = mul_high(a[i], b[i]);
}

// One warp: each lane gets what the lane with another number has. x, flipped, turned [32].
KERNEL(exchanges)(In<u32> x, Out<u32> flipped, Out<u32> turned, int lanes) {
    int lane = thread();
    flipped[lane] = shuffle_xor(x[lane], lanes);
    turned[lane] = shuffle(x[lane], (lane + lanes) % 32);
}

// One warp: c [16,16] = a [16,16] * b [16,16] + start, with b as it is and with b given transposed; rows of a from `rows`
// on count as zero. Asynchronous copies to shared memory, matrices from there, tensor cores.
KERNEL(tiles)(In<bf16> a, In<bf16> b, In<bf16> b_transposed, In<float> start, Out<float> c, Out<float> c_transposed,
              int rows) {
    SHARED(bf16, a_tile, 256);
    SHARED(bf16, b_tile, 256);
    SHARED(bf16, t_tile, 256);
    int lane = thread();
    copy16_async(a_tile, 8 * lane, a, 8 * lane, lane / 2 < rows);
    copy16_async(b_tile, 8 * lane, b, 8 * lane, true);
    copies_commit();
    copy16_async(t_tile, 8 * lane, b_transposed, 8 * lane, true);
    copies_commit();
    copies_wait<0>();
    sync_block();
    // Matrices 0 to 3 of a: the upper left, the lower left, the upper right, the lower right.
    u32 fa[4], fb[4], ft[4];
    load_matrix4(a_tile, 16 * (lane % 16) + 8 * (lane / 16), fa);
    // Of b, transposed on the way: terms 0 to 7 and 8 to 15 for columns 0 to 7, then for columns 8 to 15.
    load_matrix4_t(b_tile, 16 * (lane % 16) + 8 * (lane / 16), fb);
    // The same of what is stored transposed.
    load_matrix4(t_tile, 16 * (8 * (lane / 16) + lane % 8) + 8 * (lane / 8 % 2), ft);
    for (int half = 0; half < 2; half++) {
        int row = lane / 4, column = 8 * half + 2 * (lane % 4);
        u32 at[4] = {(u32)(16 * row + column), (u32)(16 * row + column + 1), (u32)(16 * (row + 8) + column),
                     (u32)(16 * (row + 8) + column + 1)};
        float sums[4], turned[4];
        for (int i = 0; i < 4; i++) sums[i] = turned[i] = start[at[i]];
        mma(sums, fa, fb[2 * half], fb[2 * half + 1]);
        mma(turned, fa, ft[2 * half], ft[2 * half + 1]);
        for (int i = 0; i < 4; i++) c[at[i]] = sums[i], c_transposed[at[i]] = turned[i];
    }
}
