#include "algo/palettize/kmeans1d_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "algo/palettize/kmeans1d.h"
#include "core/in_parts.h"
#include "core/parallel.h"
#include "core/require.h"
#include "core/stable_sort.h"
#include "core/workspace.h"

namespace corepress {
namespace {

class RowSolver {
public:
    // Sorts a row once for all k: a copy of it, since an order cannot be found of values that change meanwhile. A power
    // of two, which changes no digit, keeps squares within the range of doubles.
    void load(const double* values, const double* weights, int64_t columns) {
        values_.assign(values, values + columns);
        weights_.clear();
        if (weights != nullptr) weights_.assign(weights, weights + columns);
        order_.resize(static_cast<size_t>(columns));
        const auto is_weight = [](double weight) { return weight >= 0 && std::isfinite(weight); };
        double largest = 0;
        for_each_part(columns, [&](int64_t begin, int64_t end) {
            const double* const part = values_.data();
            require(std::all_of(part + begin, part + end, [](double value) { return std::isfinite(value); }),
                    "values must be finite");
            if (weights != nullptr) {
                require(std::all_of(weights_.data() + begin, weights_.data() + end, is_weight),
                        "weights must be finite and not negative");
            }
            std::iota(order_.data() + begin, order_.data() + end, begin);
            double magnitude = largest;
            for (int64_t i = begin; i < end; ++i) magnitude = std::max(magnitude, std::fabs(part[i]));
            largest = magnitude;
        });
        sorter_.sort(order_, [this](int64_t a, int64_t b) { return value(a) < value(b); });
        exponent_ = largest > 0 ? std::ilogb(largest) + 1 : 0;
        points_.clear();
        for_each_part(columns, [&](int64_t begin, int64_t end) {
            for (const int64_t i : Span<const int64_t>{order_.data() + begin, end - begin}) {
                const double scaled = std::ldexp(value(i), -exponent_);
                if (weight(i) == 0) continue;
                if (!points_.empty() && points_.back().value == scaled) {
                    points_.back().weight += weight(i);
                } else {
                    points_.push_back({scaled, weight(i)});
                }
            }
        });
        require(!points_.empty(), "all weights of a row are 0");
    }

    void solve(int k, int32_t* codes, double* centroids, double* inertia) {
        kmeans_.solve({points_.data(), static_cast<int64_t>(points_.size())}, k);
        const int used = static_cast<int>(kmeans_.ends().size());
        for (int c = 0; c < k; ++c) centroids[c] = c < used ? kmeans_.centroid(c) : centroids[used - 1];
        int cluster = 0;
        double cut = cut_after(cluster, used, centroids);
        const int64_t columns = static_cast<int64_t>(order_.size());
        for_each_part(columns, [&](int64_t begin, int64_t end) {
            for (const int64_t i : Span<const int64_t>{order_.data() + begin, end - begin}) {
                while (std::ldexp(value(i), -exponent_) > cut) cut = cut_after(++cluster, used, centroids);
                codes[i] = cluster;
            }
        });
        double sum = 0;
        for_each_part(columns, [&](int64_t begin, int64_t end) {
            double before = sum;
            for (int64_t i = begin; i < end; ++i) {
                const double distance = std::ldexp(value(i), -exponent_) - centroids[codes[i]];
                before += weight(i) * distance * distance;
            }
            sum = before;
        });
        *inertia = std::ldexp(sum, 2 * exponent_);
        for (int c = 0; c < k; ++c) centroids[c] = std::ldexp(centroids[c], exponent_);
    }

private:
    double value(int64_t index) const { return values_[static_cast<size_t>(index)]; }
    double weight(int64_t index) const { return weights_.empty() ? 1 : weights_[static_cast<size_t>(index)]; }

    // Half way to the next mean; but the middle of neighbouring numbers is one of them, so never beyond the clusters.
    double cut_after(int cluster, int used, const double* centroids) const {
        constexpr double kInfinity = std::numeric_limits<double>::infinity();
        if (cluster + 1 >= used) return kInfinity;
        const size_t end = static_cast<size_t>(kmeans_.ends()[static_cast<size_t>(cluster)]);
        const double middle = centroids[cluster] + (centroids[cluster + 1] - centroids[cluster]) / 2;
        return std::min(std::max(middle, points_[end - 1].value), std::nextafter(points_[end].value, -kInfinity));
    }

    std::vector<double> values_, weights_;
    int exponent_ = 0;
    std::vector<int64_t> order_;
    StableSorter<int64_t> sorter_;
    std::vector<Point> points_;
    ScalarKmeans kmeans_;
};

}  // namespace

void kmeans1d_rows(const double* values, const double* weights, int64_t rows, int64_t columns, Span<const int> ks,
                   int threads, Span<const RowClusters> results) {
    WorkspacePool<RowSolver> solvers;
    parallel_for(rows, threads, [&](int64_t row) {
        auto solver = solvers.borrow();
        solver->load(values + row * columns, weights == nullptr ? nullptr : weights + row * columns, columns);
        for (int64_t j = 0; j < ks.size(); ++j) {
            solver->solve(ks[j], results[j].codes + row * columns, results[j].centroids + row * ks[j],
                          results[j].inertia + row);
        }
    });
}

}  // namespace corepress
