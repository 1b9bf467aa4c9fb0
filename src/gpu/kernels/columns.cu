// Blocks of columns of a matrix: block b is the columns start + b * stride .., `each` of them; `count` blocks.
#include "prelude.cuh"

// One block of threads per row. x [rows,width] X -> y [rows, count * each] X.
KERNEL(columns_forward)(In<X> x, Out<X> y, u64 width, u32 start, u32 stride, u32 each, u32 count) {
    u64 row = block();
    for (u32 i = thread(); i < each * count; i += threads()) {
        y[row * each * count + i] = x[row * width + start + (u64)(i / each) * stride + i % each];
    }
}

// The gradient dy Y of these columns is added to theirs in the gradient of all, sum [rows,width] X.
KERNEL(columns_backward)(Out<X> sum, In<Y> dy, u64 width, u32 start, u32 stride, u32 each, u32 count) {
    u64 row = block();
    for (u32 i = thread(); i < each * count; i += threads()) {
        u64 at = row * width + start + (u64)(i / each) * stride + i % each;
        store(sum, at, load(sum, at) + load(dy, row * each * count + i));
    }
}
