#include "algo/path_search.h"

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

// The cut on the other side of a point, seen from the origin when direction is 1, towards it when -1.
template <typename Number>
typename PathSearch<Number>::Cut PathSearch<Number>::beyond(const Cut& cut, const Point& point, double centre,
                                                            int direction) {
    const Number value = difference<Number>(point.value, centre);
    const Number weight{direction * point.weight};
    const Number moment = weight * value;
    return {cut.weight + weight, cut.moment + moment, cut.square + moment * value, {}, cut.index + direction, 0};
}

template <typename Number>
void PathSearch<Number>::prepare(Span<const Point> points, int64_t origin) {
    cuts_.resize(static_cast<size_t>(points.size()) + 1);
    const double centre = points[origin].value;
    Cut* const cut = cuts_.data();
    cut[origin] = {};
    cut[origin].index = static_cast<int32_t>(origin);
    for (int64_t i = origin; i < points.size(); ++i) cut[i + 1] = beyond(cut[i], points[i], centre, 1);
    for (int64_t i = origin; i > 0; --i) cut[i - 1] = beyond(cut[i], points[i - 1], centre, -1);
}

template <typename Number>
int PathSearch<Number>::cheapest_path(std::vector<Cut>& cuts, double penalty) {
    const int32_t last = static_cast<int32_t>(cuts.size()) - 1;
    Cut* const cut = cuts.data();
    queue_.resize(cuts.size());
    Candidate* const queue = queue_.data();
    const Number price{penalty};
    const auto value = [cut](int32_t from, int32_t to) { return cut[from].best + cost(cut[from], cut[to]); };
    int32_t head = 0, tail = 0;
    queue[0] = {0, 1};
    for (int32_t to = 1; to <= last; ++to) {
        if (head < tail && queue[head + 1].start <= to) ++head;
        cut[to].from = queue[head].cut;
        cut[to].best = value(queue[head].cut, to) + price;
        if (to == last) break;
        // The new candidate wins from some cut onwards, if anywhere. Candidates that it beats where they begin go.
        int32_t start = to + 1;
        while (tail >= head) {
            start = std::max(queue[tail].start, to + 1);
            if (!(value(to, start) < value(queue[tail].cut, start))) break;
            --tail;
        }
        if (tail < head) {
            queue[++tail] = {to, to + 1};
            continue;
        }
        const int32_t rival = queue[tail].cut;
        const auto wins = [&](int32_t at) { return value(to, at) < value(rival, at); };
        int32_t lost = start, step = 1;  // neighbouring candidates mostly begin close together
        while (lost + step < last && !wins(lost + step)) {
            lost += step;
            step *= 2;
        }
        int32_t won = std::min(lost + step, last);
        if (won == last && !wins(last)) continue;
        while (won - lost > 1) {
            const int32_t middle = lost + (won - lost) / 2;
            (wins(middle) ? won : lost) = middle;
        }
        queue[++tail] = {to, won};
    }
    path_.clear();
    for (int32_t to = last; to > 0; to = cut[to].from) path_.push_back(to);
    std::reverse(path_.begin(), path_.end());
    return static_cast<int>(path_.size());
}

template <typename Number>
double PathSearch<Number>::cost_of(const std::vector<Cut>& cuts, const std::vector<int32_t>& path) const {
    double total = 0;
    int32_t from = 0;
    for (const int32_t to : path) {
        total += to_double(cost(cuts[static_cast<size_t>(from)], cuts[static_cast<size_t>(to)]));
        from = to;
    }
    return total;
}

// How far that may be off: an interval's cost is a difference of sums that reach it from the origin.
template <typename Number>
double PathSearch<Number>::rounding_of(const std::vector<Cut>& cuts, const std::vector<int32_t>& path) const {
    double total = 0;
    int32_t previous = 0;
    for (const int32_t next : path) {
        const Cut& from = cuts[static_cast<size_t>(previous)];
        const Cut& to = cuts[static_cast<size_t>(next)];
        const double largest = std::max(std::fabs(to_double(from.square)), std::fabs(to_double(to.square)));
        total += to.index - from.index == 1 ? 0 : largest * kRounding;
        previous = next;
    }
    return total;
}

template <typename Number>
bool PathSearch<Number>::search(std::vector<Cut>& cuts, int k, double penalty) {
    constexpr int kMostPasses = 200;
    constexpr int kHopefulPasses = 12;
    double low = 0, high = 0;  // penalties with too many, and with too few links
    double bound = 0;          // on the cost of k links
    few_.assign(1, static_cast<int32_t>(cuts.size()) - 1);
    for (int pass = 0; pass < kMostPasses; ++pass) {
        const int links = cheapest_path(cuts, penalty);
        bound = std::max(bound, to_double(cuts.back().best - Number{penalty} * Number{static_cast<double>(k)}));
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
            const double least = cost_of(cuts, spliced_);
            path_ = spliced_;
            if (least - bound <= kTolerance * least + rounding_of(cuts, spliced_)) return true;
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
bool PathSearch<Number>::find(int k, double penalty) {
    return search(cuts_, k, penalty);
}

template <typename Number>
bool PathSearch<Number>::find_coarse(int k, double penalty, const std::vector<double>& mass, int cut_count) {
    coarse_.assign(1, cuts_[0]);
    const double share = mass.back() / cut_count;
    double next = share;
    for (size_t i = 1; i + 1 < cuts_.size(); ++i) {
        if (mass[i] < next) continue;
        coarse_.push_back(cuts_[i]);
        next = (std::floor(mass[i] / share) + 1) * share;
    }
    coarse_.push_back(cuts_.back());
    return search(coarse_, k, penalty);
}

template class PathSearch<double>;
template class PathSearch<DoubleDouble>;

}  // namespace corepress
