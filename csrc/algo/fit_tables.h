// The tables of scalar palettes, one per group of a tensor.
#pragma once

#include <cstdint>
#include <vector>

#include "algo/measure.h"
#include "core/span.h"

namespace corepress {

enum class TableMode { kKmeans, kUniform };

// Writes each group's table of `entries` values in the weight's format, ascending. kKmeans: the optimal ones; entries
// that are not needed repeat the largest. kUniform: evenly spaced from the smallest to the largest value. luts:
// [groups, entries]. Values must be finite. With `noise`, that of weights that take their nearest entries is found on
// the way where every distinct value is at hand; returns whether it was.
template <typename Bits>
bool fit_tables(const Bits* values, const GroupLayout& layout, TableMode mode, int entries, int threads, Bits* luts,
                Noise* noise = nullptr);

// Each group's distinct values, ascending, -0 as 0; empty for a group that has more than `most` of them.
template <typename Bits>
std::vector<std::vector<Bits>> distinct_values(const Bits* values, const GroupLayout& layout, int most, int threads);

}  // namespace corepress
