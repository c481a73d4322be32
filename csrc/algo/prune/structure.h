// Structured pruning along one axis. The layout is that of the axis: groups are its elements.
//
// Masks have a bit per value, LSB first, which is 1 where the value stays and is not zero; their tail bits are 0. They
// are made piece by piece: what is known of a value, one byte or the norm of its block, is never held for all of them.
#pragma once

#include <cstdint>

#include "algo/prune/prune.h"
#include "core/span.h"

namespace corepress {

// keep is 0 for the n smallest magnitudes of every m consecutive elements along the axis, of equal ones the first, and
// 1 for the others. The last, shorter group is filled up with zeros, which are the first to go.
template <typename Bits>
void n_m_keep(const Bits* values, const GroupLayout& axis, int64_t n, int64_t m, int threads, uint8_t* keep);

// The mask of the same, and the values that stay, in order; if `kept` has no room for all of them, as it may be where
// values change meanwhile, what it holds is of no use.
template <typename Bits>
Pruned prune_n_m(const Bits* values, const GroupLayout& axis, int64_t n, int64_t m, int threads, uint8_t* mask,
                 Span<Bits> kept);

// Blocks of block_size consecutive elements along the axis, the last one possibly shorter: the mask of those whose norm
// is larger than that of rank `rank` among the norms of all elements' blocks, and the values that stay, in order, as
// above.
template <typename Bits>
Pruned prune_blocks(const Bits* values, const GroupLayout& axis, int64_t block_size, int64_t rank, int threads,
                    uint8_t* mask, Span<Bits> kept);

}  // namespace corepress
