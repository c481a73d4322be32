// The values of one group as points on a line that weigh as much as the values' importance.
#pragma once

#include <cstdint>
#include <vector>

#include "algo/palettize/distribution.h"
#include "algo/palettize/float_buckets.h"
#include "core/stable_sort.h"

namespace corepress {

// What Distribution does, with sums of importance in place of counts. These are sums of doubles: each piece of a group
// is added up by itself and in its order, and the pieces, whose bounds and number (16 at most) depend on the group
// alone, in theirs. Values of importance 0 give no point.
template <typename Bits>
class WeightedDistribution {
public:
    using Key = typename Format<Bits>::Key;
    static constexpr bool kCounts = false;  // points weigh what is important

    // Empty if nothing has any importance.
    Span<const Point> points() const { return {points_.data(), static_cast<int64_t>(points_.size())}; }

    void collect(const GroupView<Bits>& group, int threads);
    bool refine(const GroupView<Bits>& group, const std::vector<int32_t>& ends, int threads);

private:
    struct Value {
        Key key;
        float weight;
    };
    struct Bucket {
        double weight = 0;
        double low_sum = 0;  // of weight times the key's lower 16 bits
    };
    struct Piece {
        std::vector<double> weights;
        std::vector<uint32_t> counts;
        std::vector<Bucket> buckets;
        std::vector<uint8_t> bucket_counts;
        std::vector<Value> values;
    };

    template <typename Body>
    void for_each_piece(const GroupView<Bits>& group, int threads, const Body& body);
    void gather(const GroupView<Bits>& group, int64_t begin, int64_t end, std::vector<Value>& values);
    void sort_values();
    void sum_patterns(const GroupView<Bits>& group, int threads);
    void sum_buckets(const GroupView<Bits>& group, int threads);
    void add_buckets();

    bool bucketed_ = false;
    std::vector<Point> points_;
    std::vector<uint32_t> point_buckets_;  // as in Distribution
    std::vector<BucketState> states_;
    FloatBuckets division_;
    std::vector<Bucket> buckets_;
    std::vector<uint8_t> bucket_counts_;  // of values that weigh anything; 2 stands for more
    std::vector<Value> values_;
    StableSorter<Value> sorter_;
    std::vector<Piece> pieces_;
};

}  // namespace corepress
