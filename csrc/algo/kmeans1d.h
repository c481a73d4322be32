// Exact k-means of weighted points on a line.
#pragma once

#include <cstdint>
#include <vector>

#include "core/span.h"

namespace corepress {

struct Point {
    double value;
    double weight;
};

// The optimal clusters are intervals of the sorted points, and the cost of intervals satisfies the quadrangle inequality.
// So the least cost with a price `penalty` on each cluster is a least-weight subsequence, found in one pass with a queue
// of candidates (Galil and Park 1992), and since the least cost is convex in the number of clusters, some penalty has an
// optimum of exactly k clusters (Gronlund et al., "Fast exact k-means, k-medians and Bregman divergence clustering in
// 1D", 2017). The search for that penalty starts from its value for a smooth density and runs on a coarse selection of
// the cuts first. Every pass also bounds the optimum from below, which certifies the result: cost - bound is at most
// kTolerance of the cost. Where rounding prevents that, a dynamic program in double-double arithmetic decides.
//
// An object keeps its memory between calls and serves one thread at a time.
class ScalarKmeans {
public:
    static constexpr double kTolerance = 1e-9;

    // Points ascend strictly and have positive weights. Afterwards cluster c is [ends()[c-1], ends()[c]) of the points;
    // there are min(k, points) clusters, none empty. `penalty_hint` > 0, from an earlier similar problem, saves passes.
    void solve(Span<const Point> points, int k, double penalty_hint = 0);

    const std::vector<int32_t>& ends() const { return ends_; }
    // Weighted mean of cluster c.
    double centroid(int cluster) const;
    double penalty() const { return penalty_; }
    // Passes over all points that the last call needed, and whether it fell back on the dynamic program.
    int passes() const { return passes_; }
    bool fell_back() const { return fell_back_; }

private:
    // Sums over all points before a possible cut; values are relative to centre_.
    struct Cut {
        double weight;
        double moment;
        double best;    // least penalised cost up to this cut, as the largest penalised gain
        int32_t index;  // among the points
        int32_t from;   // the cut before, on the best path
    };
    struct Candidate {
        int32_t cut;
        int32_t start;  // first later cut for which this candidate is the best one to come from
    };

    static double gain(const Cut& from, const Cut& to);
    void prepare(Span<const Point> points);
    double smooth_penalty(Span<const Point> points, int k, std::vector<double>& mass) const;
    void select_cuts(const std::vector<double>& mass, int count);
    bool search(std::vector<Cut>& cuts, int k, double penalty);
    int best_path(std::vector<Cut>& cuts, double penalty, std::vector<int32_t>& path);
    double cost_of(const std::vector<Cut>& cuts, const std::vector<int32_t>& path) const;
    void solve_exactly(Span<const Point> points, int k);

    double centre_ = 0;
    double total_ = 0;  // weighted sum of squares about the centre
    double penalty_ = 0;
    int passes_ = 0;
    bool fell_back_ = false;
    std::vector<Cut> cuts_, coarse_;
    std::vector<Candidate> queue_;
    std::vector<double> mass_;
    std::vector<int32_t> path_, few_, many_, spliced_, ends_;
};

}  // namespace corepress
