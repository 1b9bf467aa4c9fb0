// Sums over the rows of a matrix, in two stages and a fixed order, without atomics: slabs of `slab` rows, each added
// row by row, then the slabs (`add_partials` of column_sums.cu).
#pragma once
#include "prelude.cuh"

// partial [slabs,width]: the sum of term(row, row * width + column) over the slab's rows. The grid is slabs x blocks of
// columns, a thread to a column.
template <class F> DEVICE void column_partials(Out<float> partial, u64 rows, u64 width, u64 slab, F term) {
    u64 column = (u64)block_y() * threads() + thread(), first = block() * slab;
    if (column >= width) return;
    u64 end = first + slab < rows ? first + slab : rows;
    float sum = 0.0f;
    for (u64 row = first; row < end; row++) sum += term(row, row * width + column);
    partial[block() * width + column] = sum;
}
