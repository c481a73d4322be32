// A tensor of blocks in pieces for threads.
#pragma once

#include "core/blocks.h"
#include "core/parallel.h"

namespace corepress {

// The least multiple of both a size and a unit, 2 or 4.
inline int64_t in_units(int64_t size, int64_t unit) {
    while (size % unit != 0) size *= 2;
    return size;
}

// Elements of a piece of the tensor: whole rows where it is taken by rows, and a multiple of the unit, so that packed
// codes begin at a byte.
inline int64_t piece_size(const BlockLayout& layout, int64_t unit = 2) {
    int64_t grain = kGrain;
    if (by_rows(layout) && layout.row_length() < kGrain) grain -= grain % layout.row_length();
    return in_units(grain, unit);
}

// Calls body(begin, end) for pieces of the tensor.
template <typename Body>
void for_each_piece(const BlockLayout& layout, int threads, const Body& body, int64_t unit = 2) {
    parallel_pieces(layout.size(), piece_size(layout, unit), threads, body);
}

}  // namespace corepress
