#include "algo/palettize/weighted_distribution.h"

#include <algorithm>

#include "core/parallel.h"

namespace corepress {

template <typename Bits>
template <typename Body>
void WeightedDistribution<Bits>::for_each_piece(const GroupView<Bits>& group, int threads, const Body& body) {
    constexpr int64_t kPiece = int64_t{1} << 19, kMostPieces = 16;
    const int64_t grain = std::max(kPiece, (group.size() + kMostPieces - 1) / kMostPieces);
    pieces_.resize(static_cast<size_t>((group.size() + grain - 1) / grain));
    parallel_pieces(group.size(), grain, threads,
                    [&](int64_t begin, int64_t end) { body(begin, end, pieces_[static_cast<size_t>(begin / grain)]); });
}

template <typename Bits>
void WeightedDistribution<Bits>::gather(const GroupView<Bits>& group, int64_t begin, int64_t end,
                                        std::vector<Value>& values) {
    values.clear();
    group.for_each_weighted(begin, end, [&](const Bits* run, const float* weights, int64_t length) {
        for (int64_t i = 0; i < length; ++i) {
            if (weights[i] > 0) values.push_back({key_from_bits(run[i]), weights[i]});
        }
    });
}

// Equal values stay in the group's order, in which their weights are added.
template <typename Bits>
void WeightedDistribution<Bits>::sort_values() {
    sorter_.sort(values_, [](Value a, Value b) { return a.key < b.key; });
}

template <typename Bits>
void WeightedDistribution<Bits>::sum_patterns(const GroupView<Bits>& group, int threads) {
    for_each_piece(group, threads, [&group](int64_t begin, int64_t end, Piece& piece) {
        constexpr int kLow = Format<Bits>::kWidth - 16;
        piece.weights.assign(kPatterns, 0);
        piece.counts.assign(kLow > 0 ? kPatterns : 0, 0);
        double* const sums = piece.weights.data();
        uint32_t* const counts = piece.counts.data();
        group.for_each_weighted(begin, end, [&](const Bits* values, const float* weights, int64_t length) {
            for (int64_t i = 0; i < length; ++i) {
                sums[values[i] >> kLow] += static_cast<double>(weights[i]);
                if (kLow > 0) ++counts[values[i] >> kLow];
            }
        });
    });
    for (size_t piece = 1; piece < pieces_.size(); ++piece) {
        for (size_t i = 0; i < kPatterns; ++i) pieces_[0].weights[i] += pieces_[piece].weights[i];
        for (size_t i = 0; i < pieces_[0].counts.size(); ++i) pieces_[0].counts[i] += pieces_[piece].counts[i];
    }
}

template <typename Bits>
void WeightedDistribution<Bits>::sum_buckets(const GroupView<Bits>& group, int threads) {
    for_each_piece(group, threads, [&](int64_t begin, int64_t end, Piece& piece) {
        piece.buckets.assign(division_.size(), {});
        piece.bucket_counts.assign(division_.size(), 0);
        Bucket* const buckets = piece.buckets.data();
        uint8_t* const counts = piece.bucket_counts.data();
        group.for_each_weighted(begin, end, [&](const Bits* values, const float* weights, int64_t length) {
            for (int64_t i = 0; i < length; ++i) {
                const Key key = key_from_bits(values[i]);
                const double weight = static_cast<double>(weights[i]);
                const uint32_t place = division_.of(key);
                Bucket& bucket = buckets[place];
                bucket.weight += weight;
                bucket.low_sum += weight * static_cast<double>(static_cast<uint32_t>(key) & 0xffffu);
                counts[place] = static_cast<uint8_t>(counts[place] + (weight > 0 && counts[place] < 2 ? 1 : 0));
            }
        });
    });
    buckets_.swap(pieces_.front().buckets);
    bucket_counts_.swap(pieces_.front().bucket_counts);
    for (size_t piece = 1; piece < pieces_.size(); ++piece) {
        const std::vector<Bucket>& others = pieces_[piece].buckets;
        const std::vector<uint8_t>& counts = pieces_[piece].bucket_counts;
        for (size_t i = 0; i < buckets_.size(); ++i) {
            buckets_[i].weight += others[i].weight;
            buckets_[i].low_sum += others[i].low_sum;
            bucket_counts_[i] = static_cast<uint8_t>(std::min(bucket_counts_[i] + counts[i], 2));
        }
    }
}

// Points of all buckets, which are not kept.
template <typename Bits>
void WeightedDistribution<Bits>::add_buckets() {
    points_.clear();
    point_buckets_.clear();
    states_.assign(buckets_.size(), BucketState::kSettled);
    size_t occupied = 0;
    for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
        occupied += bucket_counts_[bucket] > 0 ? 1 : 0;
        if (bucket_counts_[bucket] > 1) states_[bucket] = BucketState::kWhole;
    }
    reserve_points(occupied + 1, points_);
    reserve_points(occupied + 1, point_buckets_);
    division_.for_each([&](uint32_t bucket, const auto& mean) {
        const Bucket& sums = buckets_[bucket];
        if (bucket_counts_[bucket] == 0) return;
        append_point(mean(sums.low_sum / sums.weight), sums.weight, points_);
        point_buckets_.resize(points_.size(), bucket);
    });
    buckets_ = {};
}

template <typename Bits>
void WeightedDistribution<Bits>::collect(const GroupView<Bits>& group, int threads) {
    constexpr int64_t kSmall = sizeof(Bits) == 2 ? 4096 : 16384;
    points_.clear();
    bucketed_ = false;
    if (group.size() <= kSmall) {
        gather(group, 0, group.size(), values_);
        sort_values();
        for (const Value& value : values_) {
            append_point(value_of_key<Bits>(value.key), static_cast<double>(value.weight), points_);
        }
        return;
    }
    sum_patterns(group, threads);
    const Piece& sums = pieces_.front();
    if constexpr (sizeof(Bits) == 2) {
        for (int pattern = 0; pattern < kPatterns; ++pattern) {
            const double weight = sums.weights[stored_pattern(pattern)];
            if (weight > 0) append_point(value_of_key<Bits>(pattern - kPatterns / 2), weight, points_);
        }
    } else {
        bucketed_ = true;
        division_.divide([&](size_t stored) { return sums.counts[stored]; },
                         [&](size_t stored) { return sums.weights[stored]; });
        for (Piece& piece : pieces_) {  // not kept beside what the search needs
            piece.weights = {};
            piece.counts = {};
        }
        sum_buckets(group, threads);
        add_buckets();
    }
}

template <typename Bits>
bool WeightedDistribution<Bits>::refine(const GroupView<Bits>& group, const std::vector<int32_t>& ends, int threads) {
    if constexpr (sizeof(Bits) == 4) {
        if (!bucketed_ || !mark_cuts(ends, point_buckets_, states_)) return false;
        for_each_piece(group, threads, [&](int64_t begin, int64_t end, Piece& piece) {
            piece.values.clear();
            group.for_each_weighted(begin, end, [&](const Bits* values, const float* weights, int64_t length) {
                for (int64_t i = 0; i < length; ++i) {
                    const Key key = key_from_bits(values[i]);
                    if (weights[i] > 0 && states_[division_.of(key)] == BucketState::kMarked)
                        piece.values.push_back({key, weights[i]});
                }
            });
        });
        values_.clear();
        values_.swap(pieces_.front().values);
        for (size_t piece = 1; piece < pieces_.size(); ++piece) {
            values_.insert(values_.end(), pieces_[piece].values.begin(), pieces_[piece].values.end());
        }
        if (values_.empty()) return false;  // what was in these buckets has changed
        sort_values();
        replace_marked(
            values_, [this](const Value& value) { return division_.of(value.key); },
            [](const Value& value, Point* points, size_t& count) {
                append_point(value_of_key<Bits>(value.key), static_cast<double>(value.weight), points, count);
            },
            states_, points_, point_buckets_);
        return true;
    }
    return false;
}

template class WeightedDistribution<uint16_t>;
template class WeightedDistribution<BFloat16Bits>;
template class WeightedDistribution<uint32_t>;

}  // namespace corepress
