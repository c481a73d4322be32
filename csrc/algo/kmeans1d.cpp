#include "algo/kmeans1d.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/cube_root.h"

namespace corepress {
namespace {

// The point at half of the weight.
int64_t middle_of(Span<const Point> points) {
    double total = 0, before = 0;
    for (const Point& point : points) total += point.weight;
    int64_t middle = 0;
    while (middle + 1 < points.size() && (before += points[middle].weight) < total / 2) ++middle;
    return middle;
}

}  // namespace

// For a smooth density f the least cost with k clusters tends to (integral of f^(1/3))^3 / (12 k^2), each cluster
// taking an equal share of that integral (Panter and Dite, "Quantization distortion in pulse-count modulation", 1951).
// Leaves its running sum in mass_.
double ScalarKmeans::smooth_penalty(int k) {
    const int64_t count = points_.size();
    mass_.resize(static_cast<size_t>(count) + 1);
    mass_[0] = 0;
    double mass = 0;
    for (int64_t i = 0; i < count; ++i) {
        const double left = points_[std::max<int64_t>(i - 1, 0)].value;
        const double right = points_[std::min<int64_t>(i + 1, count - 1)].value;
        const double gap = (right - left) * (i == 0 || i == count - 1 ? 1 : 0.5);
        mass_[static_cast<size_t>(i) + 1] = mass += rough_cube_root(points_[i].weight * gap * gap);
    }
    const double share = mass_.back() / k;
    return share * share * share / 6;
}

// About `count` cuts of equal shares of mass_.
void ScalarKmeans::select_cuts(int count) {
    selection_.assign(1, 0);
    const double share = mass_.back() / count;
    double next = share;
    for (size_t i = 1; i + 1 < mass_.size(); ++i) {
        if (mass_[i] < next) continue;
        selection_.push_back(static_cast<int32_t>(i));
        next = (std::floor(mass_[i] / share) + 1) * share;
    }
    selection_.push_back(static_cast<int32_t>(points_.size()));
}

void ScalarKmeans::solve(Span<const Point> points, int k, double penalty_hint) {
    points_ = points;
    penalty_ = 0;
    const int64_t count = points.size();
    if (count <= k || k == 1) {
        ends_.resize(static_cast<size_t>(std::min<int64_t>(count, k)));
        std::iota(ends_.begin(), ends_.end(), 1);
        ends_.back() = static_cast<int32_t>(count);
        return;
    }
    const int64_t origin = middle_of(points);
    search_.prepare(points, origin);
    double penalty = penalty_hint;
    if (!(penalty > 0)) {
        penalty = smooth_penalty(k);
        const int coarse_count = std::max(256, 8 * k);
        const bool worthwhile = count > 3 * static_cast<int64_t>(coarse_count);
        if (worthwhile) {
            select_cuts(coarse_count);
            if (search_.find_coarse(k, penalty, selection_)) penalty = search_.penalty();
        }
    }
    if (search_.find(k, penalty) && search_.trusted()) {
        ends_ = search_.path();
        penalty_ = search_.penalty();
        return;
    }
    // Nearly lossless, or with values far from all others: the clusters' costs drown in the rounding of the sums.
    extended_search_.prepare(points, origin);
    extended_search_.find(k, penalty);
    ends_ = extended_search_.path();
    penalty_ = extended_search_.penalty();
}

// Summed anew, from the cluster's first value: differences of sums over everything before would lose digits.
double ScalarKmeans::centroid(int cluster) const {
    const int32_t begin = cluster == 0 ? 0 : ends_[static_cast<size_t>(cluster) - 1];
    const int32_t end = ends_[static_cast<size_t>(cluster)];
    const double first = points_[begin].value;
    double weight = 0, moment = 0;
    for (int32_t i = begin; i < end; ++i) {
        weight += points_[i].weight;
        moment += points_[i].weight * (points_[i].value - first);
    }
    return first + moment / weight;
}

}  // namespace corepress
