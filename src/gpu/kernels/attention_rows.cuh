// How attention's kernels find what a query sees.
//
// A row is the tokens that a sequence is made of, wherever they are packed: ranges of tokens end to end. A token's place
// is its number in its row. Keys are walked in tiles of places that begin at place 0, whatever the ranges are, so that
// what a query comes to depends on its row alone: not on how rows share prefixes, nor on the queries beside it. Decoding,
// with one query of a row at a time, has the bits of a whole sequence.
#pragma once
#include "prelude.cuh"

#define ROWS 64 // of a block's own tile
#define NO_PART 0xffffffffu

// The range of a row that holds a place; `before` places lie before it.
struct Range {
    u32 index, start, length, before;
};

DEVICE Range range_of(In<u32> ranges, Range r, u32 place) {
    while (place - r.before >= r.length) {
        r.before += r.length, r.index++;
        r.start = ranges[2 * r.index], r.length = ranges[2 * r.index + 1];
    }
    return r;
}

// The token at a place that is not before a range.
DEVICE u32 token_of(In<u32> ranges, const Range& near, u32 place) {
    Range r = range_of(ranges, near, place);
    return r.start + (place - r.before);
}

// Whether a query sees a key that lies `behind` it by so many places.
DEVICE bool sees(int behind, int window) { return behind >= 0 && behind < window; }
