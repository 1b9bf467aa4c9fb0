// Mistakes that kernels make: each kernel is right with MISTAKE=0 and makes its mistake with MISTAKE=1. What the
// emulator says of each is in emulate/mistakes_tests.rs.
#include "prelude.cuh"

// 64 threads give their number to another warp's.
KERNEL(no_barrier_after_a_write)(In<float> x, Out<float> y) {
    SHARED(float, s, 64);
    s[thread()] = x[thread()];
    if (!MISTAKE) sync_block();
    y[thread()] = s[63 - thread()];
}

// Twice, through the same memory.
KERNEL(no_barrier_before_reuse)(In<float> x, Out<float> y) {
    SHARED(float, s, 64);
    for (int turn = 0; turn < 2; turn++) {
        s[thread()] = x[64 * turn + thread()];
        sync_block();
        y[64 * turn + thread()] = s[63 - thread()];
        if (!MISTAKE) sync_block();
    }
}

// All read what one thread then overwrites.
KERNEL(no_barrier_after_reads)(In<float> x, Out<float> y) {
    SHARED(float, s, 1);
    if (thread() == 0) s[0] = x[0];
    sync_block();
    y[thread()] = s[0];
    if (!MISTAKE) sync_block();
    if (thread() == 63) s[0] = x[1];
}

// As the first, within a warp.
KERNEL(no_warp_barrier)(In<float> x, Out<float> y) {
    SHARED(float, s, 64);
    s[thread()] = x[thread()];
    if (!MISTAKE) sync_warp();
    y[thread()] = s[thread() ^ 31];
}

// All blocks write the one number of y.
KERNEL(blocks_write_one_number)(In<float> x, Out<float> y) {
    if (thread() == 0 && (block() == 0 || MISTAKE)) y[0] = x[0];
}

// One block reads what the other one writes.
KERNEL(blocks_wait_for_none)(In<float> x, Out<float> y) {
    if (thread() > 0) return;
    if (block() == 0) y[0] = x[0];
    if (block() == 1) y[1] = MISTAKE ? y[0] : x[0];
}

// y is a view: what lies behind it belongs to somebody else.
KERNEL(a_vector_past_the_end)(In<float> x, Out<float> y) {
    store16(y, 4 * (thread() + MISTAKE), load16(x, 4 * thread()));
}

KERNEL(before_the_beginning)(In<float> x, Out<float> y) { y[thread()] = x[(u64)(thread() - MISTAKE)]; }

KERNEL(a_vector_out_of_line)(In<float> x, Out<float> y) { store16(y, 4 * thread(), load16(x, 4 * thread() + MISTAKE)); }

KERNEL(shared_memory_not_written)(In<float> x, Out<float> y) {
    SHARED(float, s, 64);
    if (thread() < 63 || !MISTAKE) s[thread()] = x[thread()];
    sync_block();
    y[thread()] = s[63 - thread()];
}

KERNEL(no_wait_for_a_copy)(In<float> x, Out<float> y) {
    SHARED(float, s, 256);
    copy16_async(s, 4 * thread(), x, 4 * thread(), true);
    copies_commit();
    if (!MISTAKE) copies_wait<0>();
    y[thread()] = s[4 * thread()];
    copies_wait<0>();
}

KERNEL(no_barrier_after_a_copy)(In<float> x, Out<float> y) {
    SHARED(float, s, 256);
    copy16_async(s, 4 * thread(), x, 4 * thread(), true);
    copies_commit();
    copies_wait<0>();
    if (!MISTAKE) sync_block();
    y[thread()] = s[255 - 4 * thread()];
}

KERNEL(a_copy_in_flight_at_the_end)(In<float> x, Out<float> y) {
    SHARED(float, s, 256);
    copy16_async(s, 4 * thread(), x, 4 * thread(), true);
    copies_commit();
    if (!MISTAKE) copies_wait<0>();
    y[thread()] = x[thread()];
}

KERNEL(a_barrier_for_some)(In<float> x, Out<float> y) {
    if (thread() < 32 || !MISTAKE) sync_block();
    y[thread()] = x[thread()];
}

KERNEL(two_barriers_at_a_time)(In<float> x, Out<float> y) {
    if (thread() < 32 && MISTAKE) sync_block();
    else
        sync_block();
    y[thread()] = x[thread()];
}

KERNEL(a_shuffle_for_some)(In<float> x, Out<float> y) {
    float v = x[thread()];
    if (thread() != 5 || !MISTAKE) v = shuffle_xor(v, 1);
    y[thread()] = v;
}

KERNEL(two_shuffles_at_a_time)(In<float> x, Out<float> y) {
    float v = x[thread()];
    if (thread() % 2 == 0 && MISTAKE) v = shuffle(v, 0);
    else
        v = shuffle_xor(v, 1);
    y[thread()] = v;
}

KERNEL(too_much_shared_memory)(In<float> x, Out<float> y) {
    SHARED(float, s, 12288 + MISTAKE);
    s[thread()] = x[thread()];
    y[thread()] = s[thread()];
}

// The launch gives 256 bytes.
KERNEL(more_than_the_launch_gives)(In<float> x, Out<float> y) {
    SHARED_AT(float, s, 0, 64 + MISTAKE);
    s[thread()] = x[thread()];
    y[thread()] = s[thread()];
}

// For mistakes of the host.
KERNEL(scale)(In<float> x, Out<float> y, u64 count, u32 step, int first, float factor) {
    for (u64 i = first + block() * threads() + thread(); i < count; i += step) y[i] = x[i] * factor;
}
