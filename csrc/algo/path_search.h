// The cheapest partition of sorted, weighted points into k intervals, by penalised paths.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/double_double.h"
#include "core/span.h"

namespace corepress {

struct Point {
    double value;
    double weight;
};

// A partition is a path over the cuts between points; each link, an interval, costs its sum of squares about its mean.
// These costs satisfy the quadrangle inequality. So the cheapest path with a price `penalty` on each link is found in
// one pass with a queue of candidates (Galil and Park, "Dynamic programming with convexity, concavity and sparsity",
// 1992), and since the least cost is convex in the number of links, some penalty has a cheapest path of exactly k links
// (Gronlund et al., "Fast exact k-means, k-medians and Bregman divergence clustering in 1D", 2017). The cheapest path
// at any penalty also bounds the cost of all paths of k links from below, which certifies the result.
//
// Number is double, or DoubleDouble where costs nearly vanish beside the sum of squares that they are differences of.
// An object keeps its memory between problems.
template <typename Number>
class PathSearch {
public:
    // A result costs at most this much more than the bound, relatively, beyond the rounding of sums.
    static constexpr double kTolerance = 1e-9;

    // Sums start at the point `origin` and go outwards, so that values far out do not take digits from those within.
    void prepare(Span<const Point> points, int64_t origin);

    // Looks for the cheapest path of k links, 1 < k < points, starting from a guess of the penalty. False if rounding
    // got in the way; path() then has at most k links all the same.
    bool find(int k, double penalty);
    // The same over cuts of about equal shares of `mass`, a running sum over the points; path() is then meaningless,
    // but penalty() is a good guess for find.
    bool find_coarse(int k, double penalty, const std::vector<double>& mass, int cut_count);

    // Whether the cost of the path found stands clear of the rounding of the sums.
    bool trusted() const { return rounding_of(cuts_, path_) <= 1e-5 * cost_of(cuts_, path_); }
    // The path: for each link the index of the point after it.
    const std::vector<int32_t>& path() const { return path_; }
    double penalty() const { return penalty_; }

private:
    // Sums over the points between the origin and a possible cut; negative before the origin. Values count from it.
    struct Cut {
        Number weight, moment, square;
        Number best;    // the least penalised cost of a path to here
        int32_t index;  // of the point after the cut
        int32_t from;   // the cut before on that path
    };
    struct Candidate {
        int32_t cut;
        int32_t start;  // first later cut for which this candidate is the best one to come from
    };
    static constexpr double kRounding = sizeof(Number) == sizeof(double) ? 0x1p-50 : 0x1p-98;

    // The sum of squares of an interval about its mean; of a single point exactly 0.
    static Number cost(const Cut& from, const Cut& to) {
        if (to.index - from.index == 1) return Number{};
        const Number moment = to.moment - from.moment;
        return (to.square - from.square) - moment * moment / (to.weight - from.weight);
    }
    static Cut beyond(const Cut& cut, const Point& point, double centre, int direction);
    bool search(std::vector<Cut>& cuts, int k, double penalty);
    int cheapest_path(std::vector<Cut>& cuts, double penalty);
    double cost_of(const std::vector<Cut>& cuts, const std::vector<int32_t>& path) const;
    double rounding_of(const std::vector<Cut>& cuts, const std::vector<int32_t>& path) const;

    double penalty_ = 0;
    std::vector<Cut> cuts_, coarse_;
    std::vector<Candidate> queue_;
    std::vector<int32_t> path_, few_, many_, spliced_;
};

extern template class PathSearch<double>;
extern template class PathSearch<DoubleDouble>;

}  // namespace corepress
