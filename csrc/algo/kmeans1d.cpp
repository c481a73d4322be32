#include "algo/kmeans1d.h"

#include <algorithm>
#include <cmath>

#include "core/double_double.h"

namespace corepress {
namespace {

constexpr double kRounding = 0x1p-50;  // of a sum of squares, relative
constexpr int64_t kMostExactWork = int64_t{1} << 20;

// Two optimal paths of a penalised problem, one with fewer and one with more links than k, exchange their ends where a
// link of the longer lies within a link of the shorter: by the quadrangle inequality the result is no worse.
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

// Merging [from, to) into one cluster costs its sum of squares less this.
inline double ScalarKmeans::gain(const Cut& from, const Cut& to) {
    const double moment = to.moment - from.moment;
    return moment * moment / (to.weight - from.weight);
}

void ScalarKmeans::prepare(Span<const Point> points) {
    double weight = 0, moment = 0;
    for (const Point& point : points) {
        weight += point.weight;
        moment += point.weight * point.value;
    }
    centre_ = moment / weight;
    cuts_.resize(static_cast<size_t>(points.size()) + 1);
    cuts_[0] = {0, 0, 0, 0, 0};
    total_ = weight = moment = 0;
    for (int64_t i = 0; i < points.size(); ++i) {
        const double value = points[i].value - centre_;
        weight += points[i].weight;
        moment += points[i].weight * value;
        total_ += points[i].weight * value * value;
        cuts_[static_cast<size_t>(i) + 1] = {weight, moment, 0, static_cast<int32_t>(i) + 1, 0};
    }
}

// For a smooth density f the least cost with k clusters tends to (integral of f^(1/3))^3 / (12 k^2), each cluster taking
// an equal share of that integral (Panter and Dite 1951). `mass` gets its running sum.
double ScalarKmeans::smooth_penalty(Span<const Point> points, int k, std::vector<double>& mass) const {
    const int64_t count = points.size();
    mass.resize(static_cast<size_t>(count) + 1);
    mass[0] = 0;
    for (int64_t i = 0; i < count; ++i) {
        const double left = points[std::max<int64_t>(i - 1, 0)].value;
        const double right = points[std::min<int64_t>(i + 1, count - 1)].value;
        const double gap = (right - left) / (i == 0 || i == count - 1 ? 1 : 2);
        mass[static_cast<size_t>(i) + 1] = mass[static_cast<size_t>(i)] + std::cbrt(points[i].weight * gap * gap);
    }
    const double share = mass.back() / k;
    return share * share * share / 6;
}

void ScalarKmeans::select_cuts(const std::vector<double>& mass, int count) {
    coarse_.assign(1, cuts_[0]);
    const double share = mass.back() / count;
    double next = share;
    for (size_t i = 1; i + 1 < cuts_.size(); ++i) {
        if (mass[i] < next) continue;
        coarse_.push_back(cuts_[i]);
        next = (std::floor(mass[i] / share) + 1) * share;
    }
    coarse_.push_back(cuts_.back());
}

// The least penalised cost over all paths of cuts; returns the number of links of one that attains it.
int ScalarKmeans::best_path(std::vector<Cut>& cuts, double penalty, std::vector<int32_t>& path) {
    const int32_t last = static_cast<int32_t>(cuts.size()) - 1;
    Cut* const cut = cuts.data();
    queue_.resize(cuts.size());
    Candidate* const queue = queue_.data();
    const auto value = [cut](int32_t from, int32_t to) { return cut[from].best + gain(cut[from], cut[to]); };
    int32_t head = 0, tail = 0;
    queue[0] = {0, 1};
    for (int32_t to = 1; to <= last; ++to) {
        if (head < tail && queue[head + 1].start <= to) ++head;
        cut[to].from = queue[head].cut;
        cut[to].best = value(queue[head].cut, to) - penalty;
        if (to == last) break;
        // The new candidate wins from some cut onwards, if anywhere. Candidates that it beats where they begin go.
        int32_t start = to + 1;
        while (tail >= head) {
            start = std::max(queue[tail].start, to + 1);
            if (!(value(to, start) > value(queue[tail].cut, start))) break;
            --tail;
        }
        if (tail < head) {
            queue[++tail] = {to, to + 1};
            continue;
        }
        const int32_t rival = queue[tail].cut;
        const auto wins = [&](int32_t at) { return value(to, at) > value(rival, at); };
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
    path.clear();
    for (int32_t to = last; to > 0; to = cut[to].from) path.push_back(to);
    std::reverse(path.begin(), path.end());
    return static_cast<int>(path.size());
}

double ScalarKmeans::cost_of(const std::vector<Cut>& cuts, const std::vector<int32_t>& path) const {
    double gains = 0;
    int32_t from = 0;
    for (const int32_t to : path) {
        gains += gain(cuts[static_cast<size_t>(from)], cuts[static_cast<size_t>(to)]);
        from = to;
    }
    return total_ - gains;
}

// Looks for a penalty whose optimum has k links. Leaves the path in path_; false if rounding got in the way.
bool ScalarKmeans::search(std::vector<Cut>& cuts, int k, double penalty) {
    constexpr int kMostPasses = 80;
    double low = 0, high = 0;  // penalties with too many, and with too few links
    double bound = 0;          // on the least cost with k links
    for (int pass = 0; pass < kMostPasses; ++pass) {
        ++passes_;
        const int links = best_path(cuts, penalty, path_);
        bound = std::max(bound, total_ - cuts.back().best - penalty * k);
        penalty_ = penalty;
        if (links == k) return true;
        if (links > k) {
            low = penalty;
            many_ = path_;
        } else {
            high = penalty;
            few_ = path_;
        }
        const double ratio = static_cast<double>(links) / k;
        if (low == 0 || high == 0) {
            penalty *= std::min(std::max(ratio * ratio * ratio, 1e-6), 1e6) * (links > k ? 1.02 : 0.98);
            continue;
        }
        splice(few_, many_, k, spliced_);
        if (!spliced_.empty()) {
            const double cost = cost_of(cuts, spliced_);
            if (cost - bound <= kTolerance * cost + total_ * kRounding) {
                path_ = spliced_;
                return true;
            }
        }
        if (high - low <= 1e-15 * high) return false;
        // Between the two, the number of links goes roughly as penalty^(-1/3); after some tries, halve.
        const double many = static_cast<double>(many_.size()), few = static_cast<double>(few_.size());
        double share = std::log(many / k) / std::log(many / few);
        share = pass < 12 ? std::min(std::max(share, 0.1), 0.9) : 0.5;
        penalty = low * std::pow(high / low, share);
        if (!(penalty > low && penalty < high)) penalty = low + (high - low) / 2;
        if (!(penalty > low && penalty < high)) return false;
    }
    return false;
}

void ScalarKmeans::solve(Span<const Point> points, int k, double penalty_hint) {
    const int64_t count = points.size();
    penalty_ = 0;
    passes_ = 0;
    fell_back_ = false;
    prepare(points);
    ends_.clear();
    if (count <= k) {
        for (int32_t end = 1; end <= count; ++end) ends_.push_back(end);
        return;
    }
    if (k == 1) {
        ends_.push_back(static_cast<int32_t>(count));
        return;
    }
    double penalty = penalty_hint;
    if (!(penalty > 0)) {
        penalty = smooth_penalty(points, k, mass_);
        const int coarse_count = std::max(512, 8 * k);
        if (count > 3 * static_cast<int64_t>(coarse_count)) {
            select_cuts(mass_, coarse_count);
            if (search(coarse_, k, penalty)) penalty = penalty_;
            passes_ = 0;
        }
    }
    const bool found = search(cuts_, k, penalty);
    // A nearly lossless palette has a cost near the rounding of the sums it is the difference of.
    const bool certain = found && total_ * kRounding <= 1e-5 * cost_of(cuts_, path_);
    if (certain || (found && count * k > kMostExactWork)) {
        ends_.assign(path_.begin(), path_.end());
    } else {
        fell_back_ = true;
        solve_exactly(points, k);
    }
}

double ScalarKmeans::centroid(int cluster) const {
    const Cut& from = cuts_[cluster == 0 ? 0 : static_cast<size_t>(ends_[static_cast<size_t>(cluster) - 1])];
    const Cut& to = cuts_[static_cast<size_t>(ends_[static_cast<size_t>(cluster)])];
    return centre_ + (to.moment - from.moment) / (to.weight - from.weight);
}

// Dynamic program over the clusters; for each, divide and conquer over the points, since the best previous cut moves
// right with the point.
void ScalarKmeans::solve_exactly(Span<const Point> points, int k) {
    struct Sums {
        DoubleDouble weight, moment, square;
    };
    const int32_t count = static_cast<int32_t>(points.size());
    std::vector<Sums> sums(static_cast<size_t>(count) + 1);
    for (int32_t i = 0; i < count; ++i) {
        const DoubleDouble value = exact_sum(points[i].value, -centre_);
        const DoubleDouble weight{points[i].weight, 0};
        const Sums& before = sums[static_cast<size_t>(i)];
        sums[static_cast<size_t>(i) + 1] = {before.weight + weight, before.moment + weight * value,
                                            before.square + weight * value * value};
    }
    const auto cost = [&](int32_t from, int32_t to) {
        const Sums& a = sums[static_cast<size_t>(from)];
        const Sums& b = sums[static_cast<size_t>(to)];
        if (to - from == 1) return DoubleDouble{};
        const DoubleDouble moment = b.moment - a.moment;
        return (b.square - a.square) - moment * moment / (b.weight - a.weight);
    };
    std::vector<DoubleDouble> best(static_cast<size_t>(count) + 1), previous;
    std::vector<int32_t> from(static_cast<size_t>(k) * static_cast<size_t>(count + 1), 0);
    for (int32_t i = 1; i <= count; ++i) best[static_cast<size_t>(i)] = cost(0, i);
    struct Range {
        int32_t first, last, from_first, from_last;
    };
    std::vector<Range> ranges;
    for (int layer = 1; layer < k; ++layer) {
        previous = best;
        int32_t* const choice = from.data() + static_cast<size_t>(layer) * static_cast<size_t>(count + 1);
        ranges.assign(1, {layer + 1, count, layer, count - 1});
        while (!ranges.empty()) {
            const Range range = ranges.back();
            ranges.pop_back();
            if (range.first > range.last) continue;
            const int32_t middle = range.first + (range.last - range.first) / 2;
            const int32_t last = std::min(middle - 1, range.from_last);
            int32_t chosen = range.from_first;
            DoubleDouble least = previous[static_cast<size_t>(chosen)] + cost(chosen, middle);
            for (int32_t i = chosen + 1; i <= last; ++i) {
                const DoubleDouble candidate = previous[static_cast<size_t>(i)] + cost(i, middle);
                if (candidate < least) {
                    least = candidate;
                    chosen = i;
                }
            }
            best[static_cast<size_t>(middle)] = least;
            choice[middle] = chosen;
            ranges.push_back({range.first, middle - 1, range.from_first, chosen});
            ranges.push_back({middle + 1, range.last, chosen, range.from_last});
        }
    }
    ends_.resize(static_cast<size_t>(k));
    int32_t end = count;
    for (int layer = k - 1; layer >= 0; --layer) {
        ends_[static_cast<size_t>(layer)] = end;
        end = from[static_cast<size_t>(layer) * static_cast<size_t>(count + 1) + static_cast<size_t>(end)];
    }
}

}  // namespace corepress
