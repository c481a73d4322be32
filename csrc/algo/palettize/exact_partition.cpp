#include "algo/palettize/exact_partition.h"

#include <algorithm>
#include <limits>

#include "core/stop.h"

namespace corepress {
namespace {

// The cost of an interval that grows to the left (West, "Updating mean and variance estimates: an improved method",
// 1979).
struct Interval {
    double weight = 0, mean = 0, cost = 0;

    void add(const Point& point) {
        const double distance = point.value - mean, total = weight + point.weight;
        cost += weight * (point.weight / total) * distance * distance;
        mean += distance * (point.weight / total);
        weight = total;
    }
};

}  // namespace

std::vector<int32_t> exact_partition(Span<const Point> points, int k) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const auto count = static_cast<int32_t>(points.size());
    const auto at = [](int32_t index) { return static_cast<size_t>(index); };
    std::vector<double> before(at(count) + 1, kInfinity), best(before);
    before[0] = 0;
    std::vector<std::vector<int32_t>> starts(static_cast<size_t>(k), std::vector<int32_t>(at(count) + 1, 0));
    for (int32_t used = 1; used <= k; ++used) {
        std::fill(best.begin(), best.end(), kInfinity);
        for (int32_t end = used; end <= count; ++end) {
            check_stop();
            starts[at(used) - 1][at(end)] = end - 1;  // also where sums overflow
            Interval interval;
            for (int32_t start = end - 1; start >= used - 1; --start) {
                interval.add(points[start]);
                if (interval.cost >= best[at(end)]) break;  // longer ones cost more
                const double cost = before[at(start)] + interval.cost;
                if (cost >= best[at(end)]) continue;
                best[at(end)] = cost;
                starts[at(used) - 1][at(end)] = start;
            }
        }
        before.swap(best);
    }
    std::vector<int32_t> ends(static_cast<size_t>(k));
    for (int32_t used = k, end = count; used > 0; end = starts[at(used) - 1][at(end)], --used) ends[at(used) - 1] = end;
    return ends;
}

}  // namespace corepress
