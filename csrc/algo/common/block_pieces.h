// A tensor of blocks in pieces for threads.
#pragma once

#include "core/blocks.h"
#include "core/parallel.h"

namespace corepress {

// Elements of a piece of the tensor: whole rows where it is taken by rows, and an even number, so that packed codes
// begin at a byte.
inline int64_t piece_size(const BlockLayout& layout) {
    int64_t grain = kGrain;
    if (by_rows(layout) && layout.row_length() < kGrain) grain -= grain % layout.row_length();
    return grain % 2 == 0 ? grain : 2 * grain;
}

// Calls body(begin, end) for pieces of the tensor.
template <typename Body>
void for_each_piece(const BlockLayout& layout, int threads, const Body& body) {
    parallel_pieces(layout.size(), piece_size(layout), threads, body);
}

}  // namespace corepress
