// Which cuts the cheapest partition into k intervals can have, from what partitions at few cuts cost.
#pragma once

#include <cstdint>
#include <vector>

#include "algo/palettize/cut_line.h"

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
    // All cuts of a line, which must stay, and some `count` bounds between buckets of about equal weight times width.
    void start(const CutLine<double>& line, Span<const Point> points, int count);
    // Bounds among the cuts that are left, from the first of the line to the last.
    const std::vector<int32_t>& bounds() const { return bounds_; }

    // Leaves only the cuts that the cheapest partition into k intervals can have, and the first and last. `at_bounds`
    // are the cuts at the bounds, with the paths of least cost at the penalty; `cost` is that of some partition.
    void leave(const CutLine<double>& at_bounds, int k, double penalty, double cost);
    const std::vector<int32_t>& cuts() const { return cuts_; }

    // Finer bounds, if the buckets that are left hold so many cuts that these are worth it.
    bool refine();

private:
    void divide(size_t most_cuts);

    const CutLine<double>* line_ = nullptr;
    Span<const Point> points_;
    double most_ = 0;    // weight times width of a bucket
    double enough_ = 0;  // the least cost known
    std::vector<int32_t> cuts_, bounds_;
    size_t buckets_left_ = 0;
    std::vector<size_t> places_;   // of the bounds among the cuts
    std::vector<double> through_;  // the least cost of k intervals through each bound
    std::vector<int32_t> path_;
    CutLine<double> backwards_;
};

}  // namespace corepress
