// The tables of scalar palettes, one per group of a tensor.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "algo/common/measure.h"
#include "core/span.h"

namespace corepress {

enum class TableMode { kKmeans, kUniform };

struct TableRule {
    TableMode mode;
    int entries;
    bool infinities = false;  // values may be infinite
};

struct Fit {
    // Of kKmeans without importance: false if values were neither finite nor said to be infinite; nothing of the result
    // has a meaning then. Others do not look.
    bool finite = true;
    // Of weights that take their nearest entries, where that takes no other pass over them: where all are alike in
    // importance and every distinct value is at hand.
    std::optional<Noise> noise = {};
};

// Writes each group's table of `entries` values in the weight's format, ascending. kKmeans: the optimal ones; entries
// that are not needed repeat the largest. kUniform: even steps from the smallest to the largest value. Their width is
// rounded to the format before they are, so that the table is coremltools' and no weight farther from it than there.
// But where all steps together then miss the range by more than half a step, in subnormal widths, the better of this
// table and that of exact steps is taken, and where entries overflow, that one. luts: [groups, entries]. importance: of
// each value in its squared error, or null for 1; a group that has none at all counts as if it were null. Values must
// not be NaN; each infinity that a group has gets an entry of its own, and at least one entry must be left for finite
// values.
template <typename Bits>
Fit fit_tables(const Bits* values, const float* importance, const GroupLayout& layout, TableRule rule, int threads,
               Bits* luts);

// Each group's distinct values, ascending, -0 as 0; empty for a group that has more than `most` of them.
template <typename Bits>
std::vector<std::vector<Bits>> distinct_values(const Bits* values, const GroupLayout& layout, int most, int threads);

}  // namespace corepress
