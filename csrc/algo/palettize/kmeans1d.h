// Exact k-means of weighted points on a line. The optimal clusters are intervals of the sorted points.
#pragma once

#include <cstdint>
#include <vector>

#include "algo/palettize/cut_windows.h"
#include "algo/palettize/path_search.h"

namespace corepress {

// The search for the penalty at which the cheapest path has k links starts from its value for a smooth density, and
// runs on a coarse selection of the cuts first. An object keeps its memory between problems and serves one thread at a
// time.
class ScalarKmeans {
public:
    // Points ascend strictly and have positive weights. The result is the optimum; of more than some thousand points of
    // which some weigh less than 2^-48 of all, it is that of points of that weight at least. Afterwards cluster c is
    // [ends()[c-1], ends()[c]) of the points; there are min(k, points) clusters, none empty. `penalty_hint` > 0, from
    // an earlier similar problem, saves passes; so does `counts`: weights are whole and of 32 bits together.
    void solve(Span<const Point> points, int k, double penalty_hint = 0, bool counts = false);

    const std::vector<int32_t>& ends() const { return ends_; }
    // Weighted mean of a cluster; the points given to solve must still be there.
    double centroid(int cluster) const;
    // A hint for similar problems; 0 if the last one was trivial.
    double penalty() const { return penalty_; }

private:
    double smooth_penalty(int k);
    bool find_in_windows(int k, double& penalty);
    void select_cuts(int count);
    bool raise_light_points();

    Span<const Point> points_;
    PathSearch<double> search_;
    CutWindows windows_;
    PathSearch<DoubleDouble> extended_search_;
    std::vector<Point> raised_;
    std::vector<double> mass_;
    int64_t stretch_ = 1;
    std::vector<int32_t> selection_;
    std::vector<int32_t> ends_;
    double penalty_ = 0;
};

}  // namespace corepress
