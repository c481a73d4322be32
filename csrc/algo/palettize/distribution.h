// The values of one group as weighted points on a line: all that scalar k-means needs to know of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "algo/palettize/float_buckets.h"
#include "algo/palettize/kmeans1d.h"
#include "core/half.h"
#include "core/span.h"
#include "core/stop.h"
#include "core/workspace.h"

namespace corepress {

// One group of a tensor: `layout.outer` runs of `layout.run` values.
template <typename Bits>
struct GroupView {
    static constexpr int64_t kUnwatched = int64_t{1} << 22;  // values between two looks at whether to stop

    const Bits* values;
    GroupLayout layout;
    int64_t group;
    const float* importance = nullptr;  // of each value of the tensor, or null: all alike

    int64_t size() const { return layout.group_size(); }
    // Calls body(values, length) over the part [begin, end) of the group's own order.
    template <typename Body>
    void for_each(int64_t begin, int64_t end, Body&& body) const {
        for (int64_t look = begin + kUnwatched; begin < end;) {
            const int64_t within = begin % layout.run;
            const int64_t length = std::min({layout.run - within, end - begin, kUnwatched});
            if (begin >= look) {
                check_stop();
                look = begin + kUnwatched;
            }
            body(values + layout.offset(begin / layout.run, group) + within, length);
            begin += length;
        }
    }
    // The same with body(values, importance, length).
    template <typename Body>
    void for_each_weighted(int64_t begin, int64_t end, Body&& body) const {
        for_each(begin, end, [&](const Bits* run, int64_t length) { body(run, importance + (run - values), length); });
    }
};

// Adds a point to those that ascend; -0 joins 0. Values and weights that change while they are read several times may
// give anything: here they become finite, and what does not ascend joins the point before. So there always is a point,
// and k-means finds what it relies on.
// `points` has room for another; there are `count` before and after.
inline void append_point(double value, double weight, Point* points, size_t& count) {
    constexpr double kLargest = static_cast<double>(std::numeric_limits<float>::max()), kMost = 0x1p200;
    value = std::min(std::max(-kLargest, value), kLargest);  // in this order, NaN is the first
    weight = std::min(std::max(std::numeric_limits<double>::min(), weight), kMost);
    if (count > 0 && !(points[count - 1].value < value)) {
        points[count - 1].weight += weight;
    } else {
        points[count++] = {value, weight};
    }
}
inline void append_point(double value, double weight, std::vector<Point>& points) {
    size_t count = points.size();
    points.emplace_back();
    append_point(value, weight, points.data(), count);
    points.resize(count);
}

// What stands for the values of a bucket.
enum class BucketState : uint8_t {
    kWhole,    // one point for several values
    kMarked,   // the same, to be replaced by the values
    kSettled,  // the values themselves
};

// A cut settles between the last point of a cluster and the first of the next. Where these are whole buckets, either
// may hold the best cut: both are marked. Whether any was.
inline bool mark_cuts(const std::vector<int32_t>& ends, const std::vector<uint32_t>& point_buckets,
                      std::vector<BucketState>& states) {
    bool any = false;
    const auto mark = [&](uint32_t bucket) {
        if (states[bucket] != BucketState::kWhole) return;
        states[bucket] = BucketState::kMarked;
        any = true;
    };
    for (size_t cluster = 0; cluster + 1 < ends.size(); ++cluster) {
        const size_t end = static_cast<size_t>(ends[cluster]);
        mark(point_buckets[end - 1]);
        mark(point_buckets[end]);
    }
    return any;
}

// Replaces the points of marked buckets by their values, which ascend, in place: bucket_of(value) says where a value
// belongs, append(value, points, count) adds it.
template <typename Value, typename BucketOf, typename Append>
void replace_marked(const std::vector<Value>& values, const BucketOf& bucket_of, const Append& append,
                    std::vector<BucketState>& states, std::vector<Point>& points,
                    std::vector<uint32_t>& point_buckets) {
    const size_t before = points.size(), more = values.size();
    points.resize(before + more);
    point_buckets.resize(before + more);
    std::copy_backward(points.data(), points.data() + before, points.data() + before + more);
    std::copy_backward(point_buckets.data(), point_buckets.data() + before, point_buckets.data() + before + more);
    size_t count = 0, next = 0;
    for (size_t i = more; i < before + more; ++i) {
        const uint32_t bucket = point_buckets[i];
        const size_t first = count;
        if (states[bucket] != BucketState::kMarked) {
            const Point point = points[i];
            append_point(point.value, point.weight, points.data(), count);
        } else {
            while (next < more && bucket_of(values[next]) < bucket) ++next;  // there are such if values changed
            for (; next < more && bucket_of(values[next]) == bucket; ++next) append(values[next], points.data(), count);
        }
        std::fill(point_buckets.data() + first, point_buckets.data() + count, bucket);
    }
    points.resize(count);
    point_buckets.resize(count);
    for (BucketState& state : states) {
        if (state == BucketState::kMarked) state = BucketState::kSettled;
    }
}

// Room for so many new elements, and the few that refining adds.
template <typename Element>
void reserve_points(size_t count, std::vector<Element>& elements) {
    if (count <= elements.capacity()) return;
    elements = {};
    elements.reserve(count + count / 16);
}

// Collects a group's points. A large group of halves goes through a histogram of all 65,536 patterns. A large group of
// floats is first counted by the upper 16 bits of its keys, then in some 32,768 buckets, finer where a fine cut is
// worth more; a bucket keeps its exact sum. Then `refine` replaces the buckets that hold a cut, and their neighbours,
// by the values in them, so that the cuts between clusters are settled to the value. All sums are integers, hence the
// same for every thread count. A small group is sorted.
//
// An object keeps its memory between groups and serves one caller at a time, which may use several threads.
template <typename Bits>
class Distribution {
public:
    using Key = typename Format<Bits>::Key;
    static constexpr bool kCounts = true;  // what points weigh

    // Distinct values, or means of buckets, ascending, with their counts. -0 counts as 0.
    Span<const Point> points() const { return {points_.data(), point_count_}; }
    bool has_every_value() const { return !bucketed_; }
    // Otherwise there are no points.
    bool is_finite() const { return finite_; }

    void collect(const GroupView<Bits>& group, int threads);
    // After a solution with these ends: true if points were replaced and another solution is called for.
    bool refine(const GroupView<Bits>& group, const std::vector<int32_t>& ends, int threads);

private:
    struct Bucket {
        uint64_t count = 0;
        uint64_t low_sum = 0;  // of the keys' lower 16 bits
    };
    struct Counts {
        std::vector<uint32_t> patterns;
        std::vector<Bucket> buckets;
        std::vector<Key> keys;
    };

    void add_sorted(std::vector<Key>& keys);
    void count_patterns(const GroupView<Bits>& group, int threads);
    bool counted_nonfinite() const;
    void add_patterns(int64_t most);
    void count_buckets(const GroupView<Bits>& group, int threads);
    void add_buckets();

    bool bucketed_ = false, finite_ = true;
    std::vector<Point> points_;  // and room for more
    int64_t point_count_ = 0;
    std::vector<uint32_t> point_buckets_;  // the bucket each point stands for, or belongs to once refined
    std::vector<BucketState> states_;
    std::vector<uint32_t> patterns_;  // counts by upper 16 bits as stored; 0 between groups, as workers' are
    FloatBuckets division_;
    std::vector<Bucket> buckets_;  // until points stand for them
    std::vector<Key> keys_;
    WorkspacePool<Counts> workers_;
};

}  // namespace corepress
