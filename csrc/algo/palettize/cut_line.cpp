#include "algo/palettize/cut_line.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>

#include "core/in_parts.h"
#include "core/stop.h"
#include "dispatch.h"

namespace corepress {

namespace {

// Elements that are all written to next; with room for the few that refining adds, instead of twice as many.
template <typename Element>
void make_room(size_t count, std::vector<Element>& elements) {
    if (count > elements.capacity()) {
        elements = {};
        elements.reserve(count + count / 16);
    }
    elements.resize(count);
}

}  // namespace

template <typename Number>
void CutLine<Number>::resize(size_t count) {
    constexpr size_t kMany = size_t{1} << 20;  // memory that is new takes as long as several passes over it
    for (std::vector<Number>* numbers : {&weight_, &moment_, &square_}) {
        if (count > kMany) check_stop();
        make_room(count + kPathPadding, *numbers);
    }
    make_room(count, index_);
}

template <typename Number>
void CutLine<Number>::prepare(Span<const Point> points, int64_t origin) {
    const int64_t count = points.size();
    resize(static_cast<size_t>(count) + 1);
    const double centre = points[origin].value;
    Number* const weights = weight_.data();
    Number* const moments = moment_.data();
    Number* const squares = square_.data();
    struct Sums {
        Number weight{}, moment{}, square{};
    };
    const auto add = [&](Sums& sums, int64_t cut, const Point& point, double sign) {
        const Number value = difference<Number>(point.value, centre);
        const Number part{sign * point.weight};
        weights[cut] = sums.weight = sums.weight + part;
        moments[cut] = sums.moment = sums.moment + part * value;
        squares[cut] = sums.square = sums.square + part * value * value;
    };
    // Each addition waits for the one before; those of the other side are done meanwhile.
    weights[origin] = moments[origin] = squares[origin] = Number{};
    Sums above, below;
    const int64_t both = std::min(origin, count - origin);
    for_each_part(both, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            add(above, origin + 1 + i, points[origin + i], 1);
            add(below, origin - 1 - i, points[origin - 1 - i], -1);
        }
    });
    for_each_part(count - origin - both, [&](int64_t begin, int64_t end) {
        for (int64_t i = both + begin; i < both + end; ++i) add(above, origin + 1 + i, points[origin + i], 1);
    });
    for_each_part(origin - both, [&](int64_t begin, int64_t end) {
        for (int64_t i = both + begin; i < both + end; ++i) add(below, origin - 1 - i, points[origin - 1 - i], -1);
    });
    std::iota(index_.begin(), index_.end(), 0);
}

template <typename Number>
void CutLine<Number>::select(const CutLine& line, const std::vector<int32_t>& places) {
    resize(places.size());
    for (size_t i = 0; i < places.size(); ++i) {
        const size_t place = static_cast<size_t>(places[i]);
        weight_[i] = line.weight_[place];
        moment_[i] = line.moment_[place];
        square_[i] = line.square_[place];
        index_[i] = line.index_[place];
    }
}

template <typename Number>
void CutLine<Number>::reverse(const CutLine& line) {
    const size_t count = line.size();
    resize(count);
    for (size_t i = 0; i < count; ++i) {
        const size_t place = count - 1 - i;
        weight_[i] = -line.weight_[place];
        moment_[i] = -line.moment_[place];
        square_[i] = -line.square_[place];
        index_[i] = -line.index_[place];
    }
}

// The sum of squares of an interval about its mean; of a single point exactly 0.
template <typename Number>
Number CutLine<Number>::cost(int32_t from, int32_t to) const {
    const size_t i = static_cast<size_t>(from), j = static_cast<size_t>(to);
    if (index_[j] - index_[i] == 1) return Number{};
    const Number moment = moment_[j] - moment_[i];
    return (square_[j] - square_[i]) - moment * moment / (weight_[j] - weight_[i]);
}

// Leaves off both ends of [begin, end) what cannot be the best to come from. Paths to later cuts cost more, links from
// them less: what lies between two cuts costs at least the path to the first and the link from the second.
template <typename Number>
void CutLine<Number>::narrow(int32_t& begin, int32_t& end, int32_t to) const {
    constexpr int32_t kStretches = 64;
    constexpr int32_t kWorthwhile = 16 * kStretches;
    if (end - begin < kWorthwhile) return;
    const int32_t from = begin, final = end - 1, length = (end - begin) / kStretches;
    const auto bound_at = [&](int32_t i) { return i < kStretches ? from + i * length : final; };
    const auto path_to = [&](int32_t i) { return best_[static_cast<size_t>(bound_at(i))]; };
    Number links[kStretches + 1];
    int32_t least = 0;
    for (int32_t i = 0; i <= kStretches; ++i) {
        links[i] = cost(bound_at(i), to);
        if (path_to(i) + links[i] < path_to(least) + links[least]) least = i;
    }
    const Number enough = path_to(least) + links[least];
    int32_t first = 0, last = kStretches;
    while (first < least && enough < path_to(first) + links[first + 1]) ++first;
    while (last > least && enough < path_to(last - 1) + links[last]) --last;
    begin = bound_at(first);
    end = bound_at(last) + 1;
}

// The first of the cheapest links that begin at [begin, end) and are more than one cut long.
template <typename Number>
typename CutLine<Number>::Link CutLine<Number>::best_of_many(int32_t begin, int32_t end, int32_t to) const {
    narrow(begin, end, to);
    if constexpr (std::is_same_v<Number, double>) {
        const PathCuts cuts{weight_.data(), moment_.data(), square_.data(), best_.data()};
        const PathLink link = kernels().cheapest_link(cuts, begin, end, to);
        return {link.cost, link.from};
    } else {
        Link link{best_[static_cast<size_t>(begin)] + cost(begin, to), begin};
        for (int32_t from = begin + 1; from < end; ++from) {
            const Number through = best_[static_cast<size_t>(from)] + cost(from, to);
            if (through < link.cost) link = {through, from};
        }
        return link;
    }
}

template <typename Number>
typename CutLine<Number>::Link CutLine<Number>::best_link(int32_t begin, int32_t end, int32_t to) const {
    if (end < to) return best_of_many(begin, end, to);
    const Link nearest{best_[static_cast<size_t>(to) - 1] + cost(to - 1, to), to - 1};
    if (begin == to - 1) return nearest;
    const Link link = best_of_many(begin, to - 1, to);
    return nearest.cost < link.cost ? nearest : link;
}

template <typename Number>
void CutLine<Number>::settle(int32_t to, Link link) {
    best_[static_cast<size_t>(to)] = link.cost + price_;
    from_[static_cast<size_t>(to)] = link.from;
}

// Up to kPathPadding cuts from `first` on; as many may be written to, which comes before they are settled.
template <typename Number>
void CutLine<Number>::settle_few(int32_t first, int32_t stop, int32_t begin, int32_t end) {
    if constexpr (std::is_same_v<Number, double>) {
        const PathCuts cuts{weight_.data(), moment_.data(), square_.data(), best_.data()};
        kernels().cheapest_links(cuts, begin, end, first, price_, best_.data() + first, from_.data() + first);
    } else {
        for (int32_t to = first; to < stop; ++to) settle(to, best_of_many(begin, end, to));
    }
}

// The cuts [first, stop) in their order, each the end of a link that begins at one of [begin, end).
template <typename Number>
void CutLine<Number>::settle_all(int32_t first, int32_t stop, int32_t begin, int32_t end) {
    constexpr int32_t kFew = 32;  // candidates, for which dividing further costs more than it saves
    constexpr int32_t kMany = 1024;
    if (stop - first > kMany) check_stop();
    while (first < stop) {
        const int32_t count = stop - first;
        if (count == 1) return settle(first, best_link(begin, end, first));
        if (end - begin == 1 || (count <= kPathPadding && end - begin <= kFew)) {
            settle_few(first, std::min(first + kPathPadding, stop), begin, end);
            first += kPathPadding;
            continue;
        }
        const int32_t half = count / 2;
        const int32_t middle = first + (half < kPathPadding ? half : half / kPathPadding * kPathPadding);
        const int32_t between = best_link(begin, end, middle).from;
        settle_all(first, middle, begin, between + 1);
        first = middle;
        begin = between;
    }
}

// Whether the cheapest path to a cut comes from one of [first, to), the paths to which are known; it is known among
// those that come from before. If it does not, no path to a cut between them does.
template <typename Number>
bool CutLine<Number>::comes_from_within(int32_t first, int32_t to) const {
    return best_link(first, to, to).cost + price_ < best_[static_cast<size_t>(to)];
}

template <typename Number>
Number CutLine<Number>::cheapest_path(double price, std::vector<int32_t>& path) {
    price_ = Number{price};
    make_room(size() + kPathPadding, best_);
    make_room(size() + kPathPadding, from_);
    best_[0] = Number{};
    int32_t from = 0;
    constexpr int32_t kMany = 1 << 15;  // fewer cuts take less than looking at the clock at each is worth
    check_stop();
    for (int32_t to = 1; to <= last(); ++to) {
        if (last() > kMany) check_stop();
        const int32_t first = to;
        const Link link = best_link(from, first, first);
        settle(first, link);
        // Links change slowly in length, so this many cuts mostly come from before the first of them as well.
        to = std::min(last(), first + (first - link.from) / 4 * 3);
        if (to > first) {
            settle_all(first + 1, to + 1, link.from, best_link(link.from, first, to).from + 1);
            while (to > first && comes_from_within(first, to)) to = first + (to - first) / 2;
        }
        from = from_[static_cast<size_t>(to)];
    }
    path.clear();
    for (int32_t to = last(); to > 0; to = from_[static_cast<size_t>(to)]) path.push_back(to);
    std::reverse(path.begin(), path.end());
    return best_[static_cast<size_t>(last())];
}

template <typename Number>
double CutLine<Number>::cost_of(const std::vector<int32_t>& path) const {
    double total = 0;
    int32_t from = 0;
    for (const int32_t to : path) {
        total += to_double(cost(from, to));
        from = to;
    }
    return total;
}

template <typename Number>
double CutLine<Number>::rounding_of(const std::vector<int32_t>& path) const {
    double total = 0;
    size_t from = 0;
    for (const int32_t next : path) {
        const size_t to = static_cast<size_t>(next);
        const double largest = std::max(std::fabs(to_double(square_[from])), std::fabs(to_double(square_[to])));
        total += index_[to] - index_[from] == 1 ? 0 : largest * kRounding;
        from = to;
    }
    return total;
}

template <typename Number>
double CutLine<Number>::rounding() const {
    return std::max(std::fabs(to_double(square_.front())), std::fabs(to_double(square_[size() - 1]))) * kRounding;
}

template class CutLine<double>;
template class CutLine<DoubleDouble>;

}  // namespace corepress
