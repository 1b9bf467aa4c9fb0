// Rows of a table by their numbers, and the sum of gradients back into the table's.
#include "vector.cuh"

// One block of threads per row taken. table [V,width] X, ids [N] -> rows [N,width] Y.
KERNEL(gather)(In<X> table, In<u32> ids, Out<Y> rows, u64 width) {
    u64 row = block(), from = ids[row];
    for (u64 i = EACH * thread(); i < width; i += EACH * threads()) {
        float v[EACH];
        load_each(table, from * width + i, width - i, v);
        store_each(rows, row * width + i, width - i, v);
    }
}

// sum [V,width] X += dy [N,width] Y, row i of it at ids[i]. One block of threads per distinct id, which alone writes
// that row: no atomics, and rows are added in their order. distinct [D]; starts [D + 1]; order [N] has the rows of the
// first distinct id, of the second ..: those of number d from starts[d] on.
KERNEL(scatter)(Out<X> sum, In<Y> dy, In<u32> distinct, In<u32> starts, In<u32> order, u64 width) {
    u64 to = distinct[block()];
    u32 first = starts[block()], end = starts[block() + 1];
    for (u64 i = EACH * thread(); i < width; i += EACH * threads()) {
        float v[EACH];
        load_each(sum, to * width + i, width - i, v);
        for (u32 k = first; k < end; k++) {
            float g[EACH];
            load_each(dy, order[k] * width + i, width - i, g);
            for (int j = 0; j < EACH; j++) v[j] += g[j];
        }
        store_each(sum, to * width + i, width - i, v);
    }
}
