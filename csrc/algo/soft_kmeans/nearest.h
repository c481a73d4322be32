// Hard assignment: each value, or vector, becomes the nearest entry of its palette.
#pragma once

#include <cstdint>
#include <vector>

#include "algo/soft_kmeans/soft_kmeans.h"

namespace corepress {

// An entry that is a number, and its place in the palette.
struct RulingEntry {
    double value;
    double less;  // what squared distances to it are less
    int64_t place;
};

// Ascending, the entries that are nearest to some number, where squared distances to the first are less by a threshold;
// of equally near ones the first. Entries are not NaN.
std::vector<RulingEntry> ruling_entries(const double* centroids, int64_t count, double threshold);

// The nearest of the entries [entries, length], up to 65,536, of equally near ones the first; vectors, and
// numbers in palettes of more than 256, are compared in float. Writes codes and values, unless these are null. NaN has
// any entry.
template <typename Bits>
void assign_nearest(const SoftGroup<Bits>& group, const double* centroids, double threshold, int threads,
                    uint16_t* codes, Bits* results);

}  // namespace corepress
