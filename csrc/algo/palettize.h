// Scalar palettes: one table per group, codes packed in the tensor's order.
#pragma once

#include <cstdint>

#include "core/span.h"

namespace corepress {

// Finds each group's optimal table of 2^nbits entries (rounded to the weight's format, ascending, unused entries repeat
// the largest) and codes each value by its nearest entry, ties to the lower. luts: [groups, 2^nbits].
// packed: (size * nbits + 7) / 8 bytes. Values must be finite.
template <typename Bits>
void palettize(const Bits* values, const GroupLayout& layout, int nbits, int threads, Bits* luts, uint8_t* packed);

// The inverse.
template <typename Bits>
void depalettize(const uint8_t* packed, const GroupLayout& layout, int nbits, const Bits* luts, int threads,
                 Bits* values);

}  // namespace corepress
