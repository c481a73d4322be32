#include "algo/palettize/fit_tables.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "algo/palettize/distribution.h"
#include "algo/palettize/kmeans1d.h"
#include "algo/palettize/weighted_distribution.h"
#include "core/half.h"
#include "core/parallel.h"
#include "core/require.h"
#include "core/workspace.h"
#include "dispatch.h"

namespace corepress {
namespace {

// A number in the format's nearest.
template <typename Bits>
double rounded(double value) {
    return static_cast<double>(Format<Bits>::to_float(bits_from_double<Bits>(value)));
}

// Of points that take the nearest of ascending entries; of two that are equally near it does not matter which.
template <typename Bits>
Noise noise_of(Span<const Point> points, const Bits* lut, int entries) {
    double squared_error = 0, squared_first = 0;
    const Point* point = points.data();
    const Point* const last = point + points.size();
    for (int entry = 0; entry < entries; ++entry) {
        const double value = static_cast<double>(Format<Bits>::to_float(lut[entry]));
        const Point* end = last;
        if (entry + 1 < entries) {
            const double limit = (value + static_cast<double>(Format<Bits>::to_float(lut[entry + 1]))) / 2;
            end = std::partition_point(point, last, [limit](const Point& other) { return other.value <= limit; });
        }
        for (; point < end; ++point) {
            const double error = point->value - value;
            squared_error += point->weight * (error * error);
            squared_first += point->weight * (point->value * point->value);
        }
    }
    return {squared_error, squared_first};
}

// An object keeps its memory between groups and serves one caller at a time.
template <typename Bits>
class TableFitter {
public:
    Fit fit_kmeans(const GroupView<Bits>& group, int entries, int threads, Bits* lut) {
        if (group.importance != nullptr) {
            weighted_.collect(group, threads);
            if (weighted_.points().size() > 0) {
                solve(weighted_, group, entries, threads, lut);
                return {};
            }
        }
        distribution_.collect(group, threads);
        if (!distribution_.is_finite()) return {false};
        const int used = solve(distribution_, group, entries, threads, lut);
        if (!distribution_.has_every_value()) return {};
        return {true, noise_of(distribution_.points(), lut, used)};
    }

    void fit_uniform(const GroupView<Bits>& group, int entries, int threads, Bits* lut) {
        using Key = typename Format<Bits>::Key;
        Key least = std::numeric_limits<Key>::max(), most = std::numeric_limits<Key>::min();
        group.for_each(0, group.size(), [&](const Bits* values, int64_t length) {
            kernels_for<Bits>(kernels()).run_key_ranges(values, 1, length, &least, &most);
        });
        const double lowest = value_of_key<Bits>(least), highest = value_of_key<Bits>(most), range = highest - lowest;
        const int steps = entries - 1;
        if (steps == 0) {
            *lut = bits_from_double<Bits>(lowest + range / 2);
            return;
        }
        const double step = rounded<Bits>(rounded<Bits>(range) / steps);
        const bool is_finite = std::isfinite(step) && std::isfinite(rounded<Bits>(lowest + steps * step));
        if (is_finite) put_steps(lowest, step, entries, lut);
        if (is_finite && std::abs(steps * step - range) <= step / 2) return;
        exact_.resize(static_cast<size_t>(entries));
        put_steps(lowest, range / steps, entries, exact_.data());
        exact_.back() = bits_from_double<Bits>(highest);
        if (is_finite) {
            distribution_.collect(group, threads);
            const Span<const Point> points = distribution_.points();
            const double error = noise_of(points, lut, entries).squared_error;
            if (error <= noise_of(points, exact_.data(), entries).squared_error) return;
        }
        std::copy(exact_.begin(), exact_.end(), lut);
    }

private:
    static void put_steps(double lowest, double step, int entries, Bits* lut) {
        for (int k = 0; k < entries; ++k) lut[k] = bits_from_double<Bits>(lowest + k * step);
    }

    // Returns how many entries are in use.
    template <typename Points>
    int solve(Points& points, const GroupView<Bits>& group, int entries, int threads, Bits* lut) {
        constexpr int kMostRefinements = 8;
        kmeans_.solve(points.points(), entries, 0, Points::kCounts);
        for (int i = 0; i < kMostRefinements && points.refine(group, kmeans_.ends(), threads); ++i) {
            kmeans_.solve(points.points(), entries, kmeans_.penalty(), Points::kCounts);
        }
        const int used = static_cast<int>(kmeans_.ends().size());
        for (int c = 0; c < used; ++c) lut[c] = bits_from_double<Bits>(kmeans_.centroid(c));
        std::fill(lut + used, lut + entries, lut[used - 1]);
        return used;
    }

    Distribution<Bits> distribution_;
    WeightedDistribution<Bits> weighted_;
    ScalarKmeans kmeans_;
    std::vector<Bits> exact_;
};

// Sets a group's infinities apart, each of which has an entry of its own, and calls fit for the others.
template <typename Bits, typename Fit>
void fit_finite(const GroupView<Bits>& group, int entries, Bits* lut, const Fit& fit) {
    using Key = typename Format<Bits>::Key;
    constexpr Bits kInfinity = Format<Bits>::kInfinity;
    std::vector<Bits> finite;
    std::vector<float> importance;
    bool lowest = false, highest = false;
    group.for_each(0, group.size(), [&](const Bits* values, int64_t length) {
        for (int64_t i = 0; i < length; ++i) {
            if ((values[i] & Format<Bits>::kMagnitude) == kInfinity) {
                (static_cast<Key>(values[i]) < 0 ? lowest : highest) = true;
                continue;
            }
            finite.push_back(values[i]);
            if (group.importance != nullptr) importance.push_back(group.importance[values + i - group.values]);
        }
    });
    Bits* const end = lut + entries;
    if (lowest) *lut++ = static_cast<Bits>(kInfinity | ~Format<Bits>::kMagnitude);
    const int left = static_cast<int>(end - lut) - (highest ? 1 : 0);
    if (!finite.empty()) {
        require(left >= 1, "a table of ", entries, " entries has none left for finite values");
        const GroupLayout all{1, 1, static_cast<int64_t>(finite.size())};
        fit({finite.data(), all, 0, importance.empty() ? nullptr : importance.data()}, left, lut);
        lut += left;
        while (highest && lut - 1 > end - entries && lut[-1] == lut[-2]) --lut;
    }
    std::fill(lut, end, highest ? kInfinity : lut[-1]);
}

// A set of at most `most` keys with open addressing, forgotten in constant time per key.
template <typename Key>
class SmallSet {
public:
    explicit SmallSet(int most) : most_(static_cast<size_t>(most)) {
        while (slots_.size() < 4 * most_) slots_.resize(2 * slots_.size());
    }
    // False once there are too many.
    bool add(Key key) {
        const size_t mask = slots_.size() - 1;
        size_t slot = (static_cast<uint32_t>(key) * 2654435769u >> 7) & mask;
        while (slots_[slot].used) {
            if (slots_[slot].key == key) return true;
            slot = (slot + 1) & mask;
        }
        slots_[slot] = {key, true};
        keys_.push_back(key);
        return keys_.size() <= most_;
    }
    std::vector<Key>& keys() { return keys_; }

private:
    struct Slot {
        Key key;
        bool used;
    };
    size_t most_;
    std::vector<Slot> slots_ = std::vector<Slot>(16);
    std::vector<Key> keys_;
};

}  // namespace

template <typename Bits>
Fit fit_tables(const Bits* values, const float* importance, const GroupLayout& layout, TableRule rule, int threads,
               Bits* luts) {
    WorkspacePool<TableFitter<Bits>> fitters;
    // Many groups share the threads among them; each of a few groups has all threads for itself in turn.
    const bool many = layout.groups >= 2 * static_cast<int64_t>(threads) || layout.size() < kGrain;
    std::vector<Fit> fits(static_cast<size_t>(layout.groups));
    parallel_for(layout.groups, many ? threads : 1, [&](int64_t index) {
        Fit& result = fits[static_cast<size_t>(index)];
        const auto fit = [&](const GroupView<Bits>& group, int entries, Bits* lut) {
            const int group_threads = many ? 1 : threads;
            if (rule.mode == TableMode::kUniform) {
                fitters.borrow()->fit_uniform(group, entries, group_threads, lut);
            } else {
                result = fitters.borrow()->fit_kmeans(group, entries, group_threads, lut);
            }
        };
        const GroupView<Bits> group{values, layout, index, importance};
        if (rule.infinities) {
            fit_finite(group, rule.entries, luts + index * rule.entries, fit);
        } else {
            fit(group, rule.entries, luts + index * rule.entries);
        }
    });
    Fit all{true, Noise{}};
    for (const Fit& each : fits) {
        all.finite = all.finite && each.finite;
        if (!each.noise) all.noise.reset();
        if (!all.noise) continue;
        all.noise->squared_error += each.noise->squared_error;
        all.noise->squared_first += each.noise->squared_first;
    }
    return all;
}

template <typename Bits>
std::vector<std::vector<Bits>> distinct_values(const Bits* values, const GroupLayout& layout, int most, int threads) {
    using Key = typename Format<Bits>::Key;
    std::vector<std::vector<Bits>> result(static_cast<size_t>(layout.groups));
    parallel_for(layout.groups, threads, [&](int64_t index) {
        SmallSet<Key> set(most);
        bool fits = true;
        const GroupView<Bits> group{values, layout, index};
        group.for_each(0, group.size(), [&](const Bits* run, int64_t length) {
            for (int64_t i = 0; i < length && fits; ++i) {
                const Key key = key_from_bits(run[i]);
                fits = set.add(key == -1 ? Key{0} : key);  // -1 is the key of -0
            }
        });
        if (!fits) return;
        std::sort(set.keys().begin(), set.keys().end());
        for (const Key key : set.keys()) result[static_cast<size_t>(index)].push_back(bits_from_key<Bits>(key));
    });
    return result;
}

template Fit fit_tables(const uint16_t*, const float*, const GroupLayout&, TableRule, int, uint16_t*);
template Fit fit_tables(const BFloat16Bits*, const float*, const GroupLayout&, TableRule, int, BFloat16Bits*);
template Fit fit_tables(const uint32_t*, const float*, const GroupLayout&, TableRule, int, uint32_t*);
template std::vector<std::vector<uint16_t>> distinct_values(const uint16_t*, const GroupLayout&, int, int);
template std::vector<std::vector<BFloat16Bits>> distinct_values(const BFloat16Bits*, const GroupLayout&, int, int);
template std::vector<std::vector<uint32_t>> distinct_values(const uint32_t*, const GroupLayout&, int, int);

}  // namespace corepress
