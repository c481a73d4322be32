// The tables of scalar palettes, one per group of a tensor.
#pragma once

#include <cstdint>
#include <vector>

#include "core/span.h"

namespace corepress {

enum class TableMode { kKmeans, kUniform };

// Writes each group's table of `entries` values in the weight's format, ascending. kKmeans: the optimal ones; entries
// that are not needed repeat the largest. kUniform: evenly spaced from the smallest to the largest value. luts:
// [groups, entries]. Values must be finite.
template <typename Bits>
void fit_tables(const Bits* values, const GroupLayout& layout, TableMode mode, int entries, int threads, Bits* luts);

// Each group's distinct values, ascending, -0 as 0; empty for a group that has more than `most` of them.
template <typename Bits>
std::vector<std::vector<Bits>> distinct_values(const Bits* values, const GroupLayout& layout, int most, int threads);

}  // namespace corepress
