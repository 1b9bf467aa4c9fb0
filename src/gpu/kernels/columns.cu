// Blocks of columns of a matrix: block b is the columns start + b * stride .., `each` of them; `count` blocks.
#include "prelude.cuh"

// One block of threads per row. x [rows,width] X -> y [rows, count * each] X.
KERNEL(columns_forward)(In<X> x, Out<X> y, u64 width, u32 start, u32 stride, u32 each, u32 count) {
    u64 row = block();
    for (u32 i = thread(); i < each * count; i += threads()) {
        y[row * each * count + i] = x[row * width + start + (u64)(i / each) * stride + i % each];
    }
}

// The gradient dy Y of these columns is added to theirs in the gradient of all, sum [rows,width] X. Blocks may share
// columns: a thread owns a column, and adds what every block that has it says, in the blocks' order.
KERNEL(columns_backward)(Out<X> sum, In<Y> dy, u64 width, u32 start, u32 stride, u32 each, u32 count) {
    u64 row = block();
    for (u32 i = thread(); i < (count - 1) * stride + each; i += threads()) {
        u32 first = i < each ? 0 : stride > 0 ? (i - each) / stride + 1 : count;
        u32 end = stride > 0 && i / stride < count ? i / stride + 1 : count;
        if (first >= end) continue;
        float v = load(sum, row * width + start + i);
        for (u32 b = first; b < end; b++) v += load(dy, (row * count + b) * each + i - b * stride);
        store(sum, row * width + start + i, v);
    }
}
