// The gradient of a bias: sums over rows; and the second stage of all sums over rows.
#include "column_sums.cuh"
#include "vector.cuh"

// dy [rows,width] X -> partial [slabs,width] f32.
KERNEL(sum_columns)(In<X> dy, Out<float> partial, u64 rows, u64 width, u64 slab) {
    column_partials(partial, rows, width, slab, [&](u64, u64 at) { return load(dy, at); });
}

#define PARTS 8 // threads of a column; a block has 32 columns

// into [width] f32 += the slabs' sums: every eighth of them in order, then these eight in order.
KERNEL(add_partials)(In<float> partial, Out<float> into, u64 slabs, u64 width) {
    SHARED(float, parts, 32 * PARTS);
    u64 column = (u64)block() * 32 + thread() % 32;
    float sum = 0.0f;
    for (u64 slab = thread() / 32; slab < slabs && column < width; slab += PARTS) sum += partial[slab * width + column];
    parts[thread()] = sum;
    sync_block();
    if (thread() >= 32 || column >= width) return;
    float total = 0.0f;
    for (int part = 0; part < PARTS; part++) total += parts[part * 32 + thread()];
    into[column] += total;
}
