#include "algo/distribution.h"

#include <algorithm>
#include <numeric>

#include "core/cube_root.h"
#include "core/parallel.h"
#include "core/require.h"

namespace corepress {
namespace {

constexpr int64_t kSmallHalves = 4096;  // below, sorting beats clearing and scanning a histogram
constexpr int64_t kSmallFloats = 16384;
constexpr int kBuckets = 1 << 15;
constexpr int64_t kPiece = int64_t{1} << 19;

template <typename Bits>
int upper_pattern(typename Format<Bits>::Key key) {
    return (static_cast<int32_t>(key) >> (Format<Bits>::kWidth - 16)) + kPatterns / 2;
}

// The upper 16 bits as they are stored, from their place in key order.
size_t stored_pattern(int pattern) {
    return static_cast<size_t>(pattern < kPatterns / 2 ? kPatterns - 1 - pattern : pattern - kPatterns / 2);
}

// The first key of those that share their upper 16 bits, and the step of the value from one key to the next there.
double first_value(int pattern) {
    return value_of_key<uint32_t>(static_cast<int64_t>(pattern - kPatterns / 2) * kPatterns);
}
double value_step(int pattern) {
    return value_of_key<uint32_t>(static_cast<int64_t>(pattern - kPatterns / 2) * kPatterns + 1) - first_value(pattern);
}

}  // namespace

template <typename Bits>
void Distribution<Bits>::add_point(double value, uint64_t weight) {
    if (!points_.empty() && points_.back().value == value) {
        points_.back().weight += static_cast<double>(weight);
    } else {
        points_.push_back({value, static_cast<double>(weight)});
    }
}

template <typename Bits>
void Distribution<Bits>::add_sorted(std::vector<Key>& keys) {
    std::sort(keys.begin(), keys.end());
    for (size_t i = 0; i < keys.size();) {
        size_t next = i + 1;
        while (next < keys.size() && keys[next] == keys[i]) ++next;
        add_point(value_of_key<Bits>(keys[i]), next - i);
        i = next;
    }
}

template <typename Bits>
void Distribution<Bits>::count_patterns(const GroupView<Bits>& group, int threads) {
    for (auto& worker : workers_.objects()) worker->patterns.assign(kPatterns, 0);
    parallel_pieces(group.size(), kPiece, threads, [&](int64_t begin, int64_t end) {
        auto worker = workers_.borrow();
        if (worker->patterns.empty()) worker->patterns.assign(kPatterns, 0);
        uint32_t* const counts = worker->patterns.data();
        group.for_each(begin, end, [counts](const Bits* values, int64_t length) {
            constexpr int kLow = Format<Bits>::kWidth - 16;
            for (int64_t i = 0; i < length; ++i) ++counts[values[i] >> kLow];
        });
    });
    patterns_ = workers_.objects().front()->patterns;
    for (size_t worker = 1; worker < workers_.objects().size(); ++worker) {
        const uint32_t* const counts = workers_.objects()[worker]->patterns.data();
        for (size_t bits = 0; bits < kPatterns; ++bits) patterns_[bits] += counts[bits];
    }
}

// Divides the budget of buckets by (count * width^2)^(1/3), as clusters would divide the line. A pattern needs no more
// buckets than it has values; what it leaves goes to the others, so that a few far values do not take all.
template <typename Bits>
void Distribution<Bits>::divide_buckets() {
    if constexpr (sizeof(Bits) == 4) {
        struct Share {
            int pattern;
            double count, mass;
            bool full;
        };
        std::vector<Share> shares;
        for (int pattern = 0; pattern < kPatterns; ++pattern) {
            const double count = static_cast<double>(patterns_[stored_pattern(pattern)]);
            const double width = count > 0 ? value_step(pattern) * kPatterns : 0;
            if (count > 0) shares.push_back({pattern, count, cube_root(count * width * width), false});
        }
        double per_mass = 0;
        for (bool changed = true; changed;) {
            double budget = kBuckets, mass = 0;
            for (const Share& share : shares) (share.full ? budget : mass) += share.full ? -share.count : share.mass;
            per_mass = mass > 0 ? std::max(budget, 0.0) / mass : 0;
            changed = false;
            for (Share& share : shares) {
                if (share.full || share.mass * per_mass < share.count) continue;
                share.full = changed = true;
            }
        }
        first_bucket_.assign(kPatterns + 1, 0);
        bucket_shift_.assign(kPatterns, 16);
        for (const Share& share : shares) {
            const double buckets = share.full ? share.count : share.mass * per_mass;
            int bits = 0;
            while (bits < 16 && static_cast<double>(1 << bits) < buckets) ++bits;
            bucket_shift_[static_cast<size_t>(share.pattern)] = static_cast<uint8_t>(16 - bits);
            first_bucket_[static_cast<size_t>(share.pattern) + 1] = 1u << bits;
        }
        std::partial_sum(first_bucket_.begin(), first_bucket_.end(), first_bucket_.begin());
    }
}

template <typename Bits>
uint32_t Distribution<Bits>::bucket_of(Key key) const {
    const size_t pattern = static_cast<size_t>(upper_pattern<Bits>(key));
    return first_bucket_[pattern] + ((static_cast<uint32_t>(key) & 0xffffu) >> bucket_shift_[pattern]);
}

template <typename Bits>
void Distribution<Bits>::count_buckets(const GroupView<Bits>& group, int threads) {
    const size_t bucket_count = first_bucket_[kPatterns];
    for (auto& worker : workers_.objects()) worker->buckets.assign(bucket_count, {});
    parallel_pieces(group.size(), kPiece, threads, [&](int64_t begin, int64_t end) {
        auto worker = workers_.borrow();
        if (worker->buckets.size() != bucket_count) worker->buckets.assign(bucket_count, {});
        Bucket* const buckets = worker->buckets.data();
        group.for_each(begin, end, [&](const Bits* values, int64_t length) {
            for (int64_t i = 0; i < length; ++i) {
                const Key key = key_from_bits(values[i]);
                Bucket& bucket = buckets[bucket_of(key)];
                ++bucket.count;
                bucket.low_sum += static_cast<uint32_t>(key) & 0xffffu;
            }
        });
    });
    buckets_.assign(bucket_count, {});
    for (const auto& worker : workers_.objects()) {
        for (size_t i = 0; i < worker->buckets.size(); ++i) {
            buckets_[i].count += worker->buckets[i].count;
            buckets_[i].low_sum += worker->buckets[i].low_sum;
        }
    }
}

// Points of all buckets; those marked as replaced give their values, which keys_ holds in ascending order.
template <typename Bits>
void Distribution<Bits>::add_buckets() {
    points_.clear();
    point_buckets_.clear();
    size_t next_key = 0;
    for (size_t pattern = 0; pattern < kPatterns; ++pattern) {
        if (first_bucket_[pattern] == first_bucket_[pattern + 1]) continue;
        const double first = first_value(static_cast<int>(pattern)), step = value_step(static_cast<int>(pattern));
        for (uint32_t bucket = first_bucket_[pattern]; bucket < first_bucket_[pattern + 1]; ++bucket) {
            const Bucket& sums = buckets_[bucket];
            if (sums.count == 0) continue;
            if (refined_[bucket] == 0) {
                add_point(first + step * (static_cast<double>(sums.low_sum) / static_cast<double>(sums.count)),
                          sums.count);
                point_buckets_.resize(points_.size(), bucket);
                continue;
            }
            for (uint64_t i = 0; i < sums.count;) {
                const Key key = keys_[next_key];
                uint64_t same = 0;
                while (i + same < sums.count && keys_[next_key + same] == key) ++same;
                add_point(value_of_key<Bits>(key), same);
                i += same;
                next_key += same;
            }
            point_buckets_.resize(points_.size(), bucket);
        }
    }
}

template <typename Bits>
void Distribution<Bits>::collect(const GroupView<Bits>& group, int threads) {
    constexpr int64_t kSmall = sizeof(Bits) == 2 ? kSmallHalves : kSmallFloats;
    require(group.size() <= int64_t{0xffffffff}, "a group of ", group.size(),
            " weights is too large to count in 32 bits");
    points_.clear();
    bucketed_ = false;
    if (group.size() <= kSmall) {
        keys_.clear();
        group.for_each(0, group.size(), [this](const Bits* values, int64_t length) {
            for (int64_t i = 0; i < length; ++i) keys_.push_back(key_from_bits(values[i]));
        });
        add_sorted(keys_);
        return;
    }
    count_patterns(group, threads);
    if constexpr (sizeof(Bits) == 2) {
        for (int pattern = 0; pattern < kPatterns; ++pattern) {
            const uint64_t count = patterns_[stored_pattern(pattern)];
            if (count > 0) add_point(value_of_key<Bits>(pattern - kPatterns / 2), count);
        }
    } else {
        bucketed_ = true;
        divide_buckets();
        count_buckets(group, threads);
        refined_.assign(buckets_.size(), 0);
        add_buckets();
    }
}

template <typename Bits>
bool Distribution<Bits>::refine(const GroupView<Bits>& group, const std::vector<int32_t>& ends, int threads) {
    if (!bucketed_) return false;
    bool any = false;
    const auto mark = [&](uint32_t bucket) {
        if (refined_[bucket] != 0 || buckets_[bucket].count < 2) return;
        refined_[bucket] = 1;
        any = true;
    };
    // A cut settles between the last point of a cluster and the first of the next. Where these are whole buckets,
    // either may hold the best cut.
    for (size_t cluster = 0; cluster + 1 < ends.size(); ++cluster) {
        const size_t end = static_cast<size_t>(ends[cluster]);
        mark(point_buckets_[end - 1]);
        mark(point_buckets_[end]);
    }
    if (!any) return false;
    for (auto& worker : workers_.objects()) worker->keys.clear();
    parallel_pieces(group.size(), kPiece, threads, [&](int64_t begin, int64_t end) {
        auto worker = workers_.borrow();
        group.for_each(begin, end, [&](const Bits* values, int64_t length) {
            for (int64_t i = 0; i < length; ++i) {
                const Key key = key_from_bits(values[i]);
                if (refined_[bucket_of(key)] != 0) worker->keys.push_back(key);
            }
        });
    });
    keys_.clear();
    for (const auto& worker : workers_.objects()) keys_.insert(keys_.end(), worker->keys.begin(), worker->keys.end());
    std::sort(keys_.begin(), keys_.end());
    add_buckets();
    return true;
}

template class Distribution<uint16_t>;
template class Distribution<BFloat16Bits>;
template class Distribution<uint32_t>;

}  // namespace corepress
