#include "algo/cut_windows.h"

#include <algorithm>
#include <cmath>

namespace corepress {

void CutWindows::divide(const CutLine<double>& line, Span<const Point> points, int count) {
    constexpr int32_t kStride = 8;
    const int32_t last = line.last();
    double roots = 0;
    for (int32_t i = 0; i < last; i += kStride) {
        const int32_t end = std::min(i + kStride, last);
        roots += std::sqrt(line.weight(i, end) * (points[std::min(end, last - 1)].value - points[i].value));
    }
    const double most = (roots / count) * (roots / count);
    bounds_.assign(1, 0);
    for (int32_t first = 0; first < last; bounds_.push_back(first)) {
        const double before = line.weight(0, first), lowest = points[first].value;
        const auto fits = [&](int32_t i) {
            return (line.weight(0, i + 1) - before) * (points[i].value - lowest) <= most;
        };
        do ++first;
        while (first < last && fits(first));
    }
}

void CutWindows::leave(const CutLine<double>& line, const CutLine<double>& at_bounds, int k, double penalty,
                       double enough) {
    const int32_t last = at_bounds.last();
    backwards_.reverse(at_bounds);
    backwards_.cheapest_path(penalty, path_);
    // A cut that moves to an end of the line takes a link away, which spares its price.
    const double rounding = line.rounding();
    double largest = 0;
    through_.resize(static_cast<size_t>(last) + 1);
    for (int32_t i = 0; i <= last; ++i) {
        const double price = i == 0 || i == last ? (k - 1) * penalty : k * penalty;
        through_[static_cast<size_t>(i)] = at_bounds.cost_to(i) + backwards_.cost_to(last - i) - price;
        if (i == last) break;
        const double cost = std::max(at_bounds.cost(i, i + 1), 0.0) + rounding;
        largest = std::max(largest, at_bounds.weight(i, i + 1) * cost);
    }
    enough += 4 * (k + 1) * rounding;

    // The outermost clusters reach at least to the outermost cuts that are left, so fewer are left when asked again.
    const int32_t count = line.last();
    double left = line.mean(0, 1), right = line.mean(count - 1, count);
    const auto left_over = [&](int32_t bound) {
        return through_[static_cast<size_t>(bound)] <= enough + std::sqrt(largest) * (right - left);
    };
    int32_t begin = 0, end = last;
    for (int turn = 0; turn < 2; ++turn) {
        while (begin + 1 < end && !left_over(begin) && !left_over(begin + 1)) ++begin;
        while (end - 1 > begin && !left_over(end) && !left_over(end - 1)) --end;
        if (begin > 0) left = at_bounds.mean(0, begin);
        if (end < last) right = at_bounds.mean(end, last);
    }
    cuts_.assign(1, 0);
    bool before = left_over(0);
    for (int32_t i = 0; i < last; ++i) {
        const bool after = left_over(i + 1);
        const int32_t stop = bounds_[static_cast<size_t>(i) + 1];
        if (before || after) {
            for (int32_t cut = bounds_[static_cast<size_t>(i)] + 1; cut < stop; ++cut) cuts_.push_back(cut);
        }
        if (after || i + 1 == last) cuts_.push_back(stop);
        before = after;
    }
}

}  // namespace corepress
