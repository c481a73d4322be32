#include "algo/palettize/cut_windows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace corepress {

void CutWindows::start(const CutLine<double>& line, Span<const Point> points, int count) {
    constexpr int32_t kStride = 8;
    line_ = &line;
    points_ = points;
    enough_ = std::numeric_limits<double>::infinity();
    const int32_t last = line.last();
    double roots = 0;
    for (int32_t i = 0; i < last; i += kStride) {
        const int32_t end = std::min(i + kStride, last);
        roots += std::sqrt(line.weight(i, end) * (points[end - 1].value - points[i].value));
    }
    most_ = (roots / count) * (roots / count);
    cuts_.resize(static_cast<size_t>(last) + 1);
    std::iota(cuts_.begin(), cuts_.end(), 0);
    divide(cuts_.size());
}

void CutWindows::divide(size_t most_cuts) {
    places_.assign(1, 0);
    bounds_.assign(1, 0);
    const size_t last = cuts_.size() - 1;
    for (size_t first = 0; first < last;) {
        const double before = line_->weight(0, cuts_[first]), lowest = points_[cuts_[first]].value;
        const auto fits = [&](int32_t end) {
            return (line_->weight(0, end) - before) * (points_[end - 1].value - lowest) <= most_;
        };
        const size_t stop = std::min(first + most_cuts, last);
        do ++first;
        while (first < stop && fits(cuts_[first + 1]));
        places_.push_back(first);
        bounds_.push_back(cuts_[first]);
    }
}

// Near 0, halves are so many that a bucket of little weight and width may hold most of them.
bool CutWindows::refine() {
    constexpr size_t kWorthwhile = 16, kFiner = 4;
    const size_t in_bucket = cuts_.size() / std::max<size_t>(buckets_left_, 1);
    if (in_bucket < kWorthwhile) return false;
    most_ /= kFiner * kFiner;
    divide(in_bucket / kFiner);
    return true;
}

void CutWindows::leave(const CutLine<double>& at_bounds, int k, double penalty, double cost) {
    const int32_t last = at_bounds.last();
    const auto has_cuts = [this](int32_t bucket) {
        const size_t i = static_cast<size_t>(bucket);
        return places_[i + 1] - places_[i] > 1;
    };
    backwards_.reverse(at_bounds);
    backwards_.cheapest_path(penalty, path_);
    // A cut that moves to an end of the line takes a link away, which spares its price.
    const double rounding = line_->rounding();
    double largest = 0;
    through_.resize(static_cast<size_t>(last) + 1);
    for (int32_t i = 0; i <= last; ++i) {
        const double price = i == 0 || i == last ? (k - 1) * penalty : k * penalty;
        through_[static_cast<size_t>(i)] = at_bounds.cost_to(i) + backwards_.cost_to(last - i) - price;
        if (i < last && has_cuts(i)) {
            const double of_bucket = std::max(at_bounds.cost(i, i + 1), 0.0) + rounding;
            largest = std::max(largest, at_bounds.weight(i, i + 1) * of_bucket);
        }
    }
    enough_ = std::min(enough_, cost + 4 * (k + 1) * rounding);

    // The outermost clusters reach at least to the outermost cuts that are left, so fewer are left when asked again.
    double left = line_->mean(0, 1), right = line_->mean(line_->last() - 1, line_->last());
    const auto is_left = [&](int32_t bound) {
        return through_[static_cast<size_t>(bound)] <= enough_ + std::sqrt(largest) * (right - left);
    };
    int32_t begin = 0, end = last;
    for (int turn = 0; turn < 2; ++turn) {
        while (begin + 1 < end && !is_left(begin) && !is_left(begin + 1)) ++begin;
        while (end - 1 > begin && !is_left(end) && !is_left(end - 1)) --end;
        if (begin > 0) left = at_bounds.mean(0, begin);
        if (end < last) right = at_bounds.mean(end, last);
    }
    size_t count = 1;
    buckets_left_ = 0;
    bool before = is_left(0);
    for (int32_t i = 0; i < last; ++i) {
        const bool after = is_left(i + 1);
        const size_t stop = places_[static_cast<size_t>(i) + 1];
        if (before || after) {
            ++buckets_left_;
            for (size_t place = places_[static_cast<size_t>(i)] + 1; place < stop; ++place)
                cuts_[count++] = cuts_[place];
        }
        if (after || i + 1 == last) cuts_[count++] = cuts_[stop];
        before = after;
    }
    cuts_.resize(count);
}

}  // namespace corepress
