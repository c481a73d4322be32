#include "algo/palettize/path_search.h"

#include <algorithm>
#include <cmath>

#include "core/cube_root.h"

namespace corepress {
namespace {

// Two cheapest paths at one penalty, one with fewer and one with more links than k, exchange their ends where a link of
// the longer lies within a link of the shorter: by the quadrangle inequality the result is as cheap.
void splice(const std::vector<int32_t>& few, const std::vector<int32_t>& many, int k, std::vector<int32_t>& result) {
    const size_t shift = static_cast<size_t>(k) - few.size();
    const auto start_of = [](const std::vector<int32_t>& path, size_t link) { return link == 0 ? 0 : path[link - 1]; };
    for (size_t link = 0; link < few.size(); ++link) {
        const size_t other = link + shift;
        if (start_of(many, other) >= start_of(few, link) && many[other] <= few[link]) {
            result.assign(many.begin(), many.begin() + static_cast<std::ptrdiff_t>(other));
            result.insert(result.end(), few.begin() + static_cast<std::ptrdiff_t>(link), few.end());
            return;
        }
    }
    result.clear();
}

}  // namespace

template <typename Number>
bool PathSearch<Number>::search(CutLine<Number>& cuts, int k, double penalty) {
    constexpr int kMostPasses = 200;
    constexpr int kHopefulPasses = 12;
    double low = 0, high = 0;  // penalties with too many, and with too few links
    double bound = 0;          // on the cost of k links
    few_.assign(1, cuts.last());
    for (int pass = 0; pass < kMostPasses; ++pass) {
        const Number least = cuts.cheapest_path(penalty, path_);
        const int links = static_cast<int>(path_.size());
        bound = std::max(bound, to_double(least - Number{penalty} * Number{static_cast<double>(k)}));
        penalty_ = penalty;
        if (links == k) return true;
        if (links > k) {
            low = penalty;
            many_ = path_;
        } else {
            high = penalty;
            few_ = path_;
        }
        if (low == 0 || high == 0) {
            const double ratio = static_cast<double>(links) / k;
            penalty *= std::min(std::max(ratio * ratio * ratio, 1e-6), 1e6) * (links > k ? 1.02 : 0.98);
            if (penalty > 0 && !std::isinf(penalty)) continue;
            break;
        }
        splice(few_, many_, k, spliced_);
        if (!spliced_.empty()) {
            const double cost = cuts.cost_of(spliced_);
            path_ = spliced_;
            if (cost - bound <= kTolerance * cost + cuts.rounding_of(spliced_)) return true;
        }
        // Between the two, the number of links goes roughly as penalty^(-1/3); if that does not get there soon, halve.
        const double at_low = 1 / cube_root(low), at_high = 1 / cube_root(high);
        const double many = static_cast<double>(many_.size()), few = static_cast<double>(few_.size());
        const double share = pass < kHopefulPasses ? std::min(std::max((many - k) / (many - few), 0.1), 0.9) : 0.5;
        const double root = 1 / (at_low + (at_high - at_low) * share);
        penalty = root * root * root;
        if (!(penalty > low && penalty < high)) break;
    }
    if (path_.size() > static_cast<size_t>(k)) path_ = few_;
    return false;
}

template <typename Number>
bool PathSearch<Number>::find_among(const std::vector<int32_t>& selection, int k, double penalty) {
    selected_.select(cuts_, selection);
    const bool found = search(selected_, k, penalty);
    for (int32_t& end : path_) end = selection[static_cast<size_t>(end)];
    return found;
}

template class PathSearch<double>;
template class PathSearch<DoubleDouble>;

}  // namespace corepress
