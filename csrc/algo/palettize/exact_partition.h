// The cheapest partition of sorted, weighted points into k intervals, where weights differ by so many orders of
// magnitude that differences of sums over all points lose what small ones cost.
#pragma once

#include <cstdint>
#include <vector>

#include "core/span.h"
#include "kernels/table.h"

namespace corepress {

// Whether a dynamic program over all intervals, which takes time with the square of the points, is worth its time.
inline bool is_small_partition(int64_t points, int k) {
    constexpr int64_t kMost = int64_t{1} << 30;
    return points <= (int64_t{1} << 15) && points * points <= kMost / k;
}

// The ends of the intervals; 1 < k < points. An interval's cost is summed from its own points, so no digits cancel.
std::vector<int32_t> exact_partition(Span<const Point> points, int k);

}  // namespace corepress
