// The cuts between sorted, weighted points, and the cheapest path over them at a price on each link.
#pragma once

#include <cstdint>
#include <vector>

#include "core/double_double.h"
#include "core/span.h"
#include "kernels/table.h"

namespace corepress {

// A partition of the points is a path over the cuts; each link, an interval, costs its sum of squares about its mean.
// These costs satisfy the quadrangle inequality. So once a cut is better to come from than an earlier one, it stays so
// for all later cuts: cheapest paths to later cuts come from later cuts (Yao, "Efficient dynamic programming using
// quadrangle inequalities", 1980). Cuts that are fewer than the points of a link have all they can come from behind
// them, which makes them a matrix whose rows' least elements are found by dividing and conquering.
//
// An object keeps its memory between problems.
template <typename Number>
class CutLine {
public:
    // Sums start at the point `origin` and go outwards, so that values far out do not take digits from those within.
    void prepare(Span<const Point> points, int64_t origin);
    // The cuts of another line at these places, which ascend from its first to its last.
    void select(const CutLine& line, const std::vector<int32_t>& places);
    // Those of another line from its last to its first.
    void reverse(const CutLine& line);

    int32_t last() const { return static_cast<int32_t>(index_.size()) - 1; }

    // The cheapest path from the first cut to the last, the end of each link; returns its cost with the price.
    Number cheapest_path(double price, std::vector<int32_t>& path);
    // After that, the same for the cheapest path to any cut.
    Number cost_to(int32_t cut) const { return best_[static_cast<size_t>(cut)]; }

    double cost_of(const std::vector<int32_t>& path) const;
    // How far that may be off: an interval's cost is a difference of sums that reach it from the origin.
    double rounding_of(const std::vector<int32_t>& path) const;
    // The same for any one interval.
    double rounding() const;

    // Of the points between two cuts: their weight, their mean (from the origin's value) and their cost.
    double weight(int32_t from, int32_t to) const { return to_double(difference_of(weight_, from, to)); }
    double mean(int32_t from, int32_t to) const {
        return to_double(difference_of(moment_, from, to)) / weight(from, to);
    }
    Number cost(int32_t from, int32_t to) const;

private:
    struct Link {
        Number cost;  // of the path that ends with it
        int32_t from;
    };
    static constexpr double kRounding = sizeof(Number) == sizeof(double) ? 0x1p-50 : 0x1p-98;

    size_t size() const { return index_.size(); }
    void resize(size_t count);
    static Number difference_of(const std::vector<Number>& sums, int32_t from, int32_t to) {
        return sums[static_cast<size_t>(to)] - sums[static_cast<size_t>(from)];
    }
    Link best_link(int32_t begin, int32_t end, int32_t to) const;
    void narrow(int32_t& begin, int32_t& end, int32_t to) const;
    Link best_of_many(int32_t begin, int32_t end, int32_t to) const;
    void settle(int32_t to, Link link);
    void settle_few(int32_t first, int32_t stop, int32_t begin, int32_t end);
    void settle_all(int32_t first, int32_t stop, int32_t begin, int32_t end);
    bool comes_from_within(int32_t first, int32_t to) const;

    // Of the points between the origin and each cut, negative before it. Values count from the origin's.
    std::vector<Number> weight_, moment_, square_;
    std::vector<Number> best_;    // the least cost of a path to the cut
    std::vector<int32_t> from_;   // the cut before on that path
    std::vector<int32_t> index_;  // of the point after the cut
    Number price_{};
};

extern template class CutLine<double>;
extern template class CutLine<DoubleDouble>;

}  // namespace corepress
