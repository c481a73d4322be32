// Values to the codes of scalar palettes, and how far these are from them; algo/prune/nested.h decodes.
#pragma once

#include <cstdint>

#include "core/span.h"
#include "kernels/table.h"

namespace corepress {

// Codes each value by the nearest entry of its group's table, ties to the lower. luts: [groups, 2^nbits], ascending.
// packed: (size * nbits + 7) / 8 bytes in the tensor's order. Nothing may be NaN; infinities are nearest to themselves,
// and where there are some, each must be an entry.
template <typename Bits>
void palettize(const Bits* values, const GroupLayout& layout, int nbits, const Bits* luts, int threads,
               uint8_t* packed);

// What sum_errors gives for `first` and the decoded values, without a place for all of these.
template <typename Bits>
ErrorSums sum_palette_errors(const Bits* first, const uint8_t* packed, const GroupLayout& layout, int nbits,
                             const Bits* luts, int threads);

}  // namespace corepress
