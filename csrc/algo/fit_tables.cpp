#include "algo/fit_tables.h"

#include <algorithm>
#include <limits>

#include "algo/distribution.h"
#include "algo/kmeans1d.h"
#include "core/half.h"
#include "core/parallel.h"
#include "core/workspace.h"
#include "dispatch.h"

namespace corepress {
namespace {

template <typename Bits>
struct KmeansFitter {
    Distribution<Bits> distribution;
    ScalarKmeans kmeans;

    void fit(const GroupView<Bits>& group, int entries, int threads, Bits* lut) {
        constexpr int kMostRefinements = 8;
        distribution.collect(group, threads);
        kmeans.solve(points(), entries);
        for (int i = 0; i < kMostRefinements && distribution.refine(group, kmeans.ends(), threads); ++i) {
            kmeans.solve(points(), entries, kmeans.penalty());
        }
        const int used = static_cast<int>(kmeans.ends().size());
        for (int c = 0; c < used; ++c) lut[c] = bits_from_double<Bits>(kmeans.centroid(c));
        std::fill(lut + used, lut + entries, lut[used - 1]);
    }

    Span<const Point> points() const {
        return {distribution.points().data(), static_cast<int64_t>(distribution.points().size())};
    }
};

template <typename Bits>
void fit_uniform(const GroupView<Bits>& group, int entries, Bits* lut) {
    using Key = typename Format<Bits>::Key;
    Key least = std::numeric_limits<Key>::max(), most = std::numeric_limits<Key>::min();
    group.for_each(0, group.size(), [&](const Bits* values, int64_t length) {
        kernels_for<Bits>(kernels()).run_key_ranges(values, 1, length, &least, &most);
    });
    const double lowest = value_of_key<Bits>(least), highest = value_of_key<Bits>(most);
    for (int k = 0; k < entries; ++k) {
        lut[k] = bits_from_double<Bits>(lowest + k * ((highest - lowest) / (entries - 1)));
    }
    lut[entries - 1] = bits_from_double<Bits>(highest);
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
void fit_tables(const Bits* values, const GroupLayout& layout, TableMode mode, int entries, int threads, Bits* luts) {
    WorkspacePool<KmeansFitter<Bits>> fitters;
    // Many groups share the threads among them; each of a few groups has all threads for itself in turn.
    const bool many = layout.groups >= 2 * static_cast<int64_t>(threads) || layout.size() < kGrain;
    parallel_for(layout.groups, many ? threads : 1, [&](int64_t index) {
        const GroupView<Bits> group{values, layout, index};
        Bits* const lut = luts + index * entries;
        if (mode == TableMode::kUniform) {
            fit_uniform(group, entries, lut);
        } else {
            fitters.borrow()->fit(group, entries, many ? 1 : threads, lut);
        }
    });
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

template void fit_tables(const uint16_t*, const GroupLayout&, TableMode, int, int, uint16_t*);
template void fit_tables(const BFloat16Bits*, const GroupLayout&, TableMode, int, int, BFloat16Bits*);
template void fit_tables(const uint32_t*, const GroupLayout&, TableMode, int, int, uint32_t*);
template std::vector<std::vector<uint16_t>> distinct_values(const uint16_t*, const GroupLayout&, int, int);
template std::vector<std::vector<BFloat16Bits>> distinct_values(const BFloat16Bits*, const GroupLayout&, int, int);
template std::vector<std::vector<uint32_t>> distinct_values(const uint32_t*, const GroupLayout&, int, int);

}  // namespace corepress
