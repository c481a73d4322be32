// The cheapest partition of sorted, weighted points into k intervals, by penalised paths.
#pragma once

#include <cstdint>
#include <vector>

#include "algo/palettize/cut_line.h"

namespace corepress {

// Since the least cost is convex in the number of links, some price on each link has a cheapest path of exactly k links
// (Gronlund et al., "Fast exact k-means, k-medians and Bregman divergence clustering in 1D", 2017). The cheapest path
// at any price also bounds the cost of all paths of k links from below, which certifies the result.
//
// Number is double, or DoubleDouble where costs nearly vanish beside the sum of squares that they are differences of.
// An object keeps its memory between problems.
template <typename Number>
class PathSearch {
public:
    // A result costs at most this much more than the bound, relatively, beyond the rounding of sums.
    static constexpr double kTolerance = 1e-9;

    void prepare(Span<const Point> points, int64_t origin) { cuts_.prepare(points, origin); }

    // Looks for the cheapest path of k links, 1 < k < points, starting from a guess of the penalty. False if rounding
    // got in the way; path() then has at most k links all the same.
    bool find(int k, double penalty) { return search(cuts_, k, penalty); }
    // The same among a selection of cuts, which ascend from the first to the last.
    bool find_among(const std::vector<int32_t>& selection, int k, double penalty);

    const CutLine<Number>& cuts() const { return cuts_; }
    // Those of the last call of find_among.
    const CutLine<Number>& selected() const { return selected_; }

    // Whether the cost of the path found stands clear of the rounding of the sums.
    bool trusted() const { return cuts_.rounding_of(path_) <= 1e-5 * cuts_.cost_of(path_); }
    // The path: for each link the index of the point after it.
    const std::vector<int32_t>& path() const { return path_; }
    double penalty() const { return penalty_; }

private:
    bool search(CutLine<Number>& cuts, int k, double penalty);

    double penalty_ = 0;
    CutLine<Number> cuts_, selected_;
    std::vector<int32_t> path_, few_, many_, spliced_;
};

extern template class PathSearch<double>;
extern template class PathSearch<DoubleDouble>;

}  // namespace corepress
