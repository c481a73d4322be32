// Structured pruning along one axis. The layout is that of the axis: groups are its elements.
#pragma once

#include <cstdint>

#include "core/span.h"

namespace corepress {

// keep is 0 for the n smallest magnitudes of every m consecutive elements along the axis, of equal ones the first, and
// 1 for the others. The last, shorter group is filled up with zeros, which are the first to go.
template <typename Bits>
void n_m_mask(const Bits* values, const GroupLayout& axis, int64_t n, int64_t m, int threads, uint8_t* keep);

// Blocks of block_size consecutive elements along the axis, the last one possibly shorter: keep is 1 where the block's
// norm is larger than that of rank `rank` among the norms of all elements' blocks.
template <typename Bits>
void block_mask(const Bits* values, const GroupLayout& axis, int64_t block_size, int64_t rank, int threads,
                uint8_t* keep);

// Sets bit i of mask, LSB first, where keep[i] is 1 and values[i] is not zero; returns the number of ones.
template <typename Bits>
int64_t mask_of_kept(const Bits* values, const uint8_t* keep, int64_t count, int threads, uint8_t* mask);

}  // namespace corepress
