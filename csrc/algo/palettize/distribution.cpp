#include "algo/palettize/distribution.h"

#include <algorithm>
#include <utility>

#include "core/parallel.h"
#include "core/require.h"
#include "dispatch.h"

namespace corepress {
namespace {

constexpr int64_t kSmallHalves = 4096;  // below, sorting beats clearing and scanning a histogram
constexpr int64_t kSmallFloats = 16384;
constexpr int64_t kPiece = int64_t{1} << 19;

}  // namespace

template <typename Bits>
void Distribution<Bits>::add_sorted(std::vector<Key>& keys) {
    std::sort(keys.begin(), keys.end());
    finite_ = keys.empty() || is_finite_range<Bits>(keys.front(), keys.back());
    if (!finite_) return;
    points_.clear();
    for (size_t i = 0; i < keys.size();) {
        size_t next = i + 1;
        while (next < keys.size() && keys[next] == keys[i]) ++next;
        append_point(value_of_key<Bits>(keys[i]), static_cast<double>(next - i), points_);
        i = next;
    }
    point_count_ = static_cast<int64_t>(points_.size());
}

template <typename Bits>
void Distribution<Bits>::count_patterns(const GroupView<Bits>& group, int threads) {
    const auto provide = [](Counts& worker) {
        if (worker.patterns.empty()) worker.patterns.assign(kPatterns, 0);
    };
    for (auto& worker : workers_.objects()) provide(*worker);
    parallel_pieces(group.size(), kPiece, threads, [&](int64_t begin, int64_t end) {
        auto worker = workers_.borrow();
        provide(*worker);
        uint32_t* const counts = worker->patterns.data();
        group.for_each(begin, end, [counts](const Bits* values, int64_t length) {
            constexpr int kLow = Format<Bits>::kWidth - 16;
            for (int64_t i = 0; i < length; ++i) ++counts[values[i] >> kLow];
        });
    });
    patterns_.swap(workers_.objects().front()->patterns);
    for (size_t worker = 1; worker < workers_.objects().size(); ++worker) {
        uint32_t* const counts = workers_.objects()[worker]->patterns.data();
        for (size_t bits = 0; bits < kPatterns; ++bits) patterns_[bits] += std::exchange(counts[bits], 0);
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

template <typename Bits>
void Distribution<Bits>::add_patterns(int64_t most) {
    constexpr size_t kRoom = 16;
    size_t room = static_cast<size_t>(most);
    if (most > kPatterns) {  // few of them occur, and new memory takes longer than counting these
        room = kPatterns - static_cast<size_t>(std::count(patterns_.begin(), patterns_.end(), 0u));
    }
    if (points_.size() < room + kRoom) points_.resize(room + kRoom);
    point_count_ = kernels_for<Bits>(kernels()).points_of_counts(patterns_.data(), points_.data());
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
    buckets_.swap(workers_.objects().front()->buckets);
    for (size_t worker = 1; worker < workers_.objects().size(); ++worker) {
        const std::vector<Bucket>& others = workers_.objects()[worker]->buckets;
        for (size_t i = 0; i < others.size(); ++i) {
            buckets_[i].count += others[i].count;
            buckets_[i].low_sum += others[i].low_sum;
        }
    }
}

// Points of all buckets, which are not kept.
template <typename Bits>
void Distribution<Bits>::add_buckets() {
    points_.clear();
    point_buckets_.clear();
    states_.assign(buckets_.size(), BucketState::kSettled);
    size_t occupied = 0;
    for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
        occupied += buckets_[bucket].count > 0 ? 1 : 0;
        if (buckets_[bucket].count > 1) states_[bucket] = BucketState::kWhole;
    }
    reserve_points(occupied + 1, points_);
    reserve_points(occupied + 1, point_buckets_);
    division_.for_each([&](uint32_t bucket, const auto& mean) {
        const Bucket& sums = buckets_[bucket];
        if (sums.count == 0) return;
        const auto count = static_cast<double>(sums.count);
        append_point(mean(static_cast<double>(sums.low_sum) / count), count, points_);
        point_buckets_.resize(points_.size(), bucket);
    });
    point_count_ = static_cast<int64_t>(points_.size());
    buckets_ = {};
}

template <typename Bits>
void Distribution<Bits>::collect(const GroupView<Bits>& group, int threads) {
    constexpr int64_t kSmall = sizeof(Bits) == 2 ? kSmallHalves : kSmallFloats;
    require(group.size() <= int64_t{0xffffffff}, "a group of ", group.size(),
            " weights is too large to count in 32 bits");
    point_count_ = 0;
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
    finite_ = !counted_nonfinite();
    if constexpr (sizeof(Bits) == 2) {
        if (finite_) return add_patterns(group.size());
    } else if (finite_) {
        bucketed_ = true;
        const auto count = [this](size_t stored) { return patterns_[stored]; };
        division_.divide(count, count);
        patterns_ = {};  // not kept beside what the search needs
        count_buckets(group, threads);
        add_buckets();
    }
    std::fill(patterns_.begin(), patterns_.end(), 0);
}

template <typename Bits>
bool Distribution<Bits>::refine(const GroupView<Bits>& group, const std::vector<int32_t>& ends, int threads) {
    if (!bucketed_ || !mark_cuts(ends, point_buckets_, states_)) return false;
    for (auto& worker : workers_.objects()) worker->keys.clear();
    parallel_pieces(group.size(), kPiece, threads, [&](int64_t begin, int64_t end) {
        auto worker = workers_.borrow();
        group.for_each(begin, end, [&](const Bits* values, int64_t length) {
            for (int64_t i = 0; i < length; ++i) {
                const Key key = key_from_bits(values[i]);
                if (states_[division_.of(key)] == BucketState::kMarked) worker->keys.push_back(key);
            }
        });
    });
    keys_.swap(workers_.objects().front()->keys);
    for (size_t worker = 1; worker < workers_.objects().size(); ++worker) {
        const std::vector<Key>& others = workers_.objects()[worker]->keys;
        keys_.insert(keys_.end(), others.begin(), others.end());
    }
    if (keys_.empty()) return false;  // what was in these buckets has changed
    std::sort(keys_.begin(), keys_.end());
    replace_marked(
        keys_, [this](Key key) { return division_.of(key); },
        [](Key key, Point* points, size_t& count) { append_point(value_of_key<Bits>(key), 1, points, count); }, states_,
        points_, point_buckets_);
    point_count_ = static_cast<int64_t>(points_.size());
    return true;
}

template class Distribution<uint16_t>;
template class Distribution<BFloat16Bits>;
template class Distribution<uint32_t>;

}  // namespace corepress
