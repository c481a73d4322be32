// Which cuts the cheapest partition into k intervals can have, from what partitions at few cuts cost.
#pragma once

#include <cstdint>
#include <vector>

#include "algo/cut_line.h"

namespace corepress {

// Bounds divide the line into buckets. Let each cut of the cheapest partition, which lies about the middle m between
// two centroids, move to the lower bound of its bucket if m is below the bucket's mean, and to the upper one otherwise.
// If the centroids stay, points that change sides then cost 2 (mu' - mu) |x - m| w more: together at most what they
// do with m at the mean, which is (mu' - mu) times the sum of w |x - mean|, by Cauchy and Schwarz at most
// (mu' - mu) sqrt(weight * cost) of the bucket. Intervals between centroids are disjoint, so all cuts together
// cost at most the largest of these roots times the distance of the outermost centroids. Where no partition at bounds
// that passes a bucket comes within this of a partition already known, the bucket holds no cut of the cheapest.
//
// An object keeps its memory between problems.
class CutWindows {
public:
    // Some `count` bounds, from the first cut to the last, between buckets of about equal weight times width.
    void divide(const CutLine<double>& line, Span<const Point> points, int count);

    const std::vector<int32_t>& bounds() const { return bounds_; }

    // Leaves the cuts of `line` that the cheapest partition into k intervals can have, and its first and last.
    // `at_bounds` are its cuts at the bounds, with the paths of least cost at the penalty; `enough` is the cost of some
    // partition into k intervals.
    void leave(const CutLine<double>& line, const CutLine<double>& at_bounds, int k, double penalty, double enough);

    const std::vector<int32_t>& cuts() const { return cuts_; }

private:
    std::vector<int32_t> bounds_, cuts_, path_;
    std::vector<double> through_;  // the least cost of k intervals through each bound
    CutLine<double> backwards_;
};

}  // namespace corepress
