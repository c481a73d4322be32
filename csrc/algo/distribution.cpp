#include "algo/distribution.h"

#include <algorithm>

#include "core/parallel.h"
#include "core/require.h"

namespace corepress {
namespace {

constexpr int64_t kSmallHalves = 4096;  // below, sorting beats clearing and scanning a histogram
constexpr int64_t kSmallFloats = 16384;
constexpr int64_t kPiece = int64_t{1} << 19;

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
    finite_ = keys.empty() || is_finite_range<Bits>(keys.front(), keys.back());
    if (!finite_) return;
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
    patterns_.swap(workers_.objects().front()->patterns);
    for (size_t worker = 1; worker < workers_.objects().size(); ++worker) {
        const uint32_t* const counts = workers_.objects()[worker]->patterns.data();
        for (size_t bits = 0; bits < kPatterns; ++bits) patterns_[bits] += counts[bits];
    }
}

// The upper 16 bits hold all of the exponent.
template <typename Bits>
bool Distribution<Bits>::counted_nonfinite() const {
    constexpr size_t kInfinity = Format<Bits>::kInfinity >> (Format<Bits>::kWidth - 16);
    uint64_t count = 0;
    for (size_t pattern = kInfinity; pattern < kPatterns / 2; ++pattern) {
        count += uint64_t{patterns_[pattern]} + patterns_[pattern + kPatterns / 2];
    }
    return count > 0;
}

// Points of halves. Most patterns do not occur, so many are passed over at once; these have one exponent, hence values
// in even steps.
template <typename Bits>
void Distribution<Bits>::add_patterns() {
    constexpr int kTogether = 16;
    constexpr size_t kMinusZero = kPatterns / 2;
    patterns_[0] += patterns_[kMinusZero];
    patterns_[kMinusZero] = 0;
    uint32_t occurring = 0;
    for (const uint32_t count : patterns_) occurring += count > 0 ? 1 : 0;
    points_.resize(occurring + kTogether);
    Point* point = points_.data();
    for (int first = 0; first < kPatterns; first += kTogether) {
        const bool is_negative = first < kPatterns / 2;
        const uint32_t* const counts = patterns_.data() + stored_pattern(is_negative ? first + kTogether - 1 : first);
        uint32_t any = 0;
        for (int i = 0; i < kTogether; ++i) any |= counts[i];
        if (any == 0) continue;
        const double lowest = value_of_key<Bits>(first - kPatterns / 2);
        const double step = value_of_key<Bits>(first + 1 - kPatterns / 2) - lowest;
        for (int i = 0; i < kTogether; ++i) {
            const uint32_t count = counts[is_negative ? kTogether - 1 - i : i];
            *point = {lowest + i * step, static_cast<double>(count)};
            point += count > 0 ? 1 : 0;  // a branch would be mispredicted half of the time
        }
    }
    points_.resize(occurring);
}

template <typename Bits>
void Distribution<Bits>::count_buckets(const GroupView<Bits>& group, int threads) {
    const size_t bucket_count = division_.size();
    for (auto& worker : workers_.objects()) worker->buckets.assign(bucket_count, {});
    parallel_pieces(group.size(), kPiece, threads, [&](int64_t begin, int64_t end) {
        auto worker = workers_.borrow();
        if (worker->buckets.size() != bucket_count) worker->buckets.assign(bucket_count, {});
        Bucket* const buckets = worker->buckets.data();
        group.for_each(begin, end, [&](const Bits* values, int64_t length) {
            for (int64_t i = 0; i < length; ++i) {
                const Key key = key_from_bits(values[i]);
                Bucket& bucket = buckets[division_.of(key)];
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
    division_.for_each([&](uint32_t bucket, const auto& mean) {
        const Bucket& sums = buckets_[bucket];
        if (sums.count == 0) return;
        if (refined_[bucket] == 0) {
            add_point(mean(static_cast<double>(sums.low_sum) / static_cast<double>(sums.count)), sums.count);
        }
        for (uint64_t i = 0; refined_[bucket] != 0 && i < sums.count;) {
            const Key key = keys_[next_key];
            uint64_t same = 0;
            while (i + same < sums.count && keys_[next_key + same] == key) ++same;
            add_point(value_of_key<Bits>(key), same);
            i += same;
            next_key += same;
        }
        point_buckets_.resize(points_.size(), bucket);
    });
}

template <typename Bits>
void Distribution<Bits>::collect(const GroupView<Bits>& group, int threads) {
    constexpr int64_t kSmall = sizeof(Bits) == 2 ? kSmallHalves : kSmallFloats;
    require(group.size() <= int64_t{0xffffffff}, "a group of ", group.size(),
            " weights is too large to count in 32 bits");
    points_.clear();
    bucketed_ = false;
    finite_ = true;
    if (group.size() <= kSmall) {
        keys_.clear();
        group.for_each(0, group.size(), [this](const Bits* values, int64_t length) {
            for (int64_t i = 0; i < length; ++i) keys_.push_back(key_from_bits(values[i]));
        });
        add_sorted(keys_);
        return;
    }
    count_patterns(group, threads);
    finite_ = !counted_nonfinite();
    if (!finite_) return;
    if constexpr (sizeof(Bits) == 2) {
        add_patterns();
    } else {
        bucketed_ = true;
        const auto count = [this](size_t stored) { return patterns_[stored]; };
        division_.divide(count, count);
        count_buckets(group, threads);
        refined_.assign(buckets_.size(), 0);
        add_buckets();
    }
}

template <typename Bits>
bool Distribution<Bits>::refine(const GroupView<Bits>& group, const std::vector<int32_t>& ends, int threads) {
    if (!bucketed_ || !mark_cuts(ends, point_buckets_, buckets_, refined_)) return false;
    for (auto& worker : workers_.objects()) worker->keys.clear();
    parallel_pieces(group.size(), kPiece, threads, [&](int64_t begin, int64_t end) {
        auto worker = workers_.borrow();
        group.for_each(begin, end, [&](const Bits* values, int64_t length) {
            for (int64_t i = 0; i < length; ++i) {
                const Key key = key_from_bits(values[i]);
                if (refined_[division_.of(key)] != 0) worker->keys.push_back(key);
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
