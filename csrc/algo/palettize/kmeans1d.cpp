#include "algo/palettize/kmeans1d.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "algo/palettize/exact_partition.h"
#include "core/cube_root.h"
#include "core/in_parts.h"

namespace corepress {
namespace {

// The point at half of the weight. The lanes of the sum keep additions from waiting for each other.
int64_t middle_of(Span<const Point> points) {
    constexpr int kLanes = 4;
    double lanes[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= points.size(); i += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += points[i + lane].weight;
    }
    for (; i < points.size(); ++i) lanes[0] += points[i].weight;
    const double half = (lanes[0] + lanes[1] + lanes[2] + lanes[3]) / 2;
    double before = 0;
    int64_t middle = 0;
    while (middle + 1 < points.size() && (before += points[middle].weight) < half) ++middle;
    return middle;
}

}  // namespace

// For a smooth density f the least cost with k clusters tends to (integral of f^(1/3))^3 / (12 k^2), each cluster
// taking an equal share of that integral (Panter and Dite, "Quantization distortion in pulse-count modulation", 1951).
// Leaves its running sum over stretches of points in mass_.
double ScalarKmeans::smooth_penalty(int k) {
    constexpr int64_t kMostStretches = 4096;
    const int64_t count = points_.size();
    stretch_ = (count + kMostStretches - 1) / kMostStretches;
    mass_.assign(1, 0);
    double mass = 0, left = points_[0].value;
    for (int64_t i = 0; i < count;) {
        if (stretch_ > 64) check_stop();  // of more than 2^18 points
        const int64_t end = std::min(i + stretch_, count);
        const double right = end == count ? points_[end - 1].value : (points_[end - 1].value + points_[end].value) / 2;
        double weight = 0;
        for (; i < end; ++i) weight += points_[i].weight;
        mass_.push_back(mass += rough_cube_root(weight * (right - left) * (right - left)));
        left = right;
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
        selection_.push_back(static_cast<int32_t>(i) * static_cast<int32_t>(stretch_));
        next = (std::floor(mass_[i] / share) + 1) * share;
    }
    selection_.push_back(static_cast<int32_t>(points_.size()));
}

// Searches only the cuts that the cheapest path can have, where these are few enough to be worth finding out.
bool ScalarKmeans::find_in_windows(int k, double& penalty) {
    // A window is some sqrt(2k) buckets wide to either side of each cut, so this many buckets make the least work:
    // two passes over their bounds, and one over the cuts in windows.
    const double count = static_cast<double>(points_.size());
    const double buckets = std::sqrt(2 * k * std::sqrt(k) * count);
    if (4 * buckets > count) return false;
    windows_.start(search_.cuts(), points_, static_cast<int>(buckets));
    do {
        if (!search_.find_among(windows_.bounds(), k, penalty)) return false;
        penalty = search_.penalty();
        windows_.leave(search_.selected(), k, penalty, search_.cuts().cost_of(search_.path()));
    } while (windows_.refine());
    return search_.find_among(windows_.cuts(), k, penalty);
}

// Points so light that the weight of an interval of them, a difference of sums over all points, has no right digits.
bool ScalarKmeans::raise_light_points() {
    constexpr double kLeast = 0x1p-48;
    double total = 0, lightest = points_[0].weight;
    for_each_part(points_.size(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            total += points_[i].weight;
            lightest = std::min(lightest, points_[i].weight);
        }
    });
    const double least = total * kLeast;
    if (lightest >= least) return false;
    raised_.assign(points_.data(), points_.data() + points_.size());
    for (Point& point : raised_) point.weight = std::max(point.weight, least);
    return true;
}

void ScalarKmeans::solve(Span<const Point> points, int k, double penalty_hint, bool counts) {
    points_ = points;
    penalty_ = 0;
    const int64_t count = points.size();
    if (count <= k || k == 1) {
        ends_.resize(static_cast<size_t>(std::min<int64_t>(count, k)));
        std::iota(ends_.begin(), ends_.end(), 1);
        ends_.back() = static_cast<int32_t>(count);
        return;
    }
    if (!counts && raise_light_points()) {
        if (is_small_partition(count, k)) {
            ends_ = exact_partition(points, k);
            return;
        }
        points_ = points = {raised_.data(), count};
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
            if (search_.find_among(selection_, k, penalty)) penalty = search_.penalty();
        }
    }
    if ((find_in_windows(k, penalty) || search_.find(k, penalty)) && search_.trusted()) {
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
